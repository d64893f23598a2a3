"""A frozen decoder that fits no single device: every process holds a part of each layer (FSDP2).

A layer is put together while it runs, forward or backward, and for that all processes must run it together. In a
training step they do. Where their work is uneven, those who are done first keep helping: `uneven_passes`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from training.distributed.process_group import add_up, device_of
from training.errors import TrainingError

_inside: ContextVar[bool] = ContextVar("inside", default=False)


def shard_layers(layers: Sequence[nn.Module], device: torch.device) -> None:
    """Leaves every process its part of each layer, on `device`; what the layers compute stays the same.

    No more than one whole layer is ever on the device, so they may come from the CPU.

    Args:
        layers: The layers, on any device, the same in all processes.
        device: This process's.

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
def uneven_passes(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Lets processes run the layers unequally often, some of them never; all leave the block together.

    Before each pass processes tell one another that there is one; whoever has no more of them gives its part of every
    layer to those who have, and waits. All must enter the block; inside, only forward passes through all layers in
    their order, and nothing else that is done together. Blocks inside another block, and whole layers, need nothing.

    Args:
        layers: All layers of the decoder.
    """
    sharded = [layer for layer in layers if isinstance(layer, FSDPModule)]
    if not sharded or _inside.get():
        yield
        return
    device = device_of(layers[0])

    def passes(mine: int) -> int:
        return int(add_up(torch.tensor(mine, device=device)))

    def announce(*_: object) -> None:
        passes(1)

    handle = layers[0].register_forward_pre_hook(announce, prepend=True)  # before it asks for the others' parts
    token = _inside.set(True)
    try:
        yield
    finally:
        _inside.reset(token)
        handle.remove()
    while passes(0):
        for layer in sharded:
            layer.unshard()
            layer.reshard()
