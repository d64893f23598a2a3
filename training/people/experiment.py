"""The samples of an identification experiment, and what is trained on a subset of them."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np

import pydeper
from pydeper.bundle.tokenizer import literal_tokenizer
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.persona.preprocess import description_ids
from pydeper.samples.sample import Sample
from training.config import TrainingConfig
from training.data.digest import samples_digest
from training.data.encoded import EncodedDataset
from training.loop.train import train
from training.people.held_out import Mask
from training.people.nearest_centroid import Vectors
from training.people.score_fusion import Modality
from training.people.training_search import Schedule
from training.people.whitening import Whitening
from training.preparation.splits import SEEN_SPLITS, SPLITS, TEST, TRAIN, UNSEEN_SPLITS, VAL
from training.runs.folders import stage1_folder
from training.runs.frozen_parts import FrozenParts
from training.stages.embedding import embed
from training.stages.stage1 import Stage1Task

SHRINKAGE = 0.1
"""Of the whitening; see `training.people.whitening.Whitening`."""

MOST_SAMPLES = 5
"""Samples that make the larger queries, and that enrol a new person (paper: 5)."""

_MASKED: dict[Modality, str | None] = {"text + gaze": None, "text": "trajectory", "gaze": "text"}


@attrs.frozen(eq=False)
class Experiment:
    """Samples, encoded once, and what is trained on them.

    Attributes:
        config: The training; what is read of a sample, and the trajectory decoder's queries, are as many as the longest
            training samples need (see `training.config.IdentificationConfig`).
        trainings: How many trainings make DEPER's ensemble, with the seeds `config.seed`, `config.seed` + 1, … Its
            scores are the means of theirs.
        parts: The frozen parts.
        samples: All n samples, in the order of `data`; their split is "train" or "val", on which the figures are.
        data: All samples, encoded.
    """

    config: TrainingConfig
    trainings: int
    parts: FrozenParts
    samples: Sequence[Sample]
    data: EncodedDataset

    @classmethod
    def load(cls, config: TrainingConfig, trainings: int = 1) -> "Experiment":
        """Reads and encodes the samples.

        Raises:
            InvalidArgumentError: There is to be no training.
            InvalidSampleError: The samples cannot be read, are of one person, or are not divided into samples to learn
                from and others to measure on.
        """
        if trainings < 1:
            raise InvalidArgumentError(f"trainings is {trainings}; at least 1 is needed")
        samples = _divided(pydeper.read_samples(config.samples, check_durations=config.check_durations), config.samples)
        if len(people := {sample.subject for sample in samples}) == 1:
            raise InvalidSampleError(
                f"{config.samples}: subject: all samples are of one person, {people.pop()!r}; telling who it is needs "
                "at least 2 people"
            )
        config, parts = _read_as_far_as_training_goes(config, FrozenParts.load(config), samples)
        return cls(config, trainings, parts, samples, parts.encode(samples))

    @property
    def is_training(self) -> Mask:
        """(n,) which samples are of the training split."""
        return np.array([sample.split == TRAIN for sample in self.samples])

    def has(self, modality: Modality) -> Mask:
        """(n,) which samples hold all that a row of this modality reads."""
        text = np.array([sample.description is not None for sample in self.samples])
        gaze = np.array([sample.trajectory is not None for sample in self.samples])
        both: Mask = text & gaze
        return {"text": text, "gaze": gaze, "text + gaze": both}[modality]

    def rows(self, chosen: Mask) -> list[Sample]:
        """The chosen samples."""
        return list(itertools.compress(self.samples, chosen))

    def train(
        self, training: Mask, schedule: Schedule, folder: Path, trainings: int | None = None
    ) -> list[dict[Modality, Vectors]]:
        """Trains stage 1 on some samples, or loads it, once for each training's seed.

        One network embeds all views; what a view lacks is masked.

        Args:
            training: The samples.
            schedule: How long, how fast and how strongly regularised.
            folder: Keeps the trainings, each in a folder of its own.
            trainings: How many; None: all of the ensemble.

        Returns:
            For each training, by view: (n, subject_embedding_size) z_s of all samples, whitened; without meaning where
            a sample lacks what the view reads.
        """
        first, count = self.config.seed, self.trainings if trainings is None else trainings
        return [self._train(training, schedule, folder, seed) for seed in range(first, first + count)]

    def _train(self, training: Mask, schedule: Schedule, folder: Path, seed: int) -> dict[Modality, Vectors]:
        config, table = schedule.applied(self.config, int(training.sum())), self.parts.text_table
        task = Stage1Task(config.network, config.stage1, subset(self.data, training), table, seed)
        samples = samples_digest(self.rows(training))
        train(task, config.stage1, seed, stage1_folder(folder / f"seed-{seed}"), samples=samples)
        whitened = {}
        for view, masked in _MASKED.items():
            vectors, known = embed(task.deper, table, self.data, masked), training & self.has(view)
            if known.any():  # otherwise no row is measured that reads this view
                vectors = Whitening.fit(vectors[known], self.data.subject_of[known], SHRINKAGE)(vectors)
            whitened[view] = vectors
        return whitened


def _read_as_far_as_training_goes(
    config: TrainingConfig, parts: FrozenParts, samples: Sequence[Sample]
) -> tuple[TrainingConfig, FrozenParts]:
    """The configuration and parts that read descriptions and trajectories as far as the longest training samples."""
    training, limits = [sample for sample in samples if sample.split == TRAIN], config.identification
    tokenizer = literal_tokenizer(parts.tokenizer)
    texts = [sample.description for sample in training if sample.description is not None]
    scanpaths = [sample.trajectory for sample in training if sample.trajectory is not None]
    tokens = max((len(description_ids(tokenizer, text, limits.most_tokens)) for text in texts), default=1)
    fixations = min(max((len(scanpath.fixations) for scanpath in scanpaths), default=1), limits.most_fixations)
    preprocessing = attrs.evolve(parts.preprocessing, max_description_tokens=tokens, max_fixations=fixations)
    network = attrs.evolve(config.network, max_fixations=fixations)
    config = attrs.evolve(config, network=network, max_description_tokens=tokens)
    return config, attrs.evolve(parts, preprocessing=preprocessing)


def _divided(samples: Sequence[Sample], source: str) -> Sequence[Sample]:
    """Returns the samples of "train" and "val" as they are, or those of a prepared data set as such.

    In a prepared data set the figures are of "test", so "val" is for training, within which the model is selected; the
    samples of unseen people, "support" and "query", are left out.

    Raises:
        InvalidSampleError: They are divided otherwise.
    """
    found = {sample.split for sample in samples}
    if found == {TRAIN, VAL}:
        return samples
    if {TRAIN, TEST} <= found <= {*SPLITS}:
        seen = [sample for sample in samples if sample.split in SEEN_SPLITS]
        if unseen := len(samples) - len(seen):
            print(f"{unseen} samples of unseen people ({', '.join(UNSEEN_SPLITS)}) are left out", flush=True)
        return [attrs.evolve(sample, split=VAL if sample.split == TEST else TRAIN) for sample in seen]
    named = ", ".join(sorted(map(repr, found - {None}))) or "none"
    missing = " and samples without one" if None in found and len(found) > 1 else ""
    raise InvalidSampleError(
        f"{source}: split: identification learns from {TRAIN!r} and is measured on {TEST!r}, or on {VAL!r} where that "
        f"is all there is beside it; the samples' splits are {named}{missing}. Let `python -m training prepare` divide "
        'them, or write "split" into each line of the file'
    )


def subset(data: EncodedDataset, chosen: Mask) -> EncodedDataset:
    """The chosen samples; people and images keep their numbers."""
    return attrs.evolve(
        data,
        samples=list(itertools.compress(data.samples, chosen)),
        origins=list(itertools.compress(data.origins, chosen)),
        image_of=data.image_of[chosen],
        descriptions=list(itertools.compress(data.descriptions, chosen)),
        subject_of=data.subject_of[chosen],
        shard_of=None if data.shard_of is None else data.shard_of[chosen],
    )
