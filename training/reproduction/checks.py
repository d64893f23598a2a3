"""What an experiment needs of its samples, looked at before anything is trained."""

from collections import Counter
from collections.abc import Sequence

from training.config import TrainingConfig
from training.errors import TrainingError
from training.preparation.splits import QUERY, TEST, TRAIN, VAL


def check_samples(
    config: TrainingConfig, samples: Sequence[tuple[str | None, str | None]], *, trains_deper: bool
) -> None:
    """Checks that an experiment can train on samples, choose a step by them and report on them.

    Args:
        config: The training; names the samples file.
        samples: The person and the split of every sample of the file.
        trains_deper: Whether DEPER, whole or ablated, is among the systems; baselines need no `val`.

    Raises:
        TrainingError: A split lacks samples, or one person is alone; the message names the file and the remedy.
    """
    counts = Counter(split for _, split in samples)
    found = ", ".join(f"{split!r} ({count})" for split, count in sorted(counts.items(), key=str)) or "no samples"
    again = "prepare the data with samples of it (python -m training prepare, or reproduce with the data as published)"
    if not counts[TRAIN]:
        raise TrainingError(
            f"{config.samples}: no sample is of the split {TRAIN!r}; there is nothing to train on ({found}): {again}"
        )
    if not (counts[TEST] or counts[QUERY]):
        raise TrainingError(
            f"{config.samples}: no sample is of the split {TEST!r} or {QUERY!r}; there is nothing to report on "
            f"({found}): {again}"
        )
    if not trains_deper:
        return
    stages = {"stage1": config.stage1, "stage2": config.stage2}
    choosing = [name for name, stage in stages.items() if stage is not None and stage.evaluate_every]
    if choosing and not counts[VAL]:
        off = " ".join(f"--set {name}.evaluate_every=0" for name in choosing)
        raise TrainingError(
            f"{config.samples}: no sample is of the split {VAL!r}, on which the training step is chosen ({found}): "
            f"{again}, or keep the last step by {off}"
        )
    people = {subject for subject, split in samples if split == TRAIN}
    if len(people) == 1:
        raise TrainingError(
            f"{config.samples}: all samples of the split {TRAIN!r} are of one person, {next(iter(people))!r}; there is "
            "nobody to tell them from: add samples of others"
        )
