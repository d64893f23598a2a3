"""The tiny world's scenes: drawings of coloured shapes on a 3×3 grid."""

from collections.abc import Callable, Sequence

import attrs
import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "orange": (245, 135, 30),
    "yellow": (238, 205, 40),
    "green": (50, 150, 70),
    "blue": (40, 90, 200),
    "purple": (130, 60, 170),
    "brown": (125, 80, 45),
    "black": (30, 30, 30),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond", "ring", "moon", "arrow")
SIZES = {"small": 0.25, "large": 0.40}  # half extent of an object, as a fraction of a grid cell

GRID = 3
SCENE_PIXELS = 336
_SUPERSAMPLING = 2
_BACKGROUNDS = ((250, 248, 240), (240, 245, 250), (245, 240, 245), (240, 248, 240))


@attrs.frozen
class SceneObject:
    """One drawn object: what it is, its cell (row, column) of the grid, its centre and half extent in image sides."""

    shape: str
    colour: str
    size: str
    cell: tuple[int, int]
    centre: tuple[float, float]
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Bounding box (x1, y1, x2, y2), normalised to the image."""
        (x, y), r = self.centre, self.radius
        return (x - r, y - r, x + r, y + r)


@attrs.frozen
class Scene:
    """A drawing of objects of different shapes, at most one in a cell."""

    objects: tuple[SceneObject, ...]
    background: tuple[int, int, int]

    def draw(self) -> Image.Image:
        """Draws the scene as an RGB image of 336×336 pixels."""
        side = SCENE_PIXELS * _SUPERSAMPLING
        image = Image.new("RGB", (side, side), self.background)
        pen = ImageDraw.Draw(image)
        for thing in self.objects:
            x, y = (side * value for value in thing.centre)
            _OUTLINES[thing.shape](pen, x, y, side * thing.radius, COLOURS[thing.colour], self.background)
        return image.reduce(_SUPERSAMPLING)


def sample_scene(rng: np.random.Generator, objects: tuple[int, int] = (4, 5)) -> Scene:
    """Draws a random scene.

    Args:
        rng: Source of randomness.
        objects: Fewest and most objects, both included; at most 9.
    """
    count = int(rng.integers(objects[0], objects[1] + 1))
    cells = rng.choice(GRID * GRID, size=count, replace=False)
    shapes = rng.choice(SHAPES, size=count, replace=False)
    things = []
    for cell, shape in zip(cells, shapes, strict=True):
        row, column = divmod(int(cell), GRID)
        size = str(rng.choice(list(SIZES)))
        jitter = rng.uniform(-0.08, 0.08, size=2) / GRID
        things.append(
            SceneObject(
                shape=str(shape),
                colour=str(rng.choice(list(COLOURS))),
                size=size,
                cell=(row, column),
                centre=((column + 0.5) / GRID + float(jitter[0]), (row + 0.5) / GRID + float(jitter[1])),
                radius=SIZES[size] * float(rng.uniform(0.95, 1.05)) / GRID,
            )
        )
    return Scene(tuple(things), _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))])


_Colour = tuple[int, int, int]
_Outline = Callable[[ImageDraw.ImageDraw, float, float, float, _Colour, _Colour], None]


def _polygon(points: Sequence[tuple[float, float]]) -> _Outline:
    """A filled polygon given in units of the object's half extent."""

    def draw(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, _background: _Colour) -> None:
        pen.polygon([(x + r * u, y + r * v) for u, v in points], fill=colour)

    return draw


def _ellipse(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def _circle(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, _background: _Colour) -> None:
    _ellipse(pen, x, y, r, colour)


def _ring(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, background: _Colour) -> None:
    _ellipse(pen, x, y, r, colour)
    _ellipse(pen, x, y, 0.55 * r, background)


def _moon(pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: _Colour, background: _Colour) -> None:
    _ellipse(pen, x, y, r, colour)
    _ellipse(pen, x + 0.5 * r, y - 0.1 * r, 0.85 * r, background)


def _star_points() -> list[tuple[float, float]]:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


def _heart_points() -> list[tuple[float, float]]:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return [(float(u), float(v)) for u, v in zip(x, y, strict=True)]


_OUTLINES: dict[str, _Outline] = {
    "circle": _circle,
    "square": _polygon([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]),
    "triangle": _polygon([(0, -1), (1, 0.8), (-1, 0.8)]),
    "star": _polygon(_star_points()),
    "heart": _polygon(_heart_points()),
    "cross": _polygon(
        [
            *[(-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)],
            *[(0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)],
        ]
    ),
    "diamond": _polygon([(0, -1), (0.7, 0), (0, 1), (-0.7, 0)]),
    "ring": _ring,
    "moon": _moon,
    "arrow": _polygon([(-1, -0.25), (0.15, -0.25), (0.15, -0.75), (1, 0), (0.15, 0.75), (0.15, 0.25), (-1, 0.25)]),
}
