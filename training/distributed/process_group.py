"""The processes of a run: how they find each other, and which rank works on which samples.

Everything random at a step is a function of (seed, step). So every rank draws the whole step, takes its own slice, and
knows without communication what the means of the whole step are over.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar, cast

import attrs
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    parse_flag_from_env,
)

from training.errors import TrainingError
from training.precision import multiplies_bfloat16_fast

_LONGEST_WAIT = timedelta(hours=6)

Items = TypeVar("Items", bound=Sequence[Any] | np.ndarray)


def open_accelerator(*, cpu: bool = False) -> Accelerator:
    """Joins the processes that `accelerate launch` or `torchrun` started, or stands alone.

    Args:
        cpu: Whether to stay on the CPU where there is a GPU.

    Raises:
        TrainingError: Accelerate is configured for what the loop does not do.

    Warns:
        UserWarning: Accelerate is configured for bfloat16, which is slow on this processor.
    """
    handlers = [
        # The buffers are the memory bank, which every rank keeps equal by itself: nothing to broadcast.
        DistributedDataParallelKwargs(broadcast_buffers=False),
        # While one process fills the folder of image features the others wait, longer than the usual minutes.
        InitProcessGroupKwargs(timeout=_LONGEST_WAIT),
    ]
    accelerator = Accelerator(cpu=cpu, kwargs_handlers=handlers)
    kind = accelerator.distributed_type
    # On a CPU Accelerate itself ignores FSDP.
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        kind = DistributedType.FSDP
    if kind in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise TrainingError(
            f"accelerate is configured for {kind.value}; what is trained here is small, and every process holds all of "
            "it. Configure plain multi-GPU (`accelerate config`); stage2.shard_vlm = true shares out the frozen VLM"
        )
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise TrainingError(f"accelerate is configured for {accelerator.mixed_precision}; choose bf16 or no")
    if accelerator.mixed_precision == "bf16" and not multiplies_bfloat16_fast(accelerator.device):
        warnings.warn(
            "accelerate is configured for bf16, in which PyTorch is slow on a processor without AVX-512, such as this "
            "one; --mixed_precision no computes in float32",
            stacklevel=2,
        )
    return accelerator


def accelerator_at(device: torch.device) -> Accelerator:
    """An accelerator that trains a network where it is: on the CPU, or on this process's GPU."""
    return open_accelerator(cpu=device.type == "cpu")


def training_device() -> torch.device:
    """Where this process trains: on its GPU, or on the CPU where there is none or ACCELERATE_USE_CPU is true."""
    device: torch.device = open_accelerator().device
    return device


def main_process_first(accelerator: Accelerator, feature_cache: str | None) -> AbstractContextManager[None]:
    """Lets the main process fill the folder of features for all; without a folder, each computes its own at once."""
    return accelerator.main_process_first() if feature_cache else nullcontext()


@attrs.frozen
class ProcessGroup:
    """This process among those that train together, and its slice of the data.

    Attributes:
        rank: Its number, from 0.
        world_size: How many there are.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def of(cls, accelerator: Accelerator) -> "ProcessGroup":
        """The processes of an accelerator."""
        return cls(accelerator.process_index, accelerator.num_processes)

    def slice_of(self, items: Items) -> Items:
        """This rank's consecutive slice of what all ranks have together, a multiple of their number."""
        size = len(items) // self.world_size
        return cast("Items", items[self.rank * size : (self.rank + 1) * size])

    def batches_of(self, rows: Sequence[int], size: int) -> Iterator[np.ndarray]:
        """This rank's batches of a walk through `rows`; the ranks take turns."""
        for start in range(self.rank * size, len(rows), self.world_size * size):
            yield np.array(rows[start : start + size])


SINGLE_PROCESS = ProcessGroup()
