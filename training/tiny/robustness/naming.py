"""Whether what a description names is in the picture."""

from collections import Counter
from collections.abc import Sequence

import attrs
import numpy as np

from training.evaluation.bootstrap import bootstrap_mean, bootstrap_sums
from training.evaluation.report import Figure
from training.tiny.world.viewers import mentioned_objects

Named = tuple[str | None, str]
"""A colour and a shape."""


@attrs.frozen
class Naming:
    """How the objects that a description names compare with those of the picture.

    Attributes:
        right: Named, and there.
        named: Named in all.
        there: In the picture.
    """

    right: int
    named: int
    there: int


def compare(description: str, objects: Sequence[Named]) -> Naming:
    """Compares the objects of a description with those of a picture; two of a kind have to be named twice."""
    named, there = Counter(mentioned_objects(description)), Counter(objects)
    return Naming((named & there).total(), named.total(), there.total())


def score(namings: Sequence[Naming], drawings: Sequence[str]) -> dict[str, Figure]:
    """F1 over all objects, and the share of descriptions that name something that is not there; 95 % intervals."""
    counts = np.array([(naming.right, naming.named, naming.there) for naming in namings], float)

    def f1(sums: np.ndarray) -> np.ndarray:
        scores: np.ndarray = 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)
        return scores

    invented = [float(naming.named > naming.right) for naming in namings]
    return {"F1": bootstrap_sums(counts, f1, drawings), "with an invention": bootstrap_mean(invented, drawings)}
