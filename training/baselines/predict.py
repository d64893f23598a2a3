"""Predicts all targets with one system, into a predictions file that an interrupted run goes on with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from tqdm import tqdm

from training.baselines.system import System
from training.baselines.targets import Person, Target
from training.evaluation.predictions import PredictionsFile
from training.outputs import output_folder
from training.vlm.generation import Prompt, greedy, see
from training.vlm.steered_vlm import SteeredVLM

PREDICTIONS = "predictions.jsonl"


def predict(
    vlm: SteeredVLM,
    name: str,
    build: Callable[[], System],
    people: Sequence[Person],
    folder: Path,
    settings: Mapping[str, Any],
    *,
    max_new_tokens: int,
    batch_size: int = 16,
) -> Path:
    """Predicts every target greedily and writes `predictions.jsonl`, or goes on where an interrupted run left off.

    Args:
        vlm: The frozen VLM.
        name: The system's.
        build: Makes the system; called only if there is a target left.
        people: Their targets are predicted.
        folder: Where to; see `PredictionsFile`.
        settings: All that the predictions depend on, as plain JSON; lines made with others are refused.
        max_new_tokens: The most tokens of a description.
        batch_size: Targets at a time.

    Returns:
        The file's path.

    Raises:
        InvalidArgumentError: The folder holds predictions that were made with other settings or for other samples.
        InvalidImageError: An image cannot be read.
    """
    targets = [(person, target) for person in people for target in person.targets]
    pending = [attrs.evolve(target.pending, system=name) for _, target in targets]
    file = PredictionsFile(folder, {**settings, "system": name, "max_new_tokens": max_new_tokens}, pending)
    if len(file.done) < len(targets):
        with output_folder(folder):
            system = build()
            done, what = len(file.done), f"{name}: descriptions"
            with tqdm(total=len(targets), initial=done, desc=what, mininterval=1.0, disable=None) as bar:
                for start in range(done, len(targets), batch_size):
                    prompts = _prompts(vlm, system, targets[start : start + batch_size])
                    generated = greedy(vlm, prompts, max_new_tokens, batch_size=batch_size)
                    file.append([vlm.tokenizer.decode(ids).strip() for ids in generated])
                    bar.update(len(prompts))
    file.finish()
    return folder / PREDICTIONS


def _prompts(vlm: SteeredVLM, system: System, batch: Sequence[tuple[Person, Target]]) -> list[Prompt]:
    distinct = {target.pending.image: target.sample for _, target in batch}
    seen = dict(zip(distinct, see(vlm, [sample.open_image() for sample in distinct.values()]), strict=True))
    return [system.prompt(person, seen[target.pending.image]) for person, target in batch]
