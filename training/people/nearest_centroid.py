"""Nearest centroid: whose vector is this? Cosines to the mean vector of each person."""

import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError

Vectors = NDArray[np.floating]


def unit(vectors: Vectors) -> Vectors:
    """Scales vectors (..., k) to length 1; a vector of zeros stays one."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)
    return scaled


def centroid_scores(queries: Vectors, support: Vectors, subjects: NDArray[np.integer], count: int) -> Vectors:
    """Cosines between queries and the mean of each person's normalised support vectors.

    Args:
        queries: (m, k)
        support: (n, k)
        subjects: (n,) people, 0 … count - 1, each at least once.
        count: People.

    Returns:
        (m, count)

    Raises:
        InvalidArgumentError: Somebody has no support.
    """
    if absent := sorted(set(range(count)) - set(subjects.tolist())):
        raise InvalidArgumentError(
            f"people {absent[:5]} have no support; the centroid rule needs at least one sample each"
        )
    vectors = unit(support)
    means = np.stack([vectors[subjects == subject].mean(axis=0) for subject in range(count)])
    cosines: Vectors = unit(queries) @ unit(means).T
    return cosines
