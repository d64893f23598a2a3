"""The batches of both stages: which samples they are of, collated.

A micro-batch has a running number, step · accumulation + its number in the step. It is a function of the seed, that
number and the rank alone: whoever makes it, and whenever, it is the same to the last bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import attrs
import numpy as np

from training.config import NoiseConfig, OptimisationConfig, Stage1Config
from training.data.augmentation import Change, VirtualPeople, noise
from training.data.encoded import EncodedDataset, NetworkInputs
from training.data.sampling import batch_rows, by_length, dropped_modalities, left_out
from training.distributed.means import sum_counts
from training.distributed.process_group import ProcessGroup
from training.errors import TrainingError
from training.seeding import step_generator


class Draw(NamedTuple):
    """The samples of a forward pass.

    Attributes:
        rows: (B,) the samples that z_s comes from.
        dropped: The modality that each of them loses.
        targets: (B,) the samples that are to be produced from z_s: in stage 1 their own, in stage 2 others.
    """

    rows: np.ndarray
    dropped: Sequence[str | None]
    targets: np.ndarray


class VirtualBatch(NamedTuple):
    """Samples of virtual people, padded, and (V,) whose each is."""

    inputs: NetworkInputs
    people: np.ndarray


class Batch(NamedTuple):
    """What a forward pass of one rank needs, on the CPU.

    Attributes:
        inputs: The samples, padded.
        rows: (B,) which they are.
        targets: (B,) see `Draw`.
        counts: How many things each mean over this batch is over.
        totals: The same of the whole step, all micro-batches and ranks.
        virtual: Samples of virtual people, the same in every rank; None where there are none.
    """

    inputs: NetworkInputs
    rows: np.ndarray
    targets: np.ndarray
    counts: dict[str, int]
    totals: dict[str, int]
    virtual: VirtualBatch | None = None


@attrs.frozen(eq=False, kw_only=True)
class Batches(ABC):
    """A stage's batches by their running numbers.

    Attributes:
        data: The samples.
        config: Settings of the stage.
        seed: Seed of what is drawn.
        group: The ranks that a step is split over, and which is this process's.
        count: How many samples, at the beginning of `data`, are drawn from.
    """

    data: EncodedDataset
    config: OptimisationConfig
    seed: int
    group: ProcessGroup
    count: int

    def __getitem__(self, number: int) -> Batch:
        step, micro_batch = divmod(number, self.config.accumulation)
        draws = self.draws(step)
        rows, dropped, targets = draws[micro_batch]
        slice_of = self.group.slice_of
        own = Draw(slice_of(rows), slice_of(dropped), slice_of(targets))
        return self.collate(own, draws, self._change(number, self.group.rank * len(own.rows)))

    def draws(self, step: int) -> list[Draw]:
        """The samples of every micro-batch of a step, in all ranks together."""
        count = self.config.accumulation
        return [self._draw(number) for number in range(step * count, (step + 1) * count)]

    def collate(self, draw: Draw, step: Sequence[Draw] = (), change: Change | None = None) -> Batch:
        """Makes the batch of a draw, which is one of the step's, or alone; its samples may be changed before."""
        totals = sum_counts([self._counts(other) for other in step or [draw]])
        inputs = self.data.inputs(draw.rows, draw.dropped, change)
        return Batch(inputs, draw.rows, draw.targets, self._counts(draw), totals)

    def for_workers(self) -> "Batches":
        """The same batches without what stays in the training process; see `EncodedDataset.for_workers`."""
        return attrs.evolve(self, data=self.data.for_workers())

    @property
    def _size(self) -> int:
        return self.config.batch_size * self.group.world_size

    def _change(self, number: int, first: int) -> Change | None:
        """What becomes of the samples of a forward pass, whose first place in all ranks' batch is `first`."""
        return None

    @abstractmethod
    def _draw(self, number: int) -> Draw:
        """The samples of the micro-batches with this running number, one in every rank."""

    @abstractmethod
    def _counts(self, draw: Draw) -> dict[str, int]:
        """How many things each mean over these samples is over."""


