"""Gives out batches in order; where there are workers, they are made ahead."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, TypeVar

import attrs
import torch
from torch.utils.data import DataLoader, Dataset

from pydeper.errors import PydeperError
from training.config import OptimisationConfig
from training.data.batches import Batch, Batches
from training.errors import TrainingError

Unchanged = TypeVar("Unchanged")


class BatchLoader:
    """Gives batches out in the order of their numbers, from wherever training begins.

    Without workers a batch is made when it is taken. Workers make those that follow meanwhile; they live until the
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
        with _deaths_ignored():  # also while it is found out who has died
            workers = [] if self._running is None else self._running._workers
            if isinstance(error, OSError | EOFError):
                for worker in workers:
                    worker.join(timeout=1)  # its sockets are closed before the system says that it has ended
            ended = any(worker.exitcode for worker in workers)
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
        with _signals_blocked():
            return iter(loader)

    def _stop(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        with _deaths_ignored():
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
def _deaths_ignored() -> Iterator[None]:
    """Keeps PyTorch from raising an error when a worker dies in here, where all of them are meant to end.

    A worker that is stopped while its queue's thread sends a batch may abort: Python ends that thread at its exit, in
    the middle of PyTorch's C++ code. Nothing is lost with it, since nobody waits for that batch any more.
    """
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield  # where PyTorch does not listen either
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Workers that start in here never get SIGINT and SIGTERM, which the run answers: it finishes a step, and saves.

    Ctrl-C, and some launchers, send them to all processes alike; a step that is to be finished still needs its batches.
    """
    resource_tracker.ensure_running()  # when it starts, it lets both signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
