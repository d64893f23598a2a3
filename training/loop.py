"""The training loop: one for all stages.

Everything random at a step is seeded from (seed, step), never from what came before. So a run that is resumed from a
checkpoint continues exactly as if it had never stopped: a checkpoint needs the weights and the optimiser alone.
"""

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from pydeper.errors import PydeperError
from training.config import OptimisationConfig, config_text

CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


class TrainingError(PydeperError):
    """Training cannot start, continue or go on."""


class Task(Protocol):
    """What the loop trains: modules, their parameters, and the loss of a step."""

    name: str
    state: nn.Module

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with "params" and "lr", the peak learning rate."""
        ...

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        """The losses of one forward pass; "loss" is what is minimised, the others are logged."""
        ...


def step_generator(seed: int, *where: int) -> np.random.Generator:
    """A generator that depends on the seed and the place (stage, step, part, ...) alone."""
    return np.random.default_rng([seed, *where])


def run(task: Task, config: OptimisationConfig, seed: int, folder: Path) -> None:
    """Trains until `config.steps`, from the folder's checkpoint if there is one.

    Args:
        task: What to train; its `state` is changed in place and ends in training mode's final weights.
        config: Steps, rates, clipping, accumulation, intervals.
        seed: Seed of dropout; the task seeds its own batches.
        folder: Gets `log.jsonl` (one line every `log_every` steps) and `checkpoint.safetensors`.

    Raises:
        TrainingError: The loss is not finite, or the checkpoint belongs to another configuration or is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = task.parameter_groups()
    peaks = [float(group["lr"]) for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    parameters = [parameter for group in groups for parameter in group["params"]]
    identity = f"{task.name} seed={seed} {config_text(config)}"
    start = _resume(folder, task.state, optimizer, identity)
    _cut_log(folder / LOG, start)
    with (folder / LOG).open("a", encoding="utf-8") as log:
        bar = tqdm(
            range(start, config.steps),
            desc=task.name,
            initial=start,
            total=config.steps,
            file=sys.stderr,
            mininterval=1.0,
        )
        began = time.perf_counter()
        for step in bar:
            torch.manual_seed(int(step_generator(seed, step).integers(2**62)))
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * rate(step, config)
            losses = _accumulate(task, step, config.accumulation)
            norm = nn.utils.clip_grad_norm_(parameters, config.clip)
            if not math.isfinite(losses["loss"]) or not torch.isfinite(norm):
                raise TrainingError(
                    f"{task.name}: step {step}: the loss or its gradient is not finite ({losses}, gradient norm "
                    f"{norm:.3g}); the last good checkpoint is in {folder}. Lower the learning rate, or look at this "
                    "step's samples."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done = step + 1
            if done % config.log_every == 0 or done == config.steps:
                line = {"step": done, **{key: round(value, 6) for key, value in losses.items()}}
                line |= {"gradient_norm": round(float(norm), 4), "rate": round(rate(step, config), 6)}
                line["seconds"] = round(time.perf_counter() - began, 2)
                log.write(json.dumps(line) + "\n")
                log.flush()
                bar.set_postfix({key: f"{value:.3f}" for key, value in losses.items()}, refresh=False)
            if done % config.checkpoint_every == 0 or done == config.steps:
                _save(folder / CHECKPOINT, task.state, optimizer, done, identity)


def rate(step: int, config: OptimisationConfig) -> float:
    """Learning rate of a step as a share of the peak: linear warm-up, then a cosine down to `final_rate`."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))


def is_finished(folder: Path, steps: int) -> bool:
    """Whether the folder's checkpoint is that of the last step."""
    path = folder / CHECKPOINT
    return path.exists() and int(_metadata(path)["step"]) >= steps


def load_state(folder: Path, module: nn.Module, part: str = "") -> None:
    """Loads trained weights from the folder's checkpoint into `module`.

    Args:
        folder: Where `run` left its checkpoint.
        module: Gets the weights.
        part: Name of the part of the task's state that `module` is; empty for the whole.

    Raises:
        TrainingError: There is no checkpoint, or it does not fit.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise TrainingError(f"{path}: no checkpoint there; train this stage first")
    prefix = f"state.{part}." if part else "state."
    with _open(path) as file:
        keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 – safe_open is no mapping
        _load_module(module, {key.removeprefix(prefix): file.get_tensor(key) for key in keys}, path)


def _accumulate(task: Task, step: int, parts: int) -> dict[str, float]:
    sums: dict[str, float] = {}
    for part in range(parts):
        losses = task.losses(step, part)
        (losses["loss"] / parts).backward()
        for key, value in losses.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach()) / parts
    return sums


def _save(path: Path, state: nn.Module, optimizer: torch.optim.Optimizer, step: int, identity: str) -> None:
    tensors = {f"state.{key}": value for key, value in _unique(state.state_dict().items())}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
    temporary = path.with_suffix(".tmp")
    save_file(
        {key: value.contiguous() for key, value in tensors.items()},
        temporary,
        {"step": str(step), "identity": identity},
    )
    temporary.replace(path)


def _unique(items: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Leaves out tied tensors, which safetensors refuses to store twice."""
    seen: set[tuple[int, torch.Size]] = set()
    for key, value in items:
        mark = (value.data_ptr(), value.shape)
        if value.numel() == 0 or mark not in seen:
            seen.add(mark)
            yield key, value


def _resume(folder: Path, state: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> int:
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    metadata = _metadata(path)
    if metadata["identity"] != identity:
        raise TrainingError(
            f"{path}: made with another configuration or seed; choose another folder, or delete it to start anew"
        )
    load_state(folder, state)
    moments: dict[int, dict[str, Tensor]] = {}
    with _open(path) as file:
        for key in file.keys():  # noqa: SIM118 – safe_open is no mapping
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = file.get_tensor(key)
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])


def _load_module(module: nn.Module, stored: dict[str, Tensor], path: Path) -> None:
    expected = {key for key, _ in _unique(module.state_dict().items())}
    if expected != set(stored):
        raise TrainingError(
            f"{path}: does not fit the network; differing tensors: {sorted(expected ^ set(stored))[:5]}"
        )
    try:
        module.load_state_dict(stored, strict=False)
    except RuntimeError as error:
        raise TrainingError(f"{path}: does not fit the network: {error}") from error


def _metadata(path: Path) -> dict[str, str]:
    with _open(path) as file:
        return dict(file.metadata())


def _open(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path}: damaged checkpoint ({error}); delete it to start this stage anew") from error


def _cut_log(path: Path, step: int) -> None:
    """Drops the log lines behind the checkpoint: those steps are about to be run again."""
    if path.exists():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
