"""A frozen decoder that fits no single device: every rank holds a shard of each layer (FSDP2).

A layer is gathered while it runs, forward or backward, and for that all ranks must run it together. In a training step
they do. Where the ranks have unequally many forward passes, those that have finished keep joining in the collectives of
the others: `join_uneven_inputs`, as `torch.distributed.algorithms.Join` does for gradients.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from training.distributed.collectives import all_reduce_sum
from training.distributed.device import device_of
from training.errors import TrainingError

_inside: ContextVar[bool] = ContextVar("inside", default=False)


def shard_layers(layers: Sequence[nn.Module], device: torch.device) -> None:
    """Leaves every rank its shard of each layer, on `device`; what the layers compute stays the same.

    No more than one whole layer is ever on the device, so they may come from the CPU.

    Args:
        layers: The layers, on any device, the same in all ranks.
        device: This rank's.

    Raises:
        TrainingError: There is one process.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise TrainingError(
            "stage2.shard_vlm: there is one process, and nobody to share the VLM with; start several with "
            "`accelerate launch`, or set it to false"
        )
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


@contextmanager
def join_uneven_inputs(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Lets ranks run sharded layers unequally often, some of them never; all leave the block together.

    Before each pass the ranks exchange how many of them have one; a rank without any more gives its shard of every
    layer to the others, and waits. All ranks must enter the block; inside, only forward passes through all layers in
    their order, and no other collectives. Blocks inside another block, and layers that are not sharded, cost nothing.

    Args:
        layers: All layers of the decoder.
    """
    sharded = [layer for layer in layers if isinstance(layer, FSDPModule)]
    if not sharded or _inside.get():
        yield
        return
    device = device_of(layers[0])

    def count_passes(own: int) -> int:
        return int(all_reduce_sum(torch.tensor(own, device=device)))

    def announce(*_: object) -> None:
        count_passes(1)

    handle = layers[0].register_forward_pre_hook(announce, prepend=True)  # before it gathers the others' shards
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)
        handle.remove()
    while count_passes(0):
        for layer in sharded:
            layer.unshard()
            layer.reshard()
