"""The training loop: one for all stages, one process or many.

Everything random at a step is seeded from (seed, step), never from what came before. So a run that is resumed from a
checkpoint continues exactly as if it had never stopped: a checkpoint needs the weights and the optimiser alone.
"""

import json
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from pydeper.files.atomic import atomic_path
from training.config import OptimisationConfig, shaping_settings
from training.distributed.collectives import all_reduce_sum
from training.distributed.process_group import open_accelerator
from training.errors import TrainingError
from training.loop.checkpoints import CHECKPOINT, SAMPLES, Checkpoints, foreign_weights
from training.loop.logs import TrainingLog, foreign_logs
from training.loop.optimiser import build_optimizer
from training.loop.schedule import learning_rate_factor
from training.loop.signals import Interrupted, collect_signals, stop_signal
from training.outputs import exists, output_folder, refuse
from training.seeding import step_generator

NOT_FINITE = "not-finite.json"


class Task(Protocol):
    """What the loop trains: modules, their parameters, and the losses of a forward pass.

    A task may also have a `loader`: a context that is open while the loop runs, such as that of
    `training.data.loader.BatchLoader`.
    """

    name: str

    @property
    def state(self) -> nn.Module:
        """The modules: what a checkpoint holds."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with "params" and "lr", the peak learning rate of AdamW.

        See `training.loop.optimiser.build_optimizer` for what Muon may train of them.
        """
        ...

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """The losses of one forward pass; "loss" is what is minimised, the others are logged.

        A step's losses are the means over its forward passes: `config.accumulation` micro-batches in every rank.
        """
        ...


def train(
    task: Task,
    config: OptimisationConfig,
    seed: int,
    folder: Path,
    *,
    accelerator: Accelerator | None = None,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    samples_of: Callable[[int], Sequence[Mapping[str, Any]]] | None = None,
    samples: str | None = None,
) -> None:
    """Trains until `config.steps`, from the folder's checkpoint if there is one.

    Args:
        task: What to train; its `state` is moved to the accelerator's device, changed in place, and has the last
            step's weights in the end.
        config: Steps, learning rates, clipping, accumulation, intervals.
        seed: Seed of dropout; the task seeds its own batches.
        folder: Gets `log.jsonl`, `evaluations.jsonl`, and what `training.loop.checkpoints` describes.
        accelerator: The processes and their device (see `open_accelerator`); None: this process alone, on the CPU.
        evaluate: Figures of the weights as they are; called in every rank, all get the same. `config.selection`
            weighs them.
        samples_of: What to say of a step's samples where its loss is not finite.
        samples: Says which samples are trained on, as `training.data.digest` does; None: any may be.

    Raises:
        TrainingError: The loss is not finite, or the checkpoint belongs to another configuration or to other samples,
            or is damaged.
        OutputError: See `check_folder`.
        Interrupted: SIGINT (Ctrl-C) or SIGTERM came; the step was finished and saved.
    """
    accelerator = accelerator or open_accelerator(cpu=True)
    check_folder(folder)
    with output_folder(folder), getattr(task, "loader", nullcontext()):
        _Training(task, config, seed, folder, accelerator, evaluate, samples_of, samples).train()


def check_folder(folder: Path) -> None:
    """Refuses a folder without a checkpoint in which a training would replace files that are no training's.

    Raises:
        OutputError: There is such a file.
    """
    if not exists(folder / CHECKPOINT):
        refuse(folder, [*foreign_logs(folder), *foreign_weights(folder)])


def identity(
    task: Task, config: OptimisationConfig, seed: int, accelerator: Accelerator, samples: str | None
) -> dict[str, Any]:
    """What shapes a loss curve; how many ranks a batch is split over does not."""
    shaping = shaping_settings(config) | {"batch_size": config.batch_size * accelerator.num_processes}
    if samples is not None:
        shaping[SAMPLES] = samples
    return {"task": task.name, "seed": seed, "mixed_precision": accelerator.mixed_precision, **shaping}


