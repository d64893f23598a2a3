"""Collective operations over the ranks of the default process group; a process alone is a group of one."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sums a tensor over all ranks, in place; alone, it is left as it is."""
    if _is_initialized():
        dist.all_reduce(values)
    return values


def all_reduce_mean(values: Tensor) -> Tensor:
    """Averages a tensor over all ranks; alone, it is left as it is."""
    return all_reduce_sum(values) / dist.get_world_size() if _is_initialized() else values


def all_gather_rows(rows: Tensor) -> Tensor:
    """Concatenates every rank's (n_r, ...) rows, in the order of ranks; n_r may differ between ranks."""
    if not _is_initialized():
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = max(int(count) for count in counts)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([own[: int(count)] for own, count in zip(gathered, counts, strict=True)])


def all_gather_objects(items: Sequence[Any]) -> list[Any]:
    """Concatenates every rank's items, plain Python objects, in the order of ranks."""
    if not _is_initialized():
        return list(items)
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, list(items))
    return [item for own in gathered for item in own]


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
