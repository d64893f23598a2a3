"""The outlines of the shapes that the built-in model knows, as polygons."""

from collections.abc import Callable

import attrs
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@attrs.frozen
class Shape:
    """A family of outlines with one proportion that may vary.

    Attributes:
        outline: Maps the proportion to polygons of (n, 2) points x, y (y downwards); the first is the outer edge, the
            others are holes. They are scaled so that the longer side of the bounding box runs from -1 to 1.
        proportion: The smallest and the largest proportion.
        usual: The proportion of a plain drawing.
        turns: Angles in degrees at which the shape is drawn as well as upright.
    """

    outline: Callable[[float], list[Points]]
    proportion: tuple[float, float]
    usual: float
    turns: tuple[float, ...] = (0.0,)

    def polygons(self, proportion: float | None = None, angle: float = 0.0) -> list[Points]:
        """The outline, turned clockwise by an angle in degrees, with the longer side of its box from -1 to 1."""
        polygons = self.outline(self.usual if proportion is None else proportion)
        turn = np.deg2rad(angle)
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        turned = [points @ rotation for points in polygons]
        low, high = turned[0].min(axis=0), turned[0].max(axis=0)
        return [(points - (low + high) / 2) / ((high - low).max() / 2) for points in turned]


def _arc(start: float, end: float, points: int = 48) -> Points:
    angles = np.deg2rad(np.linspace(start, end, points))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _regular(corners: int, start: float = -90.0) -> Points:
    return _arc(start, start + 360 * (1 - 1 / corners), corners)


def _stretched(points: Points) -> Callable[[float], list[Points]]:
    """The height is the proportion of the width."""
    return lambda proportion: [points * (1.0, proportion)]


_SQUARE = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])


def _star(inner: float) -> list[Points]:
    return [_regular(10) * np.where(np.arange(10) % 2 == 0, 1.0, inner)[:, None]]


def _heart(depth: float) -> list[Points]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return [np.stack([np.sin(t) ** 3, depth * y], axis=1)]


def _cross(arm: float) -> list[Points]:
    corner = np.array([(-arm, -1.0), (arm, -1.0), (arm, -arm)])
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])  # (x, y) -> (-y, x)
    return [np.concatenate([corner @ np.linalg.matrix_power(quarter, k) for k in range(4)])]


def _moon(shift: float) -> list[Points]:
    """A disc of radius 1 less a disc of radius .9 whose centre lies `shift` to the right."""
    radius = 0.9
    x = (1 - radius**2 + shift**2) / (2 * shift)
    tip = np.rad2deg(np.arctan2(np.sqrt(1 - x**2), x))
    inner = np.rad2deg(np.arctan2(np.sqrt(1 - x**2), x - shift))
    bite = _arc(360 - inner, inner) * radius + (shift, 0.0)
    return [np.concatenate([_arc(tip, 360 - tip), bite])]


def _arrow(shaft: float) -> list[Points]:
    head = 0.1
    upper = [(-1.0, -shaft), (head, -shaft), (head, -0.7), (1.0, 0.0)]
    lower = [(head, 0.7), (head, shaft), (-1.0, shaft)]
    return [np.array(upper + lower)]


_QUARTERS = (0.0, 90.0, 180.0, 270.0)

SHAPES: dict[str, Shape] = {
    "circle": Shape(_stretched(_arc(0, 352)), (0.94, 1.0), 1.0),
    "oval": Shape(_stretched(_arc(0, 352)), (0.45, 0.74), 0.62, (0.0, 90.0)),
    "square": Shape(_stretched(_SQUARE), (0.93, 1.0), 1.0),
    "rectangle": Shape(_stretched(_SQUARE), (0.35, 0.74), 0.55, (0.0, 90.0)),
    "triangle": Shape(_stretched(np.array([(0.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])), (0.75, 1.15), 0.87, _QUARTERS),
    "diamond": Shape(_stretched(_regular(4)), (0.55, 1.0), 0.7, (0.0, 90.0)),
    "star": Shape(_star, (0.34, 0.55), 0.4),
    "heart": Shape(_heart, (0.85, 1.15), 1.0),
    "cross": Shape(_cross, (0.18, 0.42), 0.33, (0.0, 45.0)),
    "ring": Shape(lambda hole: [_arc(0, 352), _arc(0, 352) * hole], (0.4, 0.72), 0.6),
    "moon": Shape(_moon, (0.35, 0.75), 0.5, (0.0, 180.0)),
    "arrow": Shape(_arrow, (0.15, 0.4), 0.28, _QUARTERS),
}