@attrs.frozen(eq=False, kw_only=True)
class Stage1Batches(Batches):
    """Stage 1: samples that are to be told apart, and their own trajectories."""

    config: Stage1Config

    def __getitem__(self, number: int) -> Batch:
        batch = super().__getitem__(number)
        return batch if not self.config.virtual_people.weight else batch._replace(virtual=self._virtual(number))

    def _draw(self, number: int) -> Draw:
        rows = self.data.batch_rows(self.count, self._size, self.seed, number, self.config.bucket)
        samples = [self.data.samples[row] for row in rows]
        if self.config.every_view:
            dropped = [modality for view in (None, "trajectory", "text") for modality in left_out(samples, view)]
            rows = np.tile(rows, 3)
            return Draw(rows, dropped, rows)
        rng = step_generator(self.seed, number, 1)
        return Draw(rows, dropped_modalities(samples, self.config.modality_dropout, rng), rows)

    def _change(self, number: int, first: int) -> Change | None:
        config = self.config.noise
        return noise(config, self.seed, number, first) if config != NoiseConfig() else None

    def _virtual(self, number: int) -> VirtualBatch:
        config, rng = self.config.virtual_people, step_generator(self.seed, number, 5)
        drawn = VirtualPeople.draw(self._looked, config.people, config.samples, config.strength, rng)
        inputs = self.data.inputs(drawn.rows, ["text"] * len(drawn.rows), drawn.change)
        return VirtualBatch(inputs, drawn.people)

    @cached_property
    def _looked(self) -> list[np.ndarray]:
        """The training samples with a trajectory, of each person who has any."""
        rows = np.array([row for row in range(self.count) if len(self.data.samples[row].durations)], np.intp)
        if not len(rows):
            raise TrainingError(
                "virtual_people: are made of trajectories, and no training sample has one; set their weight to 0"
            )
        subjects = self.data.subject_of[rows]
        return [rows[subjects == subject] for subject in np.unique(subjects)]

    def _counts(self, draw: Draw) -> dict[str, int]:
        fixations = [
            0 if modality == "trajectory" else len(self.data.samples[row].durations)
            for row, modality in zip(draw.rows, draw.dropped, strict=True)
        ]
        samples = dict.fromkeys(("contrast", "subject", "accuracy"), len(draw.rows))
        return {**samples, "boxes": sum(fixations), "validity": sum(count > 0 for count in fixations)}


@attrs.frozen(eq=False, kw_only=True)
class Stage2Batches(Batches):
    """Stage 2: samples that z_s comes from, and others of the same people, whose descriptions are to be produced.

    Attributes:
        described: The samples that may be targets, of each subject.
        tokens: How many tokens each sample's description is to the VLM, its end with it.
    """

    described: Sequence[np.ndarray]
    tokens: Sequence[int]

    def target(self, row: int, rng: np.random.Generator, described: Sequence[np.ndarray]) -> int:
        """Another described sample of the same person; the sample itself only where there is no other."""
        own = described[int(self.data.subject_of[row])]
        others = own[own != row]
        return int(rng.choice(others if len(others) else own))

    def _draw(self, number: int) -> Draw:
        first = number - number % self.config.bucket
        draw: Draw = self._bucket(first)[number - first]
        return draw

    def _counts(self, draw: Draw) -> dict[str, int]:
        samples = dict.fromkeys(("contrast", "subject", "accuracy"), len(draw.targets))
        return {**samples, "description": sum(self.tokens[row] for row in draw.targets)}

    @cached_property
    def _bucket(self) -> Any:
        return lru_cache(maxsize=2)(self._draw_bucket)

    def _draw_bucket(self, first: int) -> list[Draw]:
        """So many consecutive micro-batches as sort their targets by length among themselves."""
        seed, bucket = self.seed, self.config.bucket
        numbers = range(first, first + bucket)
        rows = np.concatenate([batch_rows(self.count, self._size, seed, number) for number in numbers])
        rng = step_generator(seed, first, 1)
        targets = np.array([self.target(int(row), rng, self.described) for row in rows])
        dropped = dropped_modalities([self.data.samples[row] for row in rows], self.config.modality_dropout, rng)
        return [
            Draw(rows[places], [dropped[place] for place in places], targets[places])
            for places in by_length(self.data.lengths[targets], bucket, seed, first)
        ]
