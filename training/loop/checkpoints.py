"""Checkpoints on disk: one safetensors file each, whole or not there, also when power fails.

`checkpoint.safetensors` is the newest: weights, memory bank, optimiser. `checkpoint-STEP.safetensors` are the last few,
where more than one is kept (the newest among them, under both names). `best.safetensors` has the weights of the step
that evaluated best.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.errors import TrainingError
from training.loop.optimiser import MuonAndAdamW
from training.outputs import exists

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
SAMPLES = "samples"
"""The part of an identity that says which samples were trained on; where ours has none, any may have been."""
_NUMBERED = f"checkpoint-{'[0-9]' * 8}.safetensors"
_HALF_WRITTEN = ("checkpoint.tmp", "best.tmp", "log.tmp", "evaluations.tmp")


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: Where they are.
        identity: What shapes the loss curve, as plain JSON values; a checkpoint of anything else is refused.
        keep: How many of the newest are kept.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], keep: int = 1) -> None:
        self.folder, self.identity, self.keep = folder, dict(identity), keep

    @property
    def newest(self) -> Path:
        """The newest checkpoint, whether it exists or not."""
        return self.folder / CHECKPOINT

    def save(self, state: nn.Module, optimizer: torch.optim.Optimizer | MuonAndAdamW, step: int) -> None:
        """Saves a checkpoint after `step` steps and removes those that are no longer to be kept."""
        tensors = _state_tensors(state)
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items()}
        also = [self.folder / f"checkpoint-{step:08d}.safetensors"] if self.keep > 1 else []
        _write(self.newest, tensors, {"step": str(step), "identity": json.dumps(self.identity)}, also)
        older = sorted(self.folder.glob(_NUMBERED), reverse=True)
        for path in older[self.keep if self.keep > 1 else 0 :]:
            path.unlink(missing_ok=True)

    def save_best(self, state: nn.Module, step: int, score: float) -> None:
        """Saves the weights if `score` beats that of the best so far."""
        best = self.folder / BEST
        with suppress(FileNotFoundError):
            if float(_metadata(best)["score"]) >= score:
                return
        metadata = {"step": str(step), "score": repr(score), "identity": json.dumps(self.identity)}
        _write(best, _state_tensors(state), metadata)

    def resume(self, state: nn.Module, optimizer: torch.optim.Optimizer | MuonAndAdamW) -> int:
        """Loads the newest checkpoint; returns its step, 0 where there is none.

        Raises:
            TrainingError: It is damaged, or missing beside older ones, or belongs to another configuration.
        """
        try:
            file = _open(self.newest)
        except FileNotFoundError as error:
            if older := _older(self.folder):
                raise TrainingError(
                    f"{self.newest}: gone, and older ones stand beside it ({', '.join(older)}); copy one to its place "
                    "to go on, or delete them to start anew"
                ) from error
            return 0
        with file:
            metadata = file.metadata()
            keys = {*_identity(metadata), *self.identity}
            if SAMPLES not in self.identity:
                keys.discard(SAMPLES)
            _check(self.newest, metadata, self.identity, keys)
            moments: dict[int, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118 – safe_open is no mapping
                if key.startswith("optimizer."):
                    _, index, name = key.split(".")
                    moments.setdefault(int(index), {})[name] = file.get_tensor(key)
            _load(self.newest, file, state, "")
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(metadata["step"])

    def forget(self) -> None:
        """Removes what a run without a checkpoint left: its best, and half-written files."""
        for path in (self.folder / BEST, *(self.folder / name for name in _HALF_WRITTEN)):
            path.unlink(missing_ok=True)


def foreign_weights(folder: Path) -> list[str]:
    """Returns the best weights' file where it is called like those of a training, and is none."""
    best = folder / BEST
    if not exists(best):
        return []
    try:
        own = "identity" in _metadata(best)
    except (OSError, TypeError, TrainingError):
        own = False
    return [] if own else [best.name]


