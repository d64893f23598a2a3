"""Which samples are trained on, which are held out, and the queries that held-out samples make."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.people.nearest_centroid import Vectors

Mask = NDArray[np.bool_]
"""(n,) which samples are chosen."""

Query = NDArray[np.intp]
"""The rows of the samples of one person that are identified together."""

_MOST_QUERIES = 20


class Fold(NamedTuple):
    """Which samples are trained on and which are held out, (n,) each; a sample may be neither."""

    training: Mask
    held_out: Mask

    def readable(self, has: Mask, subject_of: NDArray[np.integer]) -> "Fold":
        """The fold's samples that hold what is read of them, and can be identified by it.

        Args:
            has: (n,) which samples hold it.
            subject_of: (n,) whose sample each is.

        Returns:
            A fold in which a held-out sample is of a person with a training sample; none is held out where that holds
            of one person alone, whom nothing could be confused with.
        """
        training = self.training & has
        known = np.unique(subject_of[training])
        held_out = self.held_out & has & np.isin(subject_of, known)
        return Fold(training, held_out if len(known) > 1 else np.zeros_like(held_out))


def photograph_folds(image_of: NDArray[np.integer], folds: int, within: Mask, seed: int = 0) -> list[Fold]:
    """Folds of a cross-validation: photographs, shuffled once, are dealt to the folds in turn.

    Args:
        image_of: (n,) the photograph of each sample.
        folds: How many.
        within: The samples to divide; the others are neither trained on nor held out.
        seed: Of the shuffling.

    Raises:
        InvalidArgumentError: Fewer than 2 folds, or more than photographs.
    """
    images = np.unique(image_of[within])
    if not 2 <= folds <= len(images):
        raise InvalidArgumentError(f"{folds} folds of {len(images)} photographs; give 2 to {len(images)}")
    shuffled = np.random.default_rng(seed).permutation(images)
    held_out = [within & np.isin(image_of, shuffled[fold::folds]) for fold in range(folds)]
    return [Fold(within & ~mask, mask) for mask in held_out]


def enough_folds(folds: Sequence[Fold], decisions: int) -> list[Fold]:
    """The first folds that hold out so many samples together; all, where all are fewer."""
    held_out = np.cumsum([fold.held_out.sum() for fold in folds])
    return list(folds[: int(np.searchsorted(held_out, decisions)) + 1])


def draw_queries(subjects: NDArray[np.integer], size: int, most: int = _MOST_QUERIES, seed: int = 0) -> list[Query]:
    """Queries of `size` samples of one person: all there are, or `most` random ones of each person if there are more.

    Args:
        subjects: (n,) whose sample each is.
        size: Samples in a query, at least 1; a person who has fewer makes one query of all.
        most: Most queries of a person; single samples are always all there.
        seed: Of the random queries.

    Returns:
        The rows of each query's samples.
    """
    rng = np.random.default_rng(seed)
    queries: list[Query] = []
    for subject in np.unique(subjects):
        rows = np.flatnonzero(subjects == subject)
        count = min(size, len(rows))
        if count == 1 or math.comb(len(rows), count) <= most:
            queries += [np.array(query) for query in itertools.combinations(rows, count)]
        else:
            queries += [rng.choice(rows, count, replace=False) for _ in range(most)]
    return queries


def held_out_queries(fold: Fold, subject_of: NDArray[np.integer], size: int) -> list[Query]:
    """`draw_queries` of a fold's held-out samples; the rows are those of the whole data set."""
    rows = np.flatnonzero(fold.held_out)
    return [rows[query] for query in draw_queries(subject_of[rows], size)]


def query_means(vectors: Vectors, queries: Iterable[Sequence[int] | Query]) -> Vectors:
    """(m, k): the mean over each query's rows of (n, k) vectors."""
    return np.stack([vectors[rows].mean(axis=0) for rows in queries])
