"""Many processes, one run: how they find each other, and which share of a step is whose.

Everything random at a step is a function of (seed, step). So every process draws the whole step, takes its share, and
knows without asking what the means of the whole step are over.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import attrs
import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    parse_flag_from_env,
)
from torch import Tensor, nn

from training.errors import TrainingError

_LONGEST_WAIT = timedelta(hours=6)

Items = TypeVar("Items", bound=Sequence[Any])


def open_accelerator(*, cpu: bool = False) -> Accelerator:
    """Joins the processes that `accelerate launch` or `torchrun` started, or stands alone.

    Args:
        cpu: Whether to stay on the CPU where there is a GPU.

    Raises:
        TrainingError: The configuration of Accelerate asks for what the loop does not do.
    """
    handlers = [
        # The buffers are the memory bank, which every process keeps equal by itself: nothing to broadcast.
        DistributedDataParallelKwargs(broadcast_buffers=False),
        # While one process fills the folder of image features the others wait, longer than the usual minutes.
        InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
    ]
    accelerator = Accelerator(cpu=cpu, kwargs_handlers=handlers)
    kind = accelerator.distributed_type
    # On a CPU Accelerate itself passes over what it was asked for.
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        kind = DistributedType.FSDP
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise TrainingError(
            f"accelerate is configured for {kind.value}; what is trained here is small, and every process holds all of "
            "it. Configure plain multi-GPU (`accelerate config`); stage2.shard_vlm = true shares out the frozen VLM"
        )
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise TrainingError(f"accelerate is configured for {accelerator.mixed_precision}; choose bf16 or no")
    return accelerator


@attrs.frozen
class Share:
    """Which share of every step is this process's.

    Attributes:
        process: Its number, from 0.
        processes: How many there are.
    """

    process: int = 0
    processes: int = 1

    @classmethod
    def here(cls, accelerator: Accelerator) -> "Share":
        """The share of this process."""
        return cls(accelerator.process_index, accelerator.num_processes)

    def of(self, items: Items) -> Items:
        """This process's consecutive share of what all processes have together, a multiple of their number."""
        size = len(items) // self.processes
        share: Any = items[self.process * size : (self.process + 1) * size]
        return share

    def batches(self, rows: Sequence[int], size: int) -> Iterator[np.ndarray]:
        """This process's batches of a walk through `rows`; the processes take turns."""
        for start in range(self.process * size, len(rows), self.processes * size):
            yield np.array(rows[start : start + size])


ALONE = Share()


class Mean(NamedTuple):
    """A mean, and how many things it is over."""

    value: Tensor
    count: float


def step_means(means: Mapping[str, Mean], totals: Mapping[str, float], forwards: int) -> dict[str, Tensor]:
    """Weights one forward pass's means so that averaging over a step's passes gives the means over the whole step.

    Without it a pass with few fixations, or short descriptions, would count as much as one with many: accumulation and
    several processes would minimise another loss than one large batch does.

    Args:
        means: Means of this forward pass.
        totals: How many things the whole step has, by the same names.
        forwards: Forward passes in the step: parts times processes.
    """
    return {name: value * (count * forwards / max(1, totals[name])) for name, (value, count) in means.items()}


def add_counts(counts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Adds the counts of several forward passes, name by name."""
    return {name: sum(part[name] for part in counts) for name in counts[0]}


def add_up(values: Tensor) -> Tensor:
    """Sums a tensor over all processes, in place; alone, it is left as it is."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values


def gather_objects(items: Sequence[Any]) -> list[Any]:
    """Concatenates every process's items, in the order of processes; plain Python objects."""
    if not (dist.is_available() and dist.is_initialized()):
        return list(items)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, list(items))
    return [item for part in everyone for item in part]


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter or buffer is."""
    return next(chain(module.parameters(), module.buffers())).device


def overall(passes: Iterable[Mapping[str, Mean]], names: Sequence[str], device: torch.device) -> dict[str, float]:
    """The means over all forward passes of all processes.

    Args:
        passes: This process's.
        names: The names of the means; a process may have no pass.
        device: Where processes exchange tensors.
    """
    sums = torch.zeros(2, len(names), device=device)
    for means in passes:
        counts = torch.tensor([means[name].count for name in names], device=device, dtype=sums.dtype)
        sums += torch.stack([torch.stack([means[name].value.float() for name in names]) * counts, counts])
    total, count = add_up(sums)
    return dict(zip(names, (total / count.clamp(min=1)).tolist(), strict=True))
