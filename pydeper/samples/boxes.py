"""Boxes on an image: (x1, y1, x2, y2), left, top, right and bottom, as fractions of the upright image."""

from collections.abc import Sequence
from typing import TypeAlias

Box: TypeAlias = tuple[float, float, float, float]

MIN_BOX = 0.07
"""Smallest side of a box, as a fraction of the image's: about one of the 14 cells that the image encoder sees."""


def box_around(low: Sequence[float], high: Sequence[float], min_size: float | Sequence[float]) -> Box | None:
    """The box from `low` to `high` (x and y of each), grown about its centre to `min_size` and clipped to the image.

    Args:
        low: Left and top.
        high: Right and bottom.
        min_size: Smallest width and height: one number for both, or two.

    Returns:
        (x1, y1, x2, y2), or None where nothing of it lies inside the image.

    Examples:
        >>> from pydeper.gaze import box_around
        >>> box_around((0.5, 0.25), (0.5, 0.25), min_size=0.125)
        (0.4375, 0.1875, 0.5625, 0.3125)
    """
    sizes = (min_size, min_size) if isinstance(min_size, int | float) else min_size
    sides = []
    for near, far, size in zip(low, high, sizes, strict=True):
        centre, half = (near + far) / 2, max(far - near, size) / 2
        sides.append((max(centre - half, 0.0), min(centre + half, 1.0)))
    (x1, x2), (y1, y2) = sides
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