def is_finished(folder: Path, steps: int, identity: Mapping[str, Any] | None = None) -> bool:
    """Whether the folder's newest checkpoint is that of the last step.

    Args:
        folder: Where a training has, or would have, its checkpoints.
        steps: Of the training.
        identity: What the checkpoint must have been made with, as far as it is known without loading anything.

    Raises:
        TrainingError: The checkpoint was made with something else, or is damaged.
    """
    try:
        metadata = _metadata(folder / CHECKPOINT)
    except FileNotFoundError:
        return False
    _check(folder / CHECKPOINT, metadata, identity or {}, identity or {})
    return int(metadata["step"]) >= steps


def save_finished(folder: Path, state: nn.Module, steps: int, origin: str) -> None:
    """Saves weights that were trained elsewhere as the last step of a training, which then counts as finished.

    Args:
        folder: Where the training has, or would have, its checkpoints.
        state: The task's modules, or those of them that are needed on.
        steps: Of the training.
        origin: Where the weights are from; kept in the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / CHECKPOINT, _state_tensors(state), {"step": str(steps), "identity": json.dumps({"from": origin})})


def load_state(folder: Path, module: nn.Module, submodule: str = "") -> None:
    """Loads trained weights into `module`: the best ones where the run chose by evaluation, else the newest.

    Args:
        folder: Where `training.loop.train.train` left its checkpoints.
        module: Gets the weights.
        submodule: Name of the submodule of the task's state that `module` is; empty for the whole.

    Raises:
        TrainingError: There is no checkpoint, or it does not fit.
    """
    for path in (folder / BEST, folder / CHECKPOINT):
        with suppress(FileNotFoundError), _open(path) as file:
            return _load(path, file, module, submodule)
    raise TrainingError(f"{folder / CHECKPOINT}: no checkpoint there; train this stage first")


def _identity(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        return dict(json.loads(metadata["identity"]))
    except ValueError:
        return {"format": "older"}


def _check(path: Path, metadata: Mapping[str, str], identity: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuses a checkpoint that was made with something else under one of the keys."""
    stored, ours = _identity(metadata), json.loads(json.dumps(identity))
    different = [key for key in sorted(keys) if stored.get(key) != ours.get(key)]
    if different:
        changes = ", ".join(f"{key} was {stored.get(key)!r}, is {ours.get(key)!r}" for key in different)
        raise TrainingError(
            f"{path}: made with another configuration, seed or samples ({changes}); choose another folder, or delete "
            "it to start anew"
        )


def _state_tensors(state: nn.Module) -> dict[str, Tensor]:
    return {f"state.{key}": value for key, value in _unique(state.state_dict().items())}


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], also: Iterable[Path] = ()) -> None:
    """Writes a file that after any interruption is either the old or the new one, on disk and not only in memory."""
    # One fixed name, so that a killed run leaves at most one of them, which the next one writes over.
    temporary = path.with_suffix(".tmp")
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary, metadata)
    _to_disk(temporary)
    temporary.replace(path)
    for other in also:
        other.unlink(missing_ok=True)
        try:
            other.hardlink_to(path)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, other)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unique(items: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Leaves out tied tensors, which safetensors refuse to store twice."""
    seen: set[tuple[int, torch.Size]] = set()
    for key, value in items:
        mark = (value.data_ptr(), value.shape)
        if value.numel() == 0 or mark not in seen:
            seen.add(mark)
            yield key, value


def _load(path: Path, file: Any, module: nn.Module, submodule: str) -> None:
    prefix = f"state.{submodule}." if submodule else "state."
    keys = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118 – safe_open is no mapping
    stored = {key.removeprefix(prefix): file.get_tensor(key) for key in keys}
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
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        older = _older(path.parent)
        remedy = f"copy an older one over it ({', '.join(older)}), or delete all of them" if older else "delete it"
        raise TrainingError(f"{path}: damaged checkpoint ({error}); {remedy} to start this stage anew") from error


def _older(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(_NUMBERED))
