"""The training loop: one for all stages, one process or many.

Everything random at a step is seeded from (seed, step), never from what came before. So a run that is resumed from a
checkpoint continues exactly as if it had never stopped: a checkpoint needs the weights and the optimiser alone.
"""

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import attrs
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pydeper.atomic import atomic_path
from training.config import OptimisationConfig
from training.distributed.process_group import add_up, open_accelerator
from training.errors import TrainingError
from training.loop.checkpoints import BEST, CHECKPOINT, Checkpoints, is_finished, load_state
from training.loop.logs import LOG, TrainingLog

__all__ = ["BEST", "CHECKPOINT", "LOG", "Interrupted", "Task", "TrainingError", "is_finished", "load_state", "run"]

NOT_FINITE = "not-finite.json"


class Interrupted(KeyboardInterrupt):
    """A run was asked to stop, and has saved its checkpoint.

    Attributes:
        code: The exit code that says so to a shell.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Task(Protocol):
    """What the loop trains: modules, their parameters, and the losses of a forward pass.

    A task may also have a `loader`: a context that is open while the loop runs, such as that of
    `training.data.batches.BatchLoader`.
    """

    name: str
    state: nn.Module

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with "params" and "lr", the peak learning rate."""
        ...

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        """The losses of one forward pass; "loss" is what is minimised, the others are logged.

        A step's losses are the means over its forward passes: `config.accumulation` parts in every process.
        """
        ...


def step_generator(seed: int, *where: int) -> np.random.Generator:
    """A generator that depends on the seed and the place (stage, step, part, ...) alone."""
    return np.random.default_rng([seed, *where])


