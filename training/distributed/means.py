"""Means over a whole step or a whole evaluation, however it is cut into micro-batches and ranks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from training.distributed.collectives import all_reduce_sum


class Mean(NamedTuple):
    """A mean, and how many things it is over."""

    value: Tensor
    number: float


def rescale_to_step(means: Mapping[str, Mean], totals: Mapping[str, float], forwards: int) -> dict[str, Tensor]:
    """Weights one forward pass's means so that averaging over a step's passes gives the means over the whole step.

    Without it a pass with few fixations, or short descriptions, would count as much as one with many: accumulation and
    several ranks would minimise another loss than one large batch does.

    Args:
        means: Means of this forward pass.
        totals: How many things the whole step has, by the same names.
        forwards: Forward passes in the step: micro-batches times ranks.
    """
    return {name: value * (count * forwards / max(1, totals[name])) for name, (value, count) in means.items()}


def sum_counts(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Sums the counts of several forward passes, name by name."""
    return {name: sum(one[name] for one in counts) for name in counts[0]}


def all_reduce_means(
    passes: Iterable[Mapping[str, Mean]], names: Sequence[str], device: torch.device
) -> dict[str, float]:
    """The means over all forward passes of all ranks.

    Args:
        passes: This rank's.
        names: The names of the means; a rank may have no pass.
        device: Where ranks exchange tensors.
    """
    sums = torch.zeros(2, len(names), device=device)
    for means in passes:
        counts = torch.tensor([means[name].number for name in names], device=device, dtype=sums.dtype)
        sums += torch.stack([torch.stack([means[name].value.float() for name in names]) * counts, counts])
    total, count = all_reduce_sum(sums)
    return dict(zip(names, (total / count.clamp(min=1)).tolist(), strict=True))
