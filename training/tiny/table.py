"""`python -m training table`: baselines, DEPER and its ablations side by side in the tiny world, over several seeds.

The frozen parts, the people and the scenes are those of `python -m training tiny`, made once. A seed is one of
training: of weights, batches and dropout. What is done is kept, system by system and seed by seed, and not done again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch

from pydeper.errors import InvalidArgumentError
from pydeper.samples.sample import Sample
from training.baselines.ablations import ABLATIONS
from training.baselines.captioner import CaptionerInputs
from training.baselines.predict import predict
from training.baselines.run import CAPTIONERS, LORA, PROMPTS, SECTIONS, PromptInputs
from training.baselines.system import Describe, SoftTokens, System, by_prompts
from training.baselines.targets import Person, Target
from training.config import load_config, shaping_settings_at
from training.data.encoded import EncodedDataset, encode_dataset, image_tokens
from training.data.image_features import ImageFeatures
from training.data.images import Images
from training.evaluation.predictions import Prediction, read_predictions
from training.evaluation.report import check_reports, command_line
from training.evaluation.scores import METRICS, check_metrics
from training.loop.train import train
from training.network.adapter import Adapter
from training.network.deper import Deper
from training.network.image_encoder import ImageEncoder
from training.network.text_table import TextTable
from training.stages.embedding import embed
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task
from training.tiny import make
from training.tiny.config import TinyConfig
from training.tiny.evaluation import MAX_NEW_TOKENS, STYLE, TOKENIZER
from training.tiny.pretraining.language import trait_tokens
from training.tiny.steps import WORLD, Seeds, seed_of
from training.tiny.table_scores import CLS_SCORERS, report_names, write_tables
from training.tiny.vlm import pretrain_vlm
from training.tiny.world.people import People, simulate_people, support_samples
from training.tiny.world.viewers import Viewer
from training.vlm.steered_vlm import SteeredVLM

NAME = "tiny-table"
DEPER, CEILING = "DEPER", "ceiling"
SEEDLESS = ("zero-shot", "text-statistics", "few-shot", CEILING)
SYSTEMS = (
    "zero-shot",
    "text-statistics",
    "few-shot",
    "prompt-tuning",
    LORA,
    *CAPTIONERS,
    DEPER,
    *(f"{DEPER}, {name}" for name in ABLATIONS),
    CEILING,
)
"""What can be in the table; "ceiling" has everybody's true traits as the soft token."""

_BATCH = 64


@attrs.frozen(eq=False)
class World:
    """What all systems and seeds share.

    Attributes:
        vlm: Frozen.
        image_encoder: Frozen.
        text_table: The VLM's.
        people: Who was simulated.
        evaluated: As many seen people as unseen ones, and the unseen ones; every test scene is described for each.
        encode: Samples -> what the persona encoder reads of them.
        training: The samples of all seen people.
        known: The samples that the personas of `evaluated` are made from, person after person.
    """

    vlm: SteeredVLM
    image_encoder: ImageEncoder
    text_table: TextTable
    people: People
    evaluated: list[Person]
    encode: Callable[[Sequence[Sample]], EncodedDataset]
    training: EncodedDataset
    known: EncodedDataset

    @classmethod
    def make(cls, config: TinyConfig, frozen: Path) -> "World":
        """Loads the frozen parts from the folder of a `python -m training tiny`, or makes there what it lacks."""
        vlm = pretrain_vlm(config, frozen)
        image_encoder = ImageEncoder(make.pretrain_image_encoder(config, frozen))
        people = simulate_people(config.viewers, seed_of(config, Seeds.VIEWERS))
        evaluated = evaluated_people(people)

        def encode(samples: Sequence[Sample]) -> EncodedDataset:
            return encode_dataset(samples, vlm.tokenizer, image_encoder, make.persona_config(config))

        return cls(
            encode=encode,
            vlm=vlm,
            image_encoder=image_encoder,
            text_table=make.text_table_of(vlm),
            people=people,
            evaluated=evaluated,
            training=encode(people.training),
            known=encode([sample for person in evaluated for sample in person.known]),
        )


