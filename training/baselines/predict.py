"""Predicts all targets with one system, into a predictions file that an interrupted run goes on with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from tqdm import tqdm

from training.baselines.system import Describe
from training.baselines.targets import Person
from training.evaluation.predictions import PredictionsFile
from training.outputs import output_folder

PREDICTIONS = "predictions.jsonl"


def predict(
    name: str,
    build: Callable[[], Describe],
    people: Sequence[Person],
    folder: Path,
    settings: Mapping[str, Any],
    *,
    batch_size: int = 16,
) -> Path:
    """Predicts every target and writes `predictions.jsonl`, or goes on where an interrupted run left off.

    Args:
        name: The system's.
        build: Makes the system, which may take training; called only if there is a target left.
        people: Their targets are predicted.
        folder: Where to; see `PredictionsFile`.
        settings: All that the predictions depend on, as plain JSON; lines made with others are refused.
        batch_size: Targets at a time.

    Returns:
        The file's path.

    Raises:
        InvalidArgumentError: The folder holds predictions that were made with other settings or for other samples.
        InvalidImageError: An image cannot be read.
    """
    targets = [(person, target) for person in people for target in person.targets]
    pending = [attrs.evolve(target.pending, system=name) for _, target in targets]
    file = PredictionsFile(folder, {**settings, "system": name}, pending)
    if len(file.done) < len(targets):
        with output_folder(folder):
            describe = build()
            done, what = len(file.done), f"{name}: descriptions"
            with tqdm(total=len(targets), initial=done, desc=what, mininterval=1.0, disable=None) as bar:
                for start in range(done, len(targets), batch_size):
                    texts = describe(targets[start : start + batch_size])
                    file.append(texts)
                    bar.update(len(texts))
    file.finish()
    return folder / PREDICTIONS