def run(
    task: Task,
    config: OptimisationConfig,
    seed: int,
    folder: Path,
    *,
    accelerator: Accelerator | None = None,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    samples_of: Callable[[int], Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Trains until `config.steps`, from the folder's checkpoint if there is one.

    Args:
        task: What to train; its `state` is moved to the accelerator's device, changed in place, and has the last
            step's weights in the end.
        config: Steps, rates, clipping, accumulation, intervals.
        seed: Seed of dropout; the task seeds its own batches.
        folder: Gets `log.jsonl`, `evaluations.jsonl`, and what `training.loop.checkpoints` describes.
        accelerator: The processes and their device (see `open_accelerator`); None: this process alone, on the CPU.
        evaluate: Figures of the weights as they are; called in every process, all get the same. `config.selection`
            weighs them.
        samples_of: What to say of a step's samples where its loss is not finite.

    Raises:
        TrainingError: The loss is not finite, or the checkpoint belongs to another configuration or is damaged.
        Interrupted: SIGINT (Ctrl-C) or SIGTERM came; the step was finished and saved.
    """
    accelerator = accelerator or open_accelerator(cpu=True)
    folder.mkdir(parents=True, exist_ok=True)
    with getattr(task, "loader", nullcontext()):
        _Run(task, config, seed, folder, accelerator, evaluate, samples_of).to_the_end()


def rate(step: int, config: OptimisationConfig) -> float:
    """Learning rate of a step as a share of the peak: linear warm-up, then a cosine down to `final_rate`."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def identity(task: Task, config: OptimisationConfig, seed: int, accelerator: Accelerator) -> dict[str, Any]:
    """What shapes a loss curve; how many processes share a batch does not."""
    shaping = attrs.asdict(config, filter=lambda field, _: not field.metadata.get("aside"))
    shaping["batch_size"] = config.batch_size * accelerator.num_processes
    return {"task": task.name, "seed": seed, "mixed_precision": accelerator.mixed_precision, **shaping}


class _Losses(nn.Module):
    """The task's losses as a module's forward pass, where DistributedDataParallel and autocast take hold of them."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.state = task.state
        self._task = task

    def forward(self, step: int, part: int) -> dict[str, Tensor]:
        return self._task.losses(step, part)


class _Run:
    def __init__(
        self,
        task: Task,
        config: OptimisationConfig,
        seed: int,
        folder: Path,
        accelerator: Accelerator,
        evaluate: Callable[[], Mapping[str, float]] | None,
        samples_of: Callable[[int], Sequence[Mapping[str, Any]]] | None,
    ) -> None:
        self.task, self.config, self.seed, self.folder, self.accelerator = task, config, seed, folder, accelerator
        self.evaluate = evaluate if config.evaluate_every else None
        self.samples_of = samples_of
        self.losses = accelerator.prepare_model(_Losses(task))
        groups = task.parameter_groups()
        self.peaks = [float(group["lr"]) for group in groups]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        shaping = identity(task, config, seed, accelerator)
        self.checkpoints = Checkpoints(folder, shaping, config.keep_checkpoints)

    def to_the_end(self) -> None:
        config, main = self.config, self.accelerator.is_main_process
        start = self.checkpoints.resume(self.task.state, self.optimizer)
        if start == 0 and main:
            self.checkpoints.forget()
        self.accelerator.wait_for_everyone()
        log = TrainingLog(
            self.folder,
            self.task.name,
            start=start,
            steps=config.steps,
            samples=config.batch_size * config.accumulation * self.accelerator.num_processes,
            tensorboard=config.tensorboard,
            silent=not main,
        )
        with log, _signals(alone=self.accelerator.num_processes == 1) as received:
            for step in range(start, config.steps):
                asked = self._step(step, log, received)
                done, last = step + 1, step + 1 == config.steps
                if self.evaluate and (done % config.evaluate_every == 0 or last):
                    self._evaluation(done, log)
                    # An evaluation may be long: nobody who asks during one waits for another step.
                    asked = asked or self._asked(received)
                if done % config.checkpoint_every == 0 or last or asked:
                    self._save(done, log)
                if asked and not last:
                    raise self._interrupted(asked, done)

    def _step(self, step: int, log: TrainingLog, received: list[int]) -> int:
        """One optimiser step. Returns the signal that asks to stop, in whichever process it came; 0: none."""
        config = self.config
        torch.manual_seed(self._dropout_seed(step))
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * rate(step, config)
        means = self._accumulate(step)
        norm = self.accelerator.clip_grad_norm_(self.parameters, config.clip)
        # One small exchange a step keeps all processes of one mind: what the losses are, whether to go on.
        processes = self.accelerator.num_processes
        own = torch.stack([*means.values(), means["loss"].new_tensor(len(received))])
        *values, stops = add_up(own / processes).tolist()
        losses, norm = dict(zip(means, values, strict=True)), float(norm)
        if not (math.isfinite(losses["loss"]) and math.isfinite(norm)):
            raise self._not_finite(step, losses, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        log.advance(losses)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            figures = {key: round(value, 6) for key, value in losses.items()}
            log.step(done, figures | {"gradient_norm": round(norm, 4), "rate": round(rate(step, config), 6)})
        return _signal(stops, received)

    def _asked(self, received: list[int]) -> int:
        stops = torch.tensor(len(received), device=self.accelerator.device)
        return _signal(int(add_up(stops)), received)

    def _dropout_seed(self, step: int) -> int:
        # Masks of its own in every process; those of the first are those of a run on one.
        process = self.accelerator.process_index
        return int(step_generator(self.seed, step, *([process] if process else [])).integers(2**62))

    def _accumulate(self, step: int) -> dict[str, Tensor]:
        """Gradients of the step's mean loss; returns the means of this process's losses."""
        parts = self.config.accumulation
        means: dict[str, Tensor] = {}
        for part in range(parts):
            last = part == parts - 1
            # Gradients travel between processes once, with the last part.
            with nullcontext() if last else self.accelerator.no_sync(self.losses):
                losses = self.losses(step, part)
                (losses["loss"] / parts).backward()
            for key, value in losses.items():
                mean = value.detach() / parts
                means[key] = means[key] + mean if key in means else mean
        return means

    def _evaluation(self, done: int, log: TrainingLog) -> None:
        assert self.evaluate is not None
        figures = dict(self.evaluate())
        selection: Mapping[str, float] = getattr(self.config, "selection", {})
        if missing := sorted(set(selection) - set(figures)):
            raise TrainingError(
                f"selection: {', '.join(missing)} is no figure of this evaluation, which has {', '.join(figures)}"
            )
        score = sum(weight * figures[name] for name, weight in selection.items())
        if not math.isfinite(score):
            raise TrainingError(f"{self.task.name}: step {done}: the evaluation is not finite ({figures})")
        log.evaluation(done, {key: round(value, 6) for key, value in figures.items()} | {"score": round(score, 6)})
        if selection and self.accelerator.is_main_process:
            self.checkpoints.save_best(self.task.state, done, score)

    def _save(self, done: int, log: TrainingLog) -> None:
        if self.accelerator.is_main_process:
            log.to_disk()
            self.checkpoints.save(self.task.state, self.optimizer, done)
        # Nobody leaves before the file stands: a launcher ends the others as soon as one has left.
        self.accelerator.wait_for_everyone()

    def _interrupted(self, asked: int, done: int) -> Interrupted:
        return Interrupted(
            f"{self.task.name}: stopped by {signal.Signals(asked).name} after step {done} of {self.config.steps}; saved"
            f" in {self.checkpoints.newest}; the same command goes on from there",
            128 + asked,
        )

    def _not_finite(self, step: int, losses: Mapping[str, float], norm: float) -> TrainingError:
        where = "no checkpoint was saved yet"
        if self.checkpoints.newest.exists():
            where = f"the last good checkpoint is {self.checkpoints.newest}"
        told = ", ".join(f"{key} {value:.4g}" for key, value in losses.items())
        named = ""
        if self.samples_of is not None:
            path = self.folder / NOT_FINITE
            named = f" The step's samples are listed in {path}: look at them, or lower the learning rate."
            if self.accelerator.is_main_process:
                figures = {key: repr(value) for key, value in losses.items()} | {"gradient_norm": repr(norm)}
                content = {"step": step, "losses": figures, "samples": list(self.samples_of(step))}
                with atomic_path(path) as temporary:
                    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            self.accelerator.wait_for_everyone()
        return TrainingError(
            f"{self.task.name}: step {step}: the loss or its gradient is not finite ({told}, gradient norm {norm:.4g})"
            f"; {where}.{named or ' Lower the learning rate, or look at its samples.'}"
        )


def _signal(stops: float, received: Sequence[int]) -> int:
    """The signal that asks to stop where any process got one (`stops` > 0); 0: none."""
    if stops == 0:
        return 0
    return received[-1] if received else signal.SIGTERM


@contextmanager
def _signals(*, alone: bool) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying from them; alone, a second SIGINT does end the process at once.

    Among several processes it does not: launchers send on what the terminal has sent already.
    """
    received: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        if alone and number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread gets signals
        return
    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
