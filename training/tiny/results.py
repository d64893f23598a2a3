"""The pages of the tiny model's results."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pydeper import DeperModel
from pydeper.vlm import open_vlm
from training.evaluation.report import write_report
from training.tiny import evaluation
from training.tiny.config import TinyConfig
from training.tiny.make import TrainedModel
from training.tiny.people import support_samples
from training.tiny.pretraining import trait_tokens
from training.tiny.simulated import Viewer


def measure(config: TinyConfig, trained: TrainedModel, bundle: Path, parity: Mapping[str, float], folder: Path) -> None:
    """Measures the bundle through the SDK and writes `tiny-*.json` and `tiny-*.md` into `folder`.

    Args:
        config: The settings it was made with.
        trained: The parts it was made of; the people and the true traits come from here.
        bundle: The bundle.
        parity: What was compared at export -> largest difference from torch.
        folder: Where the pages go.
    """
    model = DeperModel.from_pretrained(bundle)
    vlm = open_vlm(bundle / model.config.vlm.source, model.config.vlm, model.config.prompts, trained.vlm.tokenizer)
    people = trained.people
    facts = {
        "command": "python -m training tiny",
        "people": f"{len(people.seen)} seen in training, {len(people.unseen)} unseen",
        "held-out scenes": len(people.test_scenes),
        "decoding": f"greedy, at most {evaluation.MAX_NEW_TOKENS} tokens",
        "tokenizer of the metrics": evaluation.TOKENIZER,
        "scorers of CLS": ", ".join(evaluation.SCORERS),
        "intervals": "95 %, bootstrap over people",
    }

    def soft_tokens(viewers: tuple[Viewer, ...]) -> np.ndarray:
        with torch.no_grad():
            return trait_tokens(trained.vlm, [viewer.words() for viewer in viewers]).numpy()

    every = len(people.support[0][0])
    unseen = support_samples(people, 0, every)
    conditions = {
        "DEPER, 1 sample": evaluation.personas_of(model, support_samples(people, 0, 1)),
        f"DEPER, {every} samples": evaluation.personas_of(model, unseen),
        f"DEPER, {every} samples, text only": evaluation.personas_of(model, evaluation.without_trajectory(unseen)),
        f"DEPER, {every} samples, trajectory only": evaluation.personas_of(
            model, evaluation.without_description(unseen)
        ),
    }
    scores = evaluation.describe_scenes(
        model, vlm, people, people.unseen, conditions, soft_tokens(people.unseen)
    ).score()
    write_report(folder, "tiny-unseen", scores, title="Tiny world, people not seen in training", facts=facts)

    # As many seen people as unseen ones, so that CLS chooses among equally many.
    seen = people.seen[: len(people.unseen)]
    own = [[sample for sample in people.training if sample.subject == viewer.name] for viewer in seen]
    personas = {f"DEPER, {config.viewers.samples} training samples": evaluation.personas_of(model, own)}
    scores = evaluation.describe_scenes(model, vlm, people, seen, personas, soft_tokens(seen)).score()
    write_report(folder, "tiny-seen", scores, title="Tiny world, people seen in training", facts=facts)

    with torch.no_grad():
        everybody = np.stack([persona.subject_embedding for persona in conditions[f"DEPER, {every} samples"]])
        steering = trained.adapter(torch.from_numpy(everybody)).numpy()
    agreement = evaluation.token_agreement(vlm, trained.vlm, people, steering)
    write_report(
        folder,
        "tiny-tokens",
        {"ONNX Runtime": agreement},
        title="Tiny model, greedy decoding in ONNX Runtime against transformers",
        facts={"command": facts["command"]},
    )

    probes = evaluation.probe_unseen(model, people)
    write_report(
        folder, "tiny-probes", probes, title="Tiny world, linear probes of unseen people's personas", facts=facts
    )
    looking = evaluation.tell_apart_by_looking(model, people)
    title = "Tiny world, telling apart unseen people who differ in their scanning order alone"
    write_report(folder, "tiny-looking", looking, title=title, facts=facts)
    write_report(
        folder,
        "tiny-parity",
        {"largest difference, relative": parity},
        title="Tiny model, ONNX against torch",
        facts={"command": facts["command"], "weights": "float16, exact; computation in float32"},
        digits=8,
    )
