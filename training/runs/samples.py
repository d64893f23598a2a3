"""Which samples a stage is trained and validated on."""

from collections import Counter
from collections.abc import Container

from accelerate import Accelerator

from pydeper.samples.sample import Sample
from training.config import OptimisationConfig, TrainingConfig
from training.data.encoded import EncodedDataset
from training.data.shards import read_samples
from training.distributed.process_group import main_process_first
from training.errors import TrainingError
from training.preparation.splits import TRAIN, VAL
from training.runs.frozen_parts import FrozenParts


def encode_samples(
    config: TrainingConfig, settings: OptimisationConfig, parts: FrozenParts, accelerator: Accelerator
) -> tuple[EncodedDataset, int]:
    """Encodes the training samples and, where the stage evaluates, those for validation behind them.

    Returns:
        The data set, and how many samples at its end are for validation.

    Raises:
        InvalidSampleError: The samples cannot be read, or name no subjects.
        TrainingError: The stage is to evaluate, and nothing can be validated on.
    """
    samples = training_samples(config.samples)
    if settings.evaluate_every:
        samples += validation_samples(config.samples, {sample.subject for sample in samples})
    with main_process_first(accelerator, config.feature_cache):
        data = parts.encode(samples)
    held_out = sum(sample.split == VAL for sample in data.origins) if settings.evaluate_every else 0
    return data, held_out


def validation_samples(path: str, subjects: Container[str | None]) -> list[Sample]:
    """Reads a samples file's split "val".

    Args:
        path: The file.
        subjects: The people of the training samples.

    Raises:
        TrainingError: There is none, or one is of somebody else.
    """
    samples = [sample for sample in read_samples(path) if sample.split == VAL]
    if not samples:
        raise TrainingError(
            f"{path}: split: no sample is of {VAL!r}, which evaluate_every needs; mark some, or set evaluate_every = 0"
        )
    if strangers := sorted({str(sample.subject) for sample in samples if sample.subject not in subjects}):
        raise TrainingError(
            f"{path}: split: {VAL!r} has samples of people who are not in {TRAIN!r} ({', '.join(strangers[:5])}); "
            "validation is on seen people"
        )
    return samples


def training_samples(path: str) -> list[Sample]:
    """Reads a samples file: all of it, or, where samples carry splits, those of the split "train" alone.

    Raises:
        InvalidSampleError: The file cannot be read.
        TrainingError: The file has splits, and none of them is "train".
    """
    samples = read_samples(path)
    splits = Counter(sample.split for sample in samples)
    if set(splits) == {None}:
        return samples
    if TRAIN not in splits:
        found = ", ".join(f"{split!r} ({count})" for split, count in splits.items())
        raise TrainingError(f"{path}: split: no sample is of the split {TRAIN!r}; there are {found}")
    return [sample for sample in samples if sample.split == TRAIN]
