"""The batches of both stages: which samples they are of, collated, and, where there are workers, made ahead.

A forward pass has a running number, step · accumulation + part. Its batch is a function of the seed, that number and
the process's share alone: whoever makes it, and whenever, it is the same to the last bit.
"""

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import attrs
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pydeper.errors import PydeperError
from training.config import NoiseConfig, OptimisationConfig, Stage1Config
from training.data.augmentation import Change, VirtualPeople, noise
from training.data.encoded import EncodedDataset, NetworkInputs, batch_rows, by_length, dropped_modalities, left_out
from training.distributed.process_group import Share, add_counts
from training.errors import TrainingError
from training.loop.loop import step_generator

Unchanged = TypeVar("Unchanged")


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
    """What a forward pass of one process needs, on the CPU.

    Attributes:
        inputs: The samples, padded.
        rows: (B,) which they are.
        targets: (B,) see `Draw`.
        counts: How many things each mean over this batch is over.
        totals: The same of the whole step, all parts and processes.
        virtual: Samples of virtual people, the same in every process; None where there are none.
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
        share: Which share of every step is this process's.
        count: How many samples, at the beginning of `data`, are drawn from.
    """

    data: EncodedDataset
    config: OptimisationConfig
    seed: int
    share: Share
    count: int

    def __getitem__(self, number: int) -> Batch:
        step, part = divmod(number, self.config.accumulation)
        draws = self.draws(step)
        own = Draw(*(self.share.of(items) for items in draws[part]))
        return self.collate(own, draws, self._change(number, self.share.process * len(own.rows)))

    def draws(self, step: int) -> list[Draw]:
        """What every part of a step is made of, in all processes together."""
        parts = self.config.accumulation
        return [self._draw(number) for number in range(step * parts, (step + 1) * parts)]

    def collate(self, draw: Draw, step: Sequence[Draw] = (), change: Change | None = None) -> Batch:
        """Makes the batch of a draw, which is one of the step's, or alone; its samples may be changed before."""
        totals = add_counts([self._counts(other) for other in step or [draw]])
        inputs = self.data.inputs(draw.rows, draw.dropped, change)
        return Batch(inputs, draw.rows, draw.targets, self._counts(draw), totals)

    def for_workers(self) -> "Batches":
        """The same batches without what stays in the training process; see `EncodedDataset.for_workers`."""
        return attrs.evolve(self, data=self.data.for_workers())

    @property
    def _size(self) -> int:
        return self.config.batch_size * self.share.processes

    def _change(self, number: int, first: int) -> Change | None:
        """What becomes of the samples of a forward pass, whose first place in all processes' batch is `first`."""
        return None

    @abstractmethod
    def _draw(self, number: int) -> Draw:
        """What the forward passes with this running number, one in every process, are made of."""

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
        return self._drawn_together(first)[number - first]

    def _counts(self, draw: Draw) -> dict[str, int]:
        samples = dict.fromkeys(("contrast", "subject", "accuracy"), len(draw.targets))
        return {**samples, "description": sum(self.tokens[row] for row in draw.targets)}

    @cached_property
    def _drawn_together(self) -> Any:
        return lru_cache(maxsize=2)(self._draw_together)

    def _draw_together(self, first: int) -> list[Draw]:
        """As many consecutive forward passes as share out their targets by length."""
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


# --- made ahead


class BatchLoader:
    """Gives batches out in the order of their numbers, from wherever training begins.

    Without workers a batch is made when it is asked for. Workers make those that follow meanwhile; they live until the
    context is left. What a worker cannot make (a file of features is damaged, and the encoder is not there; something
    is broken) it leaves to the training process, which then makes it or says what is wrong as it would without workers.

    Workers are spawned, not forked: a fork would copy locks that other threads hold at that moment (OpenMP's, NCCL's,
    the TensorBoard writer's) and a CUDA context that it cannot use.

    Args:
        batches: What to give out.
        config: How many workers there are, how many batches each makes ahead, and where the last step is.

    Raises:
        TrainingError: There are to be workers, and features of images are kept in memory.
    """

    def __init__(self, batches: Batches, config: OptimisationConfig) -> None:
        self._batches, self._config = batches, config
        self._remote = _Remote(batches.for_workers()) if config.workers else None
        self._running: Any = None
        self._next = 0

    def __enter__(self) -> "BatchLoader":
        return self

    def __exit__(self, _: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        ended = self._running is not None and any(worker.exitcode for worker in self._running._workers)
        self._stop()
        # PyTorch speaks of a worker that died wherever the training process happens to be; or what it had sent cannot
        # be opened any more, and that is all that is heard of it.
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
            ended = True
        if ended and isinstance(error, RuntimeError | OSError | EOFError) and not isinstance(error, PydeperError):
            raise TrainingError(
                f"workers: a process that makes batches ended ({error!r}); if memory was short, set fewer workers or a "
                "smaller prefetch; the same command goes on from the last checkpoint"
            ) from error

    def take(self, number: int, device: torch.device) -> Batch:
        """The batch with this number, on the CPU; where workers make it for a CUDA device, in pinned memory.

        Args:
            number: One more than the last time, or the workers start anew.
            device: Where it will be used.
        """
        if self._remote is None:
            return self._batches[number]
        if self._running is None or number != self._next:
            self._stop()
            self._running = self._start(self._remote, number, device)
        self._next = number + 1
        made: Batch | None = next(self._running)
        return self._batches[number] if made is None else made

    def _start(self, remote: "_Remote", number: int, device: torch.device) -> Iterator[Batch | None]:
        config = self._config
        loader = DataLoader(
            remote,
            sampler=range(number, config.steps * config.accumulation),
            batch_size=None,
            collate_fn=_unchanged,
            num_workers=config.workers,
            prefetch_factor=config.prefetch,
            pin_memory=device.type == "cuda",
            multiprocessing_context="spawn",
            generator=torch.Generator(),  # PyTorch draws a number for the workers, and dropout must not miss it
        )
        with _signals_held_back():
            return iter(loader)

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        # Not by dropping it: an error's traceback may hold on to it.
        running._shutdown_workers()
        for worker in running._workers:
            worker.kill()  # one that had not begun yet
            worker.join()


@attrs.frozen(eq=False)
class _Remote(Dataset[Batch | None]):
    """A worker's side: batches, or None for one that is left to the training process."""

    batches: Batches

    def __getitem__(self, number: int) -> Batch | None:
        try:
            return self.batches[number]
        except PydeperError:
            return None


def _unchanged(item: Unchanged) -> Unchanged:
    return item


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Workers that start in here never get SIGINT and SIGTERM, which the run answers: it finishes a step, and saves.

    Ctrl-C, and some launchers, send them to all processes alike; a step that is to be finished still needs its batches.
    """
    resource_tracker.ensure_running()  # when it starts, it lets both signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
