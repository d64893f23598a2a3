"""Random scenes: what is drawn, where it lies, on what kind of paper."""

import math
from collections.abc import Sequence

import attrs
import numpy as np

from pydeper.drawing.colours import colour_name
from pydeper.drawing.shapes import SHAPES, Points
from training.tiny.world.colours import RGB, contrast, sample_background, sample_colour
from training.tiny.world.scenes import LARGE, ORDERS, SMALL, Scene, SceneObject

_CONTRAST = 0.22  # of objects and paper, see `contrast`
_GAP = 0.015  # of paper between the boxes of two objects, in shorter sides
_TRIES = 60

# How far apart two objects must lie in an order so that nobody would call it a tie, by the order's own measure.
_CLEAR = {"rightward": 0.08, "downward": 0.08}
_CLEAR_RATIO = 1.2  # of two extents; an extent keeps a quarter of that from the limits of "small" and "large"


@attrs.frozen
class Layout:
    """What scenes are drawn.

    Attributes:
        objects: Fewest and most objects.
        clear: Every order is beyond doubt: no two objects lie, in any of `ORDERS`, so close that people would differ;
            all shapes and colours are different, and no colour or size is close to the next name.
        outlined: Probability that of an object only the outline is drawn.
        extents: The smallest and the largest object, see `SceneObject.extent`.
        plain: Only the usual outlines, upright and filled, evenly drawn on light paper.
    """

    objects: tuple[int, int] = (1, 6)
    clear: bool = False
    outlined: float = 0.25
    extents: tuple[float, float] = (0.11, 0.46)
    plain: bool = False


CLEAR = Layout(objects=(4, 6), clear=True)
"""Scenes in which nobody could be in doubt what comes first."""


@attrs.frozen(eq=False)
class _Thing:
    """An object that has no place yet; its outline is centred on 0."""

    shape: str
    rgb: RGB
    extent: float
    polygons: tuple[Points, ...]
    outlined: bool


def sample_scene(rng: np.random.Generator, layout: Layout = CLEAR, canvas: tuple[float, float] | None = None) -> Scene:
    """Draws a random scene; where the paper has no room for as many objects, there are fewer.

    Args:
        rng: Source of randomness.
        layout: What it holds.
        canvas: Width and height of the picture in its shorter sides; at random by default.
    """
    canvas = sample_canvas(rng) if canvas is None else canvas
    count = int(rng.integers(layout.objects[0], layout.objects[1] + 1))
    while True:
        background = sample_background(rng, light=layout.plain)
        objects: list[SceneObject] = []
        for thing in _sample_things(rng, layout, canvas, background, count):
            placed = _place(rng, thing, canvas, objects, layout.clear)
            objects += [] if placed is None else [placed]
        if len(objects) >= layout.objects[0]:
            return Scene(tuple(objects), canvas, background, int(rng.integers(2**31)), layout.plain)


def sample_canvas(rng: np.random.Generator) -> tuple[float, float]:
    """Width and height of a picture in its shorter sides, from 1:2 to 2:1; often square or 4:3."""
    aspect = float(rng.choice([1.0, 4 / 3, 3 / 2])) if rng.random() < 0.5 else float(2 ** rng.uniform(0, 1))
    return (aspect, 1.0) if rng.random() < 0.6 else (1.0, aspect)


def _sample_things(
    rng: np.random.Generator, layout: Layout, canvas: tuple[float, float], background: tuple[RGB, RGB], count: int
) -> list[_Thing]:
    """What lies in a scene; in a clear one, shapes, names of colours and sizes all differ."""
    shapes = rng.choice(list(SHAPES), count, replace=not layout.clear)
    things: list[_Thing] = []
    for name, extent in zip(shapes, _sample_extents(rng, layout, canvas, count), strict=True):
        taken = {colour_name(thing.rgb) for thing in things} if layout.clear else set()
        rgb = sample_colour(rng, layout.clear)
        while colour_name(rgb) in taken or any(contrast(rgb, paper) < _CONTRAST for paper in background):
            rgb = sample_colour(rng, layout.clear)
        outlined = name != "ring" and not layout.plain and bool(rng.random() < layout.outlined)
        polygons = _sample_outline(rng, str(name), layout.plain)
        things.append(_Thing(str(name), rgb, extent, tuple(points * extent / 2 for points in polygons), outlined))
    return things


def _sample_extents(
    rng: np.random.Generator, layout: Layout, canvas: tuple[float, float], count: int
) -> Sequence[float]:
    smallest, largest = layout.extents
    largest = max(smallest, min(largest, 0.75 * (canvas[0] * canvas[1] / max(count, 1)) ** 0.5))  # leaves room
    gap = math.log(_CLEAR_RATIO) if layout.clear else 0.0
    room = math.log(largest / smallest) - gap * (count - 1)
    while True:
        ranks = rng.permutation(count)
        extents = smallest * np.exp(np.sort(rng.random(count))[ranks] * room + gap * ranks)
        if not layout.clear or all((np.abs(np.log(extents / limit)) > gap / 4).all() for limit in (SMALL, LARGE)):
            return [float(extent) for extent in extents]


def _sample_outline(rng: np.random.Generator, name: str, plain: bool) -> list[Points]:
    shape = SHAPES[name]
    if plain:
        return shape.polygons()
    angle = float(rng.choice(shape.turns) + np.clip(rng.normal(0, 7), -18, 18) * (rng.random() < 0.5))
    return shape.polygons(shape.usual if rng.random() < 0.3 else float(rng.uniform(*shape.proportion)), angle)


def _place(
    rng: np.random.Generator, thing: _Thing, canvas: tuple[float, float], others: Sequence[SceneObject], clear: bool
) -> SceneObject | None:
    """Puts an object where there is room for it; None where no such place was found."""
    half = np.abs(thing.polygons[0]).max(axis=0)
    taken = np.array([other.box for other in others]).reshape(-1, 2, 2) * canvas
    for _ in range(_TRIES):
        centre = half + 0.01 + rng.random(2) * (np.array(canvas) - 2 * half - 0.02)
        apart = (centre + half + _GAP < taken[:, 0]) | (taken[:, 1] + _GAP < centre - half)
        if not apart.any(axis=1).all():
            continue
        placed = SceneObject(
            shape=thing.shape,
            rgb=thing.rgb,
            centre=(float(centre[0]), float(centre[1])),
            extent=thing.extent,
            polygons=tuple(points + centre for points in thing.polygons),
            outlined=thing.outlined,
            canvas=canvas,
        )
        if not clear or _is_clearly_placed(placed, others):
            return placed
    return None


def _is_clearly_placed(thing: SceneObject, others: Sequence[SceneObject]) -> bool:
    return all(
        abs(ORDERS[order](thing) - ORDERS[order](other)) >= least for other in others for order, least in _CLEAR.items()
    )
