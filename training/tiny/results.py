"""The pages of the tiny model's results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from PIL import Image

from pydeper import DeperModel, Persona
from pydeper.vlm import VisionLanguageModel, open_vlm
from training.evaluation.report import Figure, command_line, write_report
from training.evaluation.sum_statistics import SumStatistics
from training.tiny import evaluation
from training.tiny.config import TinyConfig
from training.tiny.make import COMMAND, TrainedModel
from training.tiny.pretraining.language import trait_tokens
from training.tiny.robustness.hand_drawings import STYLES
from training.tiny.robustness.measure import score_changes, score_drawings
from training.tiny.steps import Seeds, seed_of
from training.tiny.world.people import MORE_SCENES, held_out_scenes, support_samples
from training.tiny.world.viewers import Viewer

_Statistics = dict[str, dict[str, SumStatistics]]

REPORTS = (
    "tiny-unseen",
    "tiny-unseen-way",
    "tiny-unseen-scenes",
    "tiny-seen",
    "tiny-seen-way",
    "tiny-tokens",
    "tiny-probes",
    "tiny-looking",
    "tiny-parity",
    "tiny-drawings",
    "tiny-hand-drawings",
    "tiny-changes",
)
"""What `measure` writes."""


def measure(
    config: TinyConfig,
    trained: TrainedModel,
    bundle: Path,
    parity: Mapping[str, float],
    folder: Path,
    changes: Sequence[str] = (),
) -> None:
    """Measures the bundle through the SDK and writes `tiny-*.json` and `tiny-*.md` into `folder`.

    Args:
        config: Of the training.
        trained: The modules it was made of; the people and the true traits come from here.
        bundle: The bundle.
        parity: What was compared at export -> largest difference from torch.
        folder: Where the pages go.
        changes: To the configuration, as after `--set`; the reports name them.
    """
    model = DeperModel.from_pretrained(bundle)
    vlm = open_vlm(bundle / model.config.vlm.source, model.config.vlm, model.config.prompts, trained.vlm.tokenizer)
    people = trained.people
    made = {"command": command_line(COMMAND, changes)}
    facts = {
        **made,
        "people": f"{len(people.seen)} seen in training, {len(people.unseen)} unseen",
        "held-out scenes": len(people.test_scenes),
        "decoding": f"greedy, at most {evaluation.MAX_NEW_TOKENS} tokens",
        "tokenizer of the metrics": evaluation.TOKENIZER,
        "scorers of CLS": ", ".join(evaluation.SCORERS),
        "intervals": "95 %, bootstrap over people",
    }
    for name, people_are, statistics in (
        ("tiny-unseen", "not seen in training", _measure_unseen(model, vlm, trained)),
        ("tiny-seen", "seen in training", _measure_seen(model, vlm, trained)),
    ):
        title = f"Tiny world, people {people_are}"
        write_report(folder, name, evaluation.figures_of(statistics), title=title, facts=facts)
        title += ": how far on the way from zero-shot to the ceiling"
        write_report(folder, f"{name}-way", evaluation.shares_of(statistics), title=title, facts=facts)
    write_report(
        folder,
        "tiny-unseen-scenes",
        evaluation.figures_of(_measure_on_more_scenes(config, model, vlm, trained)),
        title="Tiny world, people not seen in training, on more scenes",
        facts={
            **{name: fact for name, fact in facts.items() if name != "scorers of CLS"},
            "held-out scenes": config.drawings,
            "intervals": "95 %, bootstrap over scenes",
        },
    )
    write_report(
        folder,
        "tiny-tokens",
        {"ONNX Runtime": _token_agreement(model, vlm, trained)},
        title="Tiny model, greedy decoding in ONNX Runtime against transformers",
        facts=made,
    )
    title = "Tiny world, linear probes of unseen people's personas"
    write_report(folder, "tiny-probes", evaluation.probe_unseen(model, people), title=title, facts=facts)
    title = "Tiny world, telling apart unseen people who differ in their scanning order alone"
    write_report(folder, "tiny-looking", evaluation.tell_apart_by_looking(model, people), title=title, facts=facts)
    _measure_robustness(model, folder, config.drawings, made)
    write_report(
        folder,
        "tiny-parity",
        {"largest difference, relative": dict(parity)},
        title="Tiny model, ONNX against torch",
        facts={**made, "weights": "float16, exact; computation in float32"},
        digits=8,
    )


def _measure_robustness(model: DeperModel, folder: Path, drawings: int, made: Mapping[str, str]) -> None:
    def describe(picture: Image.Image) -> str:
        return model.describe(picture, max_new_tokens=evaluation.MAX_NEW_TOKENS)

    facts = {
        **made,
        "descriptions": "without a persona, greedy",
        "intervals": "95 %, bootstrap over drawings",
    }
    title = "Tiny model, drawings by programs that training never used"
    write_report(folder, "tiny-drawings", score_drawings(describe, drawings), title=title, facts=facts)
    by_hand = score_drawings(describe, drawings, STYLES)
    write_report(folder, "tiny-hand-drawings", by_hand, title="Tiny model, drawings as hands make them", facts=facts)
    title = "Tiny model, shifted, mirrored and recoloured drawings"
    write_report(folder, "tiny-changes", score_changes(describe, drawings), title=title, facts=facts)


def _measure_unseen(model: DeperModel, vlm: VisionLanguageModel, trained: TrainedModel) -> _Statistics:
    people = trained.people
    count = len(people.support[0][0])
    samples = support_samples(people, 0, count)
    personas = {
        "DEPER, 1 sample": evaluation.personas_of(model, support_samples(people, 0, 1)),
        f"DEPER, {count} samples": evaluation.personas_of(model, samples),
        f"DEPER, {count} samples, text only": evaluation.personas_of(model, evaluation.without_trajectory(samples)),
        f"DEPER, {count} samples, trajectory only": evaluation.personas_of(
            model, evaluation.without_description(samples)
        ),
    }
    return _describe(model, vlm, trained, people.unseen, personas).statistics()


def _measure_on_more_scenes(
    config: TinyConfig, model: DeperModel, vlm: VisionLanguageModel, trained: TrainedModel
) -> _Statistics:
    """Figures, above all the ceiling's, that hang on which scenes are described: on as many as there are drawings."""
    people = trained.people
    count = len(people.support[0][0])
    personas = {f"DEPER, {count} samples": evaluation.personas_of(model, support_samples(people, 0, count))}
    scenes = held_out_scenes(config.drawings, seed_of(config, Seeds.VIEWERS), MORE_SCENES)
    trained = attrs.evolve(trained, people=attrs.evolve(people, test_scenes=scenes))
    return _describe(model, vlm, trained, people.unseen, personas).by_scene()


