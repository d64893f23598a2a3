"""The tiny world's scenes: coloured shapes on paper, and the orders in which one can go through them."""

from collections.abc import Callable

import attrs

from pydeper.drawing.colours import colour_name
from pydeper.drawing.shapes import Points
from training.tiny.world.colours import RGB

MAX_MENTIONED = 6  # objects of a scene that people talk about
# From where on an object is large, and up to where it is small: the longer side of its box, in shorter sides of the
# picture. Between the two, nothing is said about its size.
SMALL, LARGE = 0.17, 0.26
WARMTH = ("red", "orange", "yellow", "pink", "brown", "white", "grey", "black", "purple", "green", "blue")


@attrs.frozen(eq=False)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: One of `pydeper.drawing.shapes.SHAPES`.
        rgb: Its colour.
        centre: Centre x, y of its box, in shorter sides of the picture.
        extent: Longer side of its box, in shorter sides of the picture.
        polygons: Its outline, in shorter sides of the picture; after the first, holes.
        outlined: Whether only the outline is drawn.
        canvas: Width and height of the picture, in shorter sides.
    """

    shape: str
    rgb: RGB
    centre: tuple[float, float]
    extent: float
    polygons: tuple[Points, ...]
    outlined: bool
    canvas: tuple[float, float]

    @property
    def colour(self) -> str:
        """Name of its colour."""
        return colour_name(self.rgb)

    @property
    def size(self) -> str:
        """Whether it is "small" or "large" or, between them, "medium"."""
        return "small" if self.extent <= SMALL else "large" if self.extent >= LARGE else "medium"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Bounding box (x1, y1, x2, y2), normalised to the picture."""
        low, high = self.polygons[0].min(axis=0) / self.canvas, self.polygons[0].max(axis=0) / self.canvas
        return (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


# Each order sorts the objects of a scene by a number, and compares objects with each other alone. "Clockwise" or "from
# the middle outwards" would ask where in the picture an object lies. That a Qwen2-VL's vision tower cannot know: its
# rotary embedding tells how far patches lie apart, and on even paper nothing else tells one place from another.
ORDERS: dict[str, Callable[[SceneObject], float]] = {
    "rightward": lambda o: o.centre[0],
    "leftward": lambda o: -o.centre[0],
    "downward": lambda o: o.centre[1],
    "upward": lambda o: -o.centre[1],
    "largest": lambda o: -o.extent,
    "smallest": lambda o: o.extent,
    "warmest": lambda o: WARMTH.index(o.colour),
    "coolest": lambda o: -WARMTH.index(o.colour),
}


@attrs.frozen(eq=False)
class Scene:
    """Objects on paper, and how they are drawn: evenly, or in a way that the seed tells (see `rendering`).

    `sketched` says that fills are made by hand: of strokes, grain or uneven paint, through which the paper shows.
    """

    objects: tuple[SceneObject, ...]
    canvas: tuple[float, float]
    background: tuple[RGB, RGB]
    seed: int
    plain: bool = False
    sketched: bool = False

    def ranked(self, order: str) -> list[SceneObject]:
        """The objects in one of `ORDERS`; ties go from left to right."""
        key = ORDERS[order]
        return sorted(self.objects, key=lambda thing: (key(thing), thing.centre))