def run(
    config_file: Path,
    changes: Sequence[str],
    frozen: Path,
    folder: Path,
    report: Path,
    *,
    seeds: int = 3,
    systems: Sequence[str] = SYSTEMS,
    metrics: Sequence[str] = METRICS,
    name: str = NAME,
) -> None:
    """Makes the tables, see `training.tiny.table_scores.write_tables`.

    Args:
        config_file: A configuration of the tiny model.
        changes: Changes to it, as after `--set`; `stage1.steps` and `stage2.steps` set the budget.
        frozen: Folder of the tiny model's frozen parts.
        folder: Gets trainings and predictions, one folder a system and seed.
        report: Gets the tables.
        seeds: How many trainings of each system that is trained.
        systems: Some of `SYSTEMS`.
        metrics: Some of `training.evaluation.scores.METRICS`.
        name: What the tables' names begin with.

    Raises:
        ConfigError: The configuration cannot be used.
        InvalidArgumentError: A system or metric is unknown, there are no seeds, or the name is a path.
        MissingRequirementError: METEOR is among the metrics, and Java or pycocoevalcap is missing.
        TrainingError: The folder holds something else.
        OutputError: The folder of the tables holds other files of their names.
    """
    if unknown := [system for system in systems if system not in SYSTEMS]:
        raise InvalidArgumentError(f"systems: {unknown[0]!r} is none of {', '.join(map(repr, SYSTEMS))}")
    check_request(report, name, seeds, metrics)
    config = load_config(TinyConfig, config_file, changes)
    world = World.make(config, frozen)
    todo = [(seed, system) for seed in range(seeds) for system in systems if seed == 0 or system not in SEEDLESS]
    answers: dict[str, list[list[Prediction]]] = {system: [] for system in systems}
    for number, (seed, system) in enumerate(todo, 1):
        print(f"{system}, seed {seed} ({number} of {len(todo)})", flush=True)
        ablation = ABLATIONS[system.removeprefix(f"{DEPER}, ")].settings if system.startswith(f"{DEPER}, ") else ()
        variant = load_config(TinyConfig, config_file, [*changes, *ablation])
        answers[system].append(answer(world, variant, system, seed, folder))
    for system in set(systems) & set(SEEDLESS):
        answers[system] *= seeds
    options = [("--systems", systems, SYSTEMS), ("--metrics", metrics, METRICS), ("--name", [name], [NAME])]
    facts = {
        "command": command(seeds, options, changes),
        "trainings": f"{seeds} of each system that is trained",
        "people": f"{len(world.people.seen)} seen in training, {len(world.people.unseen)} not",
        "steps of the baselines": f"prompt tuning {config.prompt_tuning.steps} (unseen people "
        f"{config.prompt_tuning.unseen_steps}), CSMN {config.csmn.steps}",
        **facts_of(config),
    }
    unseeded = [system for system in systems if system in SEEDLESS]
    write_tables(report, name, answers, facts, metrics, reference=DEPER, unseeded=unseeded)


def check_request(report: Path, name: str, seeds: int, metrics: Sequence[str]) -> None:
    """Refuses, before anything is trained, what no tables can be made of; see `run`."""
    if seeds < 1:
        raise InvalidArgumentError(f"seeds is {seeds}; at least 1 is needed")
    if name in ("", "..") or Path(name).name != name:
        raise InvalidArgumentError(f"name is {name!r}; files begin with it, so it cannot be a path")
    check_metrics(metrics)
    check_reports(report, report_names(name))


def answer(world: World, config: TinyConfig, system: str, seed: int, folder: Path) -> list[Prediction]:
    """What a system, trained with this seed, says of every test scene for everybody who is evaluated.

    Args:
        world: What all systems share.
        config: The configuration, ablated where the system is.
        system: One of `SYSTEMS`.
        seed: Of the training.
        folder: Where trainings and predictions are kept.
    """
    own = folder / system.replace(", ", "-").replace(" ", "-") / f"seed-{seed}"
    build, depends = _builder(world, config, system, seed, own)
    frozen = {part: shaping_settings_at(config, part) for part in WORLD}
    settings = {**frozen, "training seed": seed, "max_new_tokens": MAX_NEW_TOKENS}
    settings |= {part: shaping_settings_at(config, part) for part in depends}
    return read_predictions(predict(system, build, world.evaluated, own, settings, batch_size=_BATCH))


def _builder(
    world: World, config: TinyConfig, system: str, seed: int, own: Path
) -> tuple[Callable[[], Describe], tuple[str, ...]]:
    """How the system is made, and the parts of the configuration that it depends on beside the frozen ones."""
    if system in CAPTIONERS:
        captioner = _captioner_inputs(world, config, seed, own)
        return lambda: CAPTIONERS[system](captioner), ("image_encoder", "encoder", *SECTIONS[system])

    def prompting() -> System:
        if system == CEILING:
            return SoftTokens(world.vlm, STYLE, world.evaluated, _true_traits(world))
        if system in PROMPTS:
            return PROMPTS[system](_prompt_inputs(world, config, seed, own))
        return SoftTokens(world.vlm, STYLE, world.evaluated, soft_tokens(world, *train_deper(world, config, seed, own)))

    depends: tuple[str, ...] = ("image_encoder", "encoder", "network", "stage1", "stage2")
    if system in (CEILING, *PROMPTS):
        depends = SECTIONS.get(system, ())
    return lambda: by_prompts(prompting(), MAX_NEW_TOKENS), depends