def _measure_seen(model: DeperModel, vlm: VisionLanguageModel, trained: TrainedModel) -> _Statistics:
    """As many seen people as there are unseen ones, so that CLS chooses among equally many."""
    people = trained.people
    viewers = people.seen[: len(people.unseen)]
    samples = [[sample for sample in people.training if sample.subject == viewer.name] for viewer in viewers]
    personas = {f"DEPER, {len(samples[0])} training samples": evaluation.personas_of(model, samples)}
    return _describe(model, vlm, trained, viewers, personas).statistics()


def _describe(
    model: DeperModel,
    vlm: VisionLanguageModel,
    trained: TrainedModel,
    viewers: Sequence[Viewer],
    personas: Mapping[str, Sequence[Persona]],
) -> evaluation.Descriptions:
    with torch.no_grad():
        ceiling = trait_tokens(trained.vlm, [viewer.words() for viewer in viewers]).numpy()
    return evaluation.describe_scenes(model, vlm, trained.people, viewers, personas, ceiling)


def _token_agreement(model: DeperModel, vlm: VisionLanguageModel, trained: TrainedModel) -> dict[str, Figure]:
    people = trained.people
    personas = evaluation.personas_of(model, support_samples(people, 0, len(people.support[0][0])))
    with torch.no_grad():
        embeddings = torch.from_numpy(np.stack([persona.subject_embedding for persona in personas]))
        soft_tokens = trained.adapter(embeddings).numpy()
    return evaluation.token_agreement(vlm, trained.vlm, people, soft_tokens)
