"""Percentile bootstrap over clusters: samples of one person, or of one image, are not independent (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydeper.errors import InvalidArgumentError
from training.metrics.arguments import check_lengths


@attrs.frozen
class Interval:
    """An estimate and how far resampling moves it.

    Attributes:
        estimate: The statistic of the data as they are.
        low: Lower end of the percentile interval.
        high: Upper end.
        level: Coverage aimed at, in (0, 1).
    """

    estimate: float
    low: float
    high: float
    level: float = 0.95


def bootstrap_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    weights: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of a mean, or of a pooled ratio Σ values / Σ weights, over resampled clusters.

    Args:
        values: (n,) scores, or counts of what was right.
        clusters: n ids; rows of one id are drawn together.
        weights: (n,) what each value is out of, at least 0; None: 1 each.
        resamples: Bootstrap samples.
        level: Coverage, in (0, 1).
        seed: Of the generator.

    Raises:
        InvalidArgumentError: If the lengths differ, a number is not finite, a weight is negative, or 0 beside a value
            that is not, or all are 0, there are fewer than 2 clusters, or `resamples` or `level` are out of range.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, dtype=np.float64)
    check_lengths(values=values, weights=weights, clusters=clusters)
    _check_rows(values=values, weights=weights)
    if (weights < 0).any() or not weights.any() or values[weights == 0].any():
        raise InvalidArgumentError(
            "weights must be at least 0, not all 0, and 0 only where the value is 0; "
            f"they range from {weights.min()} to {weights.max()}"
        )
    rows = _rows_by_cluster(clusters)
    # A cluster without weight says nothing of a ratio, and a draw of such clusters alone would have none.
    weighty = [of_cluster for of_cluster in rows if weights[of_cluster].any()]
    if len(weighty) < 2:
        raise InvalidArgumentError(f"{len(weighty)} cluster has any weight; at least 2 are needed to resample")
    kept = np.concatenate(weighty)
    return bootstrap_sums(
        np.stack([values[kept], weights[kept]], axis=1),
        lambda sums: sums[..., 0] / sums[..., 1],
        [cluster for cluster, of_cluster in enumerate(weighty) for _ in of_cluster],
        resamples=resamples,
        level=level,
        seed=seed,
    )


def bootstrap_sums(
    statistics: NDArray[np.float64],
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    clusters: Sequence[Hashable],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of a score that is a function of sums over rows, e.g. corpus BLEU-4 or METEOR, over resampled clusters.

    Args:
        statistics: (n, k) what adds up.
        score: Sums of shape (..., k) -> scores of shape (...).
        clusters: n ids; rows of one id are drawn together.
        resamples: Bootstrap samples.
        level: Coverage, in (0, 1).
        seed: Of the generator.

    Raises:
        InvalidArgumentError: If the lengths differ, there are fewer than 2 clusters, or `resamples` or `level` are out
            of range.
    """
    check_lengths(statistics=statistics, clusters=clusters)
    sums = np.stack([statistics[of_cluster].sum(axis=0) for of_cluster in _rows_by_cluster(clusters)])
    drawn = np.stack([sums[draw].sum(axis=0) for draw in _draws(len(sums), resamples, level, seed)])
    return _interval(float(score(sums.sum(axis=0))), score(drawn), level)


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.intp]], float],
    clusters: Sequence[Hashable],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of any statistic over resampled clusters; where it is a function of sums, `bootstrap_sums` is faster.

    Args:
        statistic: Row numbers (with repeats, at least one) -> the statistic of those rows.
        clusters: n ids; rows of one id are drawn together.
        resamples: Bootstrap samples, each one call.
        level: Coverage, in (0, 1).
        seed: Of the generator.

    Raises:
        InvalidArgumentError: If there are fewer than 2 clusters, or `resamples` or `level` are out of range.
    """
    rows = _rows_by_cluster(clusters)
    draws = _draws(len(rows), resamples, level, seed)
    drawn = np.array([statistic(np.concatenate([rows[cluster] for cluster in draw])) for draw in draws])
    return _interval(float(statistic(np.arange(len(clusters)))), drawn, level)


def _check_rows(**columns: NDArray[np.float64]) -> None:
    for name, column in columns.items():
        if column.ndim != 1 or not np.isfinite(column).all():
            raise InvalidArgumentError(f"{name} of shape {column.shape} must be one finite number a row")


def _rows_by_cluster(clusters: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    rows: dict[Hashable, list[int]] = {}
    for row, cluster in enumerate(clusters):
        rows.setdefault(cluster, []).append(row)
    if len(rows) < 2:
        raise InvalidArgumentError(f"there are {len(rows)} clusters; at least 2 are needed to resample")
    return [np.array(of_cluster, dtype=np.intp) for of_cluster in rows.values()]


def _draws(num_clusters: int, resamples: int, level: float, seed: int) -> NDArray[np.int64]:
    if resamples < 1 or not 0 < level < 1:
        raise InvalidArgumentError(f"resamples is {resamples} (at least 1), level {level} (between 0 and 1)")
    return np.random.default_rng(seed).integers(num_clusters, size=(resamples, num_clusters))


def _interval(estimate: float, drawn: NDArray[np.float64], level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high), level)