class _Losses(nn.Module):
    """The task's losses as a module's forward pass, where DistributedDataParallel and autocast take hold of them."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.state = task.state
        self._task = task

    def forward(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        return self._task.losses(step, micro_batch)


class _Training:
    """One call of `train`: the model in Accelerate's hands, the optimiser, the checkpoints."""

    def __init__(
        self,
        task: Task,
        config: OptimisationConfig,
        seed: int,
        folder: Path,
        accelerator: Accelerator,
        evaluate: Callable[[], Mapping[str, float]] | None,
        samples_of: Callable[[int], Sequence[Mapping[str, Any]]] | None,
        samples: str | None,
    ) -> None:
        self.task, self.config, self.seed, self.folder, self.accelerator = task, config, seed, folder, accelerator
        self.evaluate = evaluate if config.evaluate_every else None
        self.samples_of = samples_of
        self.losses = accelerator.prepare_model(_Losses(task))
        self.optimizer = build_optimizer(task.state, task.parameter_groups(), config)
        groups = self.optimizer.param_groups
        self.peak_learning_rates = [float(group["lr"]) for group in groups]
        self.parameters = [parameter for group in groups for parameter in group["params"]]
        shaping = identity(task, config, seed, accelerator, samples)
        self.checkpoints = Checkpoints(folder, shaping, config.keep_checkpoints)

    def train(self) -> None:
        """Runs all steps that are left."""
        config, is_main = self.config, self.accelerator.is_main_process
        start = self.checkpoints.resume(self.task.state, self.optimizer)
        if start == 0 and is_main:
            self.checkpoints.forget()
        self.accelerator.wait_for_everyone()
        log = TrainingLog(
            self.folder,
            self.task.name,
            start=start,
            steps=config.steps,
            samples=config.batch_size * config.accumulation * self.accelerator.num_processes,
            tensorboard=config.tensorboard,
            silent=not is_main,
        )
        with log, collect_signals(single_process=self.accelerator.num_processes == 1) as received:
            for step in range(start, config.steps):
                stop = self._step(step, log, received)
                done, last = step + 1, step + 1 == config.steps
                if self.evaluate and (done % config.evaluate_every == 0 or last):
                    self._evaluation(done, log)
                    # An evaluation may be long: a signal that comes during one does not wait for another step.
                    stop = stop or self._stop_signal(received)
                if done % config.checkpoint_every == 0 or last or stop:
                    self._save(done, log)
                if stop and not last:
                    raise self._interrupted(stop, done)

    def _step(self, step: int, log: TrainingLog, received: list[int]) -> int:
        """One optimiser step. Returns the signal to stop for, whichever rank received it; 0: none."""
        config = self.config
        torch.manual_seed(self._dropout_seed(step))
        factor = learning_rate_factor(step, config)
        for group, peak in zip(self.optimizer.param_groups, self.peak_learning_rates, strict=True):
            group["lr"] = peak * factor
        means = self._accumulate(step)
        norm = self.accelerator.clip_grad_norm_(self.parameters, config.clip)
        # One small all-reduce a step: all ranks know the losses, and agree on whether to go on.
        own = torch.stack([*means.values(), means["loss"].new_tensor(len(received))])
        *values, signals = all_reduce_sum(own / self.accelerator.num_processes).tolist()
        losses, norm = dict(zip(means, values, strict=True)), float(norm)
        if not (math.isfinite(losses["loss"]) and math.isfinite(norm)):
            raise self._not_finite(step, losses, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        log.advance(losses)
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            figures = {key: round(value, 6) for key, value in losses.items()}
            log.step(done, figures | {"gradient_norm": round(norm, 4), "rate": round(factor, 6)})
        return stop_signal(signals, received)

    def _stop_signal(self, received: list[int]) -> int:
        signals = torch.tensor(len(received), device=self.accelerator.device)
        return stop_signal(int(all_reduce_sum(signals)), received)

    def _dropout_seed(self, step: int) -> int:
        # Every rank has masks of its own; those of rank 0 are those of a run in one process.
        rank = self.accelerator.process_index
        return int(step_generator(self.seed, step, *([rank] if rank else [])).integers(2**62))

    def _accumulate(self, step: int) -> dict[str, Tensor]:
        """Gradients of the step's mean loss; returns the means of this rank's losses."""
        count = self.config.accumulation
        means: dict[str, Tensor] = {}
        for micro_batch in range(count):
            last = micro_batch == count - 1
            # Gradients travel between ranks once, with the last micro-batch.
            with nullcontext() if last else self.accelerator.no_sync(self.losses):
                losses = self.losses(step, micro_batch)
                (losses["loss"] / count).backward()
            for key, value in losses.items():
                mean = value.detach() / count
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
        # No rank leaves before the file is there: a launcher ends the others as soon as one has left.
        self.accelerator.wait_for_everyone()

    def _interrupted(self, stop: int, done: int) -> Interrupted:
        return Interrupted(
            f"{self.task.name}: stopped by {signal.Signals(stop).name} after step {done} of {self.config.steps}; saved"
            f" in {self.checkpoints.newest}; the same command goes on from there",
            128 + stop,
        )

    def _not_finite(self, step: int, losses: Mapping[str, float], norm: float) -> TrainingError:
        where = "no checkpoint was saved yet"
        if self.checkpoints.newest.exists():
            where = f"the last good checkpoint is {self.checkpoints.newest}"
        values = ", ".join(f"{key} {value:.4g}" for key, value in losses.items())
        remedy = " Lower the learning rate, or look at its samples."
        if self.samples_of is not None:
            path = self.folder / NOT_FINITE
            remedy = f" The step's samples are listed in {path}: look at them, or lower the learning rate."
            if self.accelerator.is_main_process:
                figures = {key: repr(value) for key, value in losses.items()} | {"gradient_norm": repr(norm)}
                content = {"step": step, "losses": figures, "samples": list(self.samples_of(step))}
                with atomic_path(path) as temporary:
                    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            self.accelerator.wait_for_everyone()
        return TrainingError(
            f"{self.task.name}: step {step}: the loss or its gradient is not finite ({values}, gradient norm "
            f"{norm:.4g}); {where}.{remedy}"
        )
