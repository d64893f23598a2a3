"""Which samples a stage is trained and validated on."""

import warnings
from collections import Counter
from collections.abc import Container, Sequence

from accelerate import Accelerator

from pydeper.samples.sample import Sample
from training.config import OptimisationConfig, TrainingConfig
from training.data.digest import samples_digest
from training.data.encoded import EncodedDataset
from training.data.shards import read_samples
from training.distributed.process_group import main_process_first
from training.errors import TrainingError
from training.preparation.splits import TRAIN, VAL
from training.runs.frozen_parts import FrozenParts


def encode_samples(
    config: TrainingConfig, settings: OptimisationConfig, parts: FrozenParts, accelerator: Accelerator
) -> tuple[EncodedDataset, int, str]:
    """Encodes the training samples and, where the stage evaluates, those for validation behind them.

    Returns:
        The data set, how many samples at its end are for validation, and the digest of the others.

    Raises:
        InvalidSampleError: The samples cannot be read, or name no subjects.
        TrainingError: The stage is to evaluate, and nothing can be validated on.
    """
    samples = training_samples(config.samples, check_durations=config.check_durations)
    digest = samples_digest(samples)
    if settings.evaluate_every:
        subjects = {sample.subject for sample in samples}
        samples += validation_samples(config.samples, subjects, check_durations=config.check_durations)
    with main_process_first(accelerator, config.feature_cache):
        data = parts.encode(samples)
    held_out = sum(sample.split == VAL for sample in data.origins) if settings.evaluate_every else 0
    if accelerator.is_main_process:
        warn_of_few_people([str(sample.subject) for sample in data.origins[: len(data) - held_out]])
    return data, held_out, digest


def warn_of_few_people(subjects: Sequence[str]) -> None:
    """Warns of training samples that nothing, or little, can be learned from about who is who.

    Args:
        subjects: Whose each training sample is.
    """
    counts = Counter(subjects)
    if len(counts) == 1:
        warnings.warn(
            f"all {len(subjects)} training samples are of one person, {next(iter(counts))!r}: there is nobody to tell "
            "them from, so an accuracy of 1 means nothing; training needs samples of at least 2 people",
            stacklevel=2,
        )
    elif single := sorted(name for name, count in counts.items() if count == 1):
        warnings.warn(
            f"{len(single)} of {len(counts)} people have a single training sample (such as {single[0]!r}): L_con, "
            "which compares the samples of a person, learns nothing of them; give each at least 2",
            stacklevel=2,
        )


def validation_samples(path: str, subjects: Container[str | None], *, check_durations: bool = True) -> list[Sample]:
    """Reads a samples file's split "val".

    Args:
        path: The file.
        subjects: The people of the training samples.
        check_durations: See `read_samples`.

    Raises:
        TrainingError: There is none, or one is of somebody else.
    """
    samples = [sample for sample in read_samples(path, check_durations=check_durations) if sample.split == VAL]
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


def training_samples(path: str, *, check_durations: bool = True) -> list[Sample]:
    """Reads a samples file: all of it, or, where samples carry splits, those of the split "train" alone.

    Args:
        path: The file.
        check_durations: See `read_samples`.

    Raises:
        InvalidSampleError: The file cannot be read.
        TrainingError: The file has splits, and none of them is "train".
    """
    samples = read_samples(path, check_durations=check_durations)
    splits = Counter(sample.split for sample in samples)
    if set(splits) == {None}:
        return samples
    if TRAIN not in splits:
        found = ", ".join(f"{split!r} ({count})" for split, count in splits.items())
        raise TrainingError(f"{path}: split: no sample is of the split {TRAIN!r}; there are {found}")
    return [sample for sample in samples if sample.split == TRAIN]
