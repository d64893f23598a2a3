"""Whitening: a linear map under which vectors of one person spread alike in all directions."""

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.people.nearest_centroid import Vectors


@attrs.frozen(eq=False)
class Whitening:
    """A linear map under which what differs between one person's samples is small and alike in all directions.

    Within-class covariance normalisation (Hatch et al. 2006), fitted on people whose samples are known. Directions in
    which a person's own samples spread then no longer drown those in which people differ, for new people as well.

    Attributes:
        mean: (k,) of the known samples; it is moved to the origin, so that cosines speak of differences from it.
        matrix: (k, k), multiplied from the right.
    """

    mean: Vectors
    matrix: Vectors

    @classmethod
    def fit(cls, vectors: Vectors, subjects: NDArray[np.integer], shrinkage: float) -> "Whitening":
        """Fits the map.

        Args:
            vectors: (n, k) of known people.
            subjects: (n,) whose each is.
            shrinkage: In (0, 1]: the fraction of the within-person covariance that is replaced by its mean variance
                times the identity. 1 only centres.

        Raises:
            InvalidArgumentError: The shrinkage is out of range, or nobody's samples differ.
        """
        if not 0 < shrinkage <= 1:
            raise InvalidArgumentError(f"shrinkage is {shrinkage}; it must be in (0, 1]")
        vectors = vectors.astype(np.float64)
        people = np.unique(subjects, return_inverse=True)[1]
        means = np.stack([vectors[people == person].mean(axis=0) for person in range(people.max() + 1)])
        within = vectors - means[people]
        covariance = within.T @ within / len(within)
        variance = float(np.trace(covariance)) / len(covariance)
        if not variance > 1e-12 * vectors.var():  # below is rounding
            raise InvalidArgumentError("nobody's samples differ, so nothing is known of how one person's samples vary")
        values, axes = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * variance * np.eye(len(covariance)))
        return cls(vectors.mean(axis=0), axes / np.sqrt(values))

    def __call__(self, vectors: Vectors) -> Vectors:
        """Maps vectors (..., k)."""
        mapped: Vectors = (vectors - self.mean) @ self.matrix
        return mapped
