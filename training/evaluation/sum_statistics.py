"""Figures that are functions of sums over rows, their intervals over people, and how those of two systems compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.evaluation.bootstrap import Interval, bootstrap_sums
from training.evaluation.report import Figure


@attrs.frozen(eq=False)
class SumStatistics:
    """What a figure is made of.

    Attributes:
        statistics: (n, k) what adds up over rows.
        score: Sums of shape (..., k) -> figures of shape (...); not finite where it is undefined.
        owners: Whose the n rows are.
    """

    statistics: NDArray[np.float64]
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    owners: Sequence[str]

    @classmethod
    def mean(cls, values: NDArray[np.float64], owners: Sequence[str]) -> SumStatistics:
        """The mean over rows."""
        return cls.ratio(values, np.ones(len(values)), owners)

    @classmethod
    def ratio(cls, values: NDArray[np.float64], weights: NDArray[np.float64], owners: Sequence[str]) -> SumStatistics:
        """Σ values / Σ weights; undefined where nothing has weight."""
        return cls(np.stack([values, weights], axis=1).astype(np.float64), _ratio, owners)

    def figure(self) -> Figure:
        """The figure with its interval over owners; those for whom it is undefined are left out.

        Without an interval where there is one owner alone; None where it is defined for fewer than two of several.
        """
        if len(set(self.owners)) < 2:
            return _finite(float(self.score(self.statistics.sum(axis=0))))
        defined = {owner for owner, value in self.by_owner().items() if math.isfinite(value)}
        rows = [row for row, owner in enumerate(self.owners) if owner in defined]
        if len(defined) < 2:
            return None
        return bootstrap_sums(self.statistics[rows], self.score, [self.owners[row] for row in rows])

    def by_owner(self) -> dict[str, float]:
        """The figure of each owner's rows."""
        rows: dict[str, list[int]] = {}
        for row, owner in enumerate(self.owners):
            rows.setdefault(owner, []).append(row)
        return {owner: float(self.score(self.statistics[own].sum(axis=0))) for owner, own in rows.items()}


def difference(one: SumStatistics, other: SumStatistics) -> Figure:
    """How much more one system has than another, with an interval over owners, who are drawn together for both.

    Args:
        one: A figure of one system.
        other: The same figure of another system, for the same rows.

    Returns:
        None where a draw of owners leaves it undefined.
    """
    return _jointly([one, other], lambda figures: figures[0] - figures[1])


def share_of_the_way(low: SumStatistics, value: SumStatistics, high: SumStatistics) -> Figure:
    """How far `value` is on the way from `low` (0) to `high` (1), otherwise as `difference`."""

    def share(figures: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            result: NDArray[np.float64] = (figures[1] - figures[0]) / (figures[2] - figures[0])
        return result

    return _jointly([low, value, high], share)


def _jointly(
    parts: Sequence[SumStatistics],
    combine: Callable[[Sequence[NDArray[np.float64]]], NDArray[np.float64]],
) -> Figure:
    if any(list(part.owners) != list(parts[0].owners) for part in parts):
        raise InvalidArgumentError("systems can be compared on the same rows alone: their owners differ")
    ends = np.cumsum([part.statistics.shape[1] for part in parts])[:-1]

    def score(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        own = np.split(sums, ends, axis=-1)
        return combine([part.score(some) for part, some in zip(parts, own, strict=True)])

    joined = SumStatistics(np.concatenate([part.statistics for part in parts], axis=1), score, parts[0].owners)
    if len(set(joined.owners)) < 2:
        return joined.figure()
    return _finite(bootstrap_sums(joined.statistics, joined.score, joined.owners))


def _ratio(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        result: NDArray[np.float64] = sums[..., 0] / sums[..., 1]
    return result


def _finite(figure: Interval | float) -> Figure:
    ends = (figure.estimate, figure.low, figure.high) if isinstance(figure, Interval) else (figure,)
    return figure if all(map(math.isfinite, ends)) else None