def _captioner_inputs(world: World, config: TinyConfig, seed: int, own: Path) -> CaptionerInputs:
    def load_image_features(images: Images) -> ImageFeatures:
        return image_tokens(images, world.image_encoder, make.persona_config(config))

    return CaptionerInputs(
        people=world.evaluated,
        training=world.people.training,
        validation=(),
        load_image_features=load_image_features,
        folder=own,
        seed=seed,
        csmn=config.csmn,
        mitr=config.mitr,
    )


def _prompt_inputs(world: World, config: TinyConfig, seed: int, own: Path) -> PromptInputs:
    return PromptInputs(
        vlm=world.vlm,
        style=STYLE,
        people=world.evaluated,
        others=(),
        folder=own,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=seed,
        tuning=config.prompt_tuning,
        bf16=config.stage2.bf16,
    )


def train_deper(world: World, config: TinyConfig, seed: int, folder: Path) -> tuple[Deper, Adapter]:
    """Trains DEPER, both stages, or goes on where an interrupted run left off."""
    first, second = (seed * 1000 + seed_of(config, stage) for stage in (Seeds.STAGE1, Seeds.STAGE2))
    stage1 = Stage1Task(config.network, config.stage1, world.training, world.text_table, first)
    train(stage1, config.stage1, first, folder / "stage-1")
    stage2 = Stage2Task(stage1.deper, config.stage2, world.training, world.text_table, world.vlm, second)
    train(stage2, config.stage2, second, folder / "stage-2")
    return stage1.deper, stage2.adapter


def soft_tokens(world: World, deper: Deper, adapter: Adapter, without: str | None = None) -> torch.Tensor:
    """A soft token for everybody who is evaluated, (people, hidden): the adapter's of the mean of their known z_s.

    Args:
        world: The people.
        deper: After stage 2.
        adapter: Likewise.
        without: A modality to withhold from the known samples: "text" or "trajectory".
    """
    vectors = embed(deper, world.text_table, world.known, without)
    ends = np.cumsum([len(person.known) for person in world.evaluated])[:-1]
    personas = np.stack([own.mean(axis=0) for own in np.split(vectors, ends)])
    with torch.no_grad():
        tokens: torch.Tensor = adapter.eval()(torch.from_numpy(personas))
    return tokens


def _true_traits(world: World) -> torch.Tensor:
    viewers = {viewer.name: viewer for viewer in (*world.people.seen, *world.people.unseen)}
    with torch.no_grad():
        return trait_tokens(world.vlm, [viewers[person.name].words() for person in world.evaluated])


def evaluated_people(people: People) -> list[Person]:
    """As many seen people as unseen ones, so that CLS chooses among equally many."""
    images = people.test_images()

    def person(viewer: Viewer, known: Sequence[Sample], dataset: str) -> Person:
        targets = []
        for number, (scene, image) in enumerate(zip(people.test_scenes, images, strict=True)):
            text = viewer.describe(scene)
            pending = Prediction(dataset, "", f"scene-{number}", viewer.name, "", text)
            targets.append(Target(Sample(image, text, subject=viewer.name), pending))
        return Person(viewer.name, tuple(known), tuple(targets), seen=dataset == "seen")

    seen = people.seen[: len(people.unseen)]
    own = [[sample for sample in people.training if sample.subject == viewer.name] for viewer in seen]
    support = support_samples(people, 0, len(people.support[0][0]))
    return [
        *(person(viewer, known, "seen") for viewer, known in zip(seen, own, strict=True)),
        *(person(viewer, known, "unseen") for viewer, known in zip(people.unseen, support, strict=True)),
    ]


def command(
    seeds: int, options: Sequence[tuple[str, Sequence[str], Sequence[str]]], changes: Sequence[str], *flags: str
) -> str:
    """The command that makes a table.

    Args:
        seeds: Trainings of each system.
        options: Option, its values, and those that it has by default, which need not be said.
        changes: As after `--set`.
        flags: Options without a value.
    """
    words = ["python", "-m", "training", "table", *flags, "--seeds", str(seeds)]
    words += [word for option, some, known in options if tuple(some) != tuple(known) for word in (option, *some)]
    return command_line(words, changes)


def facts_of(config: TinyConfig) -> dict[str, object]:
    """What is to be said of every table of the tiny world."""
    return {
        "held-out scenes": config.viewers.test_scenes,
        "steps of DEPER": f"stage 1 {config.stage1.steps}, stage 2 {config.stage2.steps}",
        "decoding": f"greedy, at most {MAX_NEW_TOKENS} tokens",
        "tokenizer of the metrics": TOKENIZER,
        "scorers of CLS": ", ".join(CLS_SCORERS),
        "intervals": "95 %, bootstrap over people, all trainings of a person together",
    }
