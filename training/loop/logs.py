"""What a run reports while it runs: a progress bar, JSON Lines, and TensorBoard where the setting says so.

`log.jsonl` has a line every few steps, `evaluations.jsonl` one for every evaluation. What hangs on the machine is under
the key "seconds" alone; all other keys are the same in a run that was interrupted and in one that was not.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tqdm import tqdm

from training.errors import TrainingError
from training.outputs import exists

LOG = "log.jsonl"
EVALUATIONS = "evaluations.jsonl"
TENSORBOARD = "tensorboard"
_BEGINNING = b'{"step": '


class TrainingLog:
    """The logs of one run from step `start` on; what stands behind it in the files is about to be run again, and goes.

    Args:
        folder: Gets the files.
        name: What the progress bar says.
        start: Steps that are done.
        steps: Steps in all.
        samples: Samples in a step, for the samples per second.
        tensorboard: Also write events for TensorBoard.
        silent: Write and show nothing: for all processes but one.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        start: int,
        steps: int,
        samples: int,
        tensorboard: bool = False,
        silent: bool = False,
    ) -> None:
        self.folder, self.name, self.start, self.steps, self.samples = folder, name, start, steps, samples
        self._tensorboard, self._silent = tensorboard, silent
        self._files: dict[str, IO[str]] = {}
        self._events: Any = None
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        if not self._silent:
            for name in (LOG, EVALUATIONS):
                cut(self.folder / name, self.start)
            if self._tensorboard:
                self._events = _open_events(self.folder / TENSORBOARD, self.start)
                self._stack.callback(self._events.close)
        self._bar = self._stack.enter_context(
            tqdm(
                desc=self.name,
                initial=self.start,
                total=self.steps,
                unit="step",
                file=sys.stderr,
                mininterval=1.0,
                disable=self._silent,
            )
        )
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def advance(self, shown: Mapping[str, float]) -> None:
        """Moves the progress bar by a step; tqdm adds steps per second and the time that is left."""
        throughput = (self._bar.n + 1 - self.start) * self.samples / (time.perf_counter() - self._began)
        self._bar.set_postfix(
            {key: f"{value:.3f}" for key, value in shown.items()} | {"samples/s": f"{throughput:.0f}"}, refresh=False
        )
        self._bar.update()

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """Logs a training step."""
        self._write(LOG, step, figures, "train")

    def evaluation(self, step: int, figures: Mapping[str, float]) -> None:
        """Logs an evaluation."""
        self._write(EVALUATIONS, step, figures, "val")

    def to_disk(self) -> None:
        """Waits until all lines are on disk: a checkpoint must not be newer than its log."""
        for file in self._files.values():
            os.fsync(file.fileno())

    def _write(self, name: str, step: int, figures: Mapping[str, float], split: str) -> None:
        if self._silent:
            return
        if name not in self._files:
            self._files[name] = self._stack.enter_context((self.folder / name).open("a", encoding="utf-8"))
        line = {"step": step, **figures, "seconds": round(time.perf_counter() - self._began, 2)}
        self._files[name].write(json.dumps(line) + "\n")
        self._files[name].flush()
        if self._events is not None:
            for key, value in figures.items():
                self._events.add_scalar(f"{split}/{key}", value, step)


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a log; the last one may be torn where a run was killed while writing it, and is left out then.

    Raises:
        TrainingError: A line before the last is no line of a log.
    """
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            line["step"] = int(line["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(texts):
                break
            raise TrainingError(f"{path}:{number}: no line of a log ({error}); repair or remove it") from error
        lines.append(line)
    return lines


def foreign_logs(folder: Path) -> list[str]:
    """Returns the files of a folder that are called like the logs of a training, and are none."""
    return [name for name in (LOG, EVALUATIONS) if exists(folder / name) and not _is_log(folder / name)]


def _is_log(path: Path) -> bool:
    """Whether a file begins as `TrainingLog` writes it, be it torn within the first line."""
    try:
        with path.open("rb") as file:
            return _BEGINNING.startswith(file.read(len(_BEGINNING)))
    except OSError:
        return False


def cut(path: Path, step: int) -> None:
    """Drops the lines behind a step."""
    if path.exists():
        kept = [json.dumps(line) + "\n" for line in read(path) if line["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        temporary.replace(path)


def _open_events(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError(
            f"tensorboard = true needs the package tensorboard ({error}): pip install tensorboard, or set it to false"
        ) from error
    return SummaryWriter(str(folder), purge_step=start + 1)
