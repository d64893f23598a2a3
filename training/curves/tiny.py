"""Both curves in the tiny world, whose people can give as many samples as a curve asks for."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs

from training.baselines.predict import predict
from training.baselines.system import Describe, SoftTokens, by_prompts
from training.baselines.targets import Person, Target
from training.config import load_config, shaping_settings_at
from training.curves import support, training_samples
from training.curves.points import INPUTS, Answers, Point, Score, command, input_folder
from training.curves.support import SupportSettings, support_curves
from training.evaluation.describe import TRAINING_SAMPLES
from training.evaluation.predictions import Prediction, read_predictions
from training.evaluation.scores import METRICS
from training.network.adapter import Adapter
from training.network.deper import Deper
from training.preparation.splits import TRAIN
from training.tiny import table, table_scores
from training.tiny.config import TinyConfig
from training.tiny.evaluation import MAX_NEW_TOKENS, STYLE, TOKENIZER
from training.tiny.steps import WORLD, Seeds, seed_of
from training.tiny.world.people import simulate_people

TRAINING_COUNTS = (1, 2, 4)
"""Training samples of each person, of whom a real data set has more than 100."""

_BATCH = 64


def support_curve(
    config_file: Path,
    changes: Sequence[str],
    model: str,
    out: Path,
    report: Path,
    settings: SupportSettings,
    *,
    metrics: Sequence[str] = METRICS,
) -> None:
    """The curve over support samples of the tiny world's unseen people.

    Args:
        config_file: A configuration of the tiny model; who there is comes from it.
        changes: Changes to it, as after `--set`.
        model: A bundle of that model: a folder, or "tiny", the built-in one.
        out: Keeps the descriptions.
        report: Gets the JSON file, the table and the chart.
        settings: Which personas; style and length are the tiny world's.
        metrics: Some of `METRICS`, beside what is looked at and in which order.

    Raises:
        PydeperError: Of the setting or bundle that is at fault.
    """
    config = load_config(TinyConfig, config_file, changes)
    # As many for a curve of fewer points, so that its draws are the same.
    viewers = attrs.evolve(config.viewers, support=max(*support.COUNTS, *(settings.counts or ())), support_draws=1)
    people = simulate_people(viewers, seed_of(config, Seeds.VIEWERS))
    unseen = [_in_dataset(person) for person in table.evaluated_people(people) if not person.seen]
    settings = attrs.evolve(settings, style=STYLE, max_new_tokens=MAX_NEW_TOKENS)
    identity = {"seed of the world": config.seed, "viewers": attrs.asdict(viewers)}
    facts = {"command": command("tiny-support", settings.counts, changes), **_facts(len(people.test_scenes))}
    support_curves(model, unseen, out, report, settings, _scorer(metrics), metrics, identity, facts)


def training_curve(
    config_file: Path,
    changes: Sequence[str],
    frozen: Path,
    out: Path,
    report: Path,
    *,
    counts: Sequence[int] | None = None,
    seed: int = 0,
    metrics: Sequence[str] = METRICS,
) -> None:
    """The curve over training samples in the tiny world; see `training.curves.training_samples`.

    Args:
        config_file: A configuration of the tiny model; `viewers.samples` is how many samples "all" are.
        changes: Changes to it, as after `--set`.
        frozen: Folder of the tiny model's frozen parts, see `training.tiny.table.World.make`.
        out: Keeps a folder for each point: both stages, and the predictions with each kind of persona.
        report: Gets the JSON files, tables and charts.
        counts: See `training.curves.training_samples.run`; None: those of `TRAINING_COUNTS` that there are.
        seed: Of the trainings.
        metrics: Some of `METRICS`, beside what is looked at and in which order.

    Raises:
        PydeperError: Of the setting or training that is at fault.
    """
    config = load_config(TinyConfig, config_file, changes)
    curve, datasets = training_samples.CURVE, ["tiny, seen", "tiny, unseen"]
    curve.check(report, datasets, metrics)
    labels = training_samples.labelled_counts(config.viewers.samples, counts, TRAINING_COUNTS)
    world = table.World.make(config, frozen)
    points: dict[str, list[Point]] = {name: [] for name in datasets}
    for label, count in labels:
        print(f"{label} training samples of each person", flush=True)
        answers = _answers(world, config, seed, count, out / f"{label}-samples")
        for dataset in datasets:
            own = training_samples.of_dataset(answers, dataset)
            points[dataset].append(Point(label, count or config.viewers.samples, own))
    facts = {
        "command": command("tiny-training", counts, changes),
        "seed": seed,
        "trainings": f"one at each point, stage 1 in {config.stage1.steps} steps and stage 2 in {config.stage2.steps}",
        **_facts(len(world.people.test_scenes)),
    }
    for dataset in datasets:
        curve.write(report, dataset, points[dataset], _scorer(metrics), facts)


def _answers(
    world: table.World, config: TinyConfig, seed: int, count: int | None, folder: Path
) -> dict[str, list[Prediction]]:
    """Input -> what DEPER, trained on so many samples of each person, says of every test scene for the evaluated."""
    people = [_in_dataset(_with_first_samples(person, count) if person.seen else person) for person in world.evaluated]

    @cache
    def trained() -> tuple[table.World, Deper, Adapter]:
        samples = [attrs.evolve(sample, split=TRAIN) for sample in world.people.training]
        own = attrs.evolve(
            world,
            evaluated=people,
            training=world.encode(training_samples.first_training_samples(samples, count)),
            known=world.encode([sample for person in people for sample in person.known]),
        )
        return own, *table.train_deper(own, config, seed, folder)

    def build(without: str | None) -> Describe:
        own, deper, adapter = trained()
        tokens = table.soft_tokens(own, deper, adapter, without)
        return by_prompts(SoftTokens(world.vlm, STYLE, people, tokens), MAX_NEW_TOKENS)

    parts = (*WORLD, "image_encoder", "encoder", "network", "stage1", "stage2")
    settings = {part: shaping_settings_at(config, part) for part in parts}
    settings |= {"training seed": seed, "training samples": count, "max_new_tokens": MAX_NEW_TOKENS}
    answers = {}
    for name, without in INPUTS.items():
        path = predict(name, partial(build, without), people, input_folder(folder, name), settings, batch_size=_BATCH)
        answers[name] = read_predictions(path)
    return answers


def _with_first_samples(person: Person, count: int | None) -> Person:
    """The seen person, known from their first samples, and from no more than `TRAINING_SAMPLES`."""
    return attrs.evolve(person, known=person.known[: min(count or TRAINING_SAMPLES, TRAINING_SAMPLES)])


def _in_dataset(person: Person) -> Person:
    """The person, whose targets say that they are of the tiny world."""

    def named(target: Target) -> Target:
        return attrs.evolve(target, pending=attrs.evolve(target.pending, dataset=f"tiny, {target.pending.dataset}"))

    return attrs.evolve(person, targets=tuple(map(named, person.targets)))


def _scorer(metrics: Sequence[str]) -> Score:
    def score(answers: Answers) -> dict[str, Any]:
        return table_scores.score(answers, metrics)

    return score


def _facts(scenes: int) -> dict[str, Any]:
    return {
        "held-out scenes": scenes,
        "tokenizer of the metrics": TOKENIZER,
        "scorers of CLS": ", ".join(table_scores.CLS_SCORERS),
    }
