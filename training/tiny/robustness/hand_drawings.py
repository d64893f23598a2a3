"""Drawings as hands make them: crooked outlines, hatched fillings, watercolour, on lined or photographed paper.

A shape is the SVG drawing of it, bent by a smooth random field; then it is filled in one of the styles below. Lengths
are fractions of a shape's side.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from training.tiny.robustness.drawings import Drawing, DrawnShape, Renderer
from training.tiny.robustness.foreign_drawings import SVG_SHAPES, render_svg

_Canvas: TypeAlias = NDArray[np.float64]  # (height, width, 3), 0 to 255
_Mask: TypeAlias = NDArray[np.float64]  # (height, width), 0 to 1: how much of a pixel is covered
_Paint: TypeAlias = Callable[[_Canvas, "_Shape", np.random.Generator], _Canvas]

_FINER = 2  # drawn so many times as large, and then made smaller, which smooths the edges
_DARK = np.array((25.0, 25.0, 25.0))
_LIGHT_PAPERS = ("#ffffff", "#ffffff", "#faf3e0", "#f4f1ea")


@attrs.frozen
class _Shape:
    """A shape to fill: where it is, its colour, and its side in pixels."""

    mask: _Mask
    rgb: NDArray[np.float64]
    side: float


def _draw(paint: _Paint, bend: float, drawing: Drawing) -> Image.Image:
    """Draws in one style.

    Args:
        paint: Adds a shape to the canvas.
        bend: How far outlines stray.
        drawing: What to draw; it decides what is random as well.
    """
    rng = np.random.default_rng([round(1000 * thing.left) for thing in drawing.shapes])
    canvas = _paper(drawing, rng)
    for thing in drawing.shapes:
        side = _FINER * thing.side
        mask = _bent(_mask(drawing, thing), bend * side, rng)
        canvas = paint(canvas, _Shape(mask, np.array(thing.rgb, float), side), rng)
    pixels = canvas.clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize(drawing.size, Image.Resampling.LANCZOS)


def _mask(drawing: Drawing, thing: DrawnShape) -> _Mask:
    scale = _FINER * thing.side / 100
    place = f"translate({_FINER * thing.left} {_FINER * thing.top}) scale({scale})"
    width, height = drawing.size
    body = f'<g fill="#ffffff" transform="{place}">{SVG_SHAPES[thing.shape]}</g>'
    return np.asarray(render_svg((_FINER * width, _FINER * height), "#000000", body).convert("L"), float) / 255


def _bent(mask: _Mask, far: float, rng: np.random.Generator) -> _Mask:
    """Moves every point of a mask by a smooth random field."""
    height, width = mask.shape
    down, across = (far * _smooth(mask.shape, max(8 * far, 1.0), rng) for _ in range(2))
    rows = (np.arange(height)[:, None] + down).round().astype(int).clip(0, height - 1)
    columns = (np.arange(width)[None, :] + across).round().astype(int).clip(0, width - 1)
    bent: _Mask = mask[rows, columns]
    return bent


def _smooth(shape: tuple[int, ...], wavelength: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random numbers (height, width) of deviation about 1 that change slowly from point to point."""
    height, width = shape
    coarse = rng.normal(size=(int(height / wavelength) + 3, int(width / wavelength) + 3)).astype(np.float32)
    field = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(field, float)


def _paper(drawing: Drawing, rng: np.random.Generator) -> _Canvas:
    """Plain, lined, squared, or photographed: darker to one side, with noise."""
    width, height = (_FINER * side for side in drawing.size)
    canvas = np.broadcast_to(np.array(drawing.paper, float), (height, width, 3)).copy()
    kind = rng.choice(["plain", "lined", "squared", "photographed"])
    pitch = int(rng.uniform(0.05, 0.09) * height)
    if kind in ("lined", "squared"):
        rows, columns = np.arange(height) % pitch < 3, np.arange(width) % pitch < 2
        canvas[rows] = (195, 212, 238)
        if kind == "squared":
            canvas[:, columns] = (205, 220, 240)
    if kind == "photographed":
        shade = np.linspace(1, 0.82, width)[None, :] * np.linspace(1, 0.93, height)[:, None]
        canvas *= shade[..., None]
        canvas += rng.normal(0, 5, (height, width, 1))
    return canvas


def _over(canvas: _Canvas, mask: _Mask, rgb: NDArray[np.float64]) -> _Canvas:
    """Lays a colour (3,) or (height, width, 3) over what is there."""
    cover = mask[..., None]
    return canvas * (1 - cover) + rgb * cover


def _blurred(mask: _Mask, far: float) -> _Mask:
    image = Image.fromarray((255 * mask).astype(np.uint8)).filter(ImageFilter.GaussianBlur(far))
    return np.asarray(image, float) / 255


def _edge(shape: _Shape, thick: float) -> _Mask:
    """A line along the outline, half of it inside: where the blurred mask is neither in nor out."""
    blurred = _blurred(shape.mask, 0.4 * thick * shape.side)
    return (np.abs(blurred - 0.5) < 0.35).astype(float)


def _strokes(shape: _Shape, pitch: float, thick: float, crooked: float, rng: np.random.Generator) -> _Mask:
    """Parallel strokes across a shape."""
    height, width = shape.mask.shape
    angle = rng.uniform(0.3, 1.2)
    across = np.arange(width)[None, :] * np.sin(angle) + np.arange(height)[:, None] * np.cos(angle)
    across = across + crooked * shape.side * _smooth(shape.mask.shape, 0.5 * shape.side, rng)
    inside: _Mask = shape.mask * (across % (pitch * shape.side) < thick * shape.side)
    return inside


# --- the styles; each lays a shape over the canvas


def _even(canvas: _Canvas, shape: _Shape, _rng: np.random.Generator) -> _Canvas:
    return _over(canvas, shape.mask, shape.rgb)


def _dark_outline(canvas: _Canvas, shape: _Shape, rng: np.random.Generator) -> _Canvas:
    return _over(_even(canvas, shape, rng), _edge(shape, 0.05), _DARK)


def _outline(canvas: _Canvas, shape: _Shape, _rng: np.random.Generator) -> _Canvas:
    return _over(canvas, _edge(shape, 0.08), shape.rgb)


def _filled_with_strokes(
    pitch: float, thick: float, crooked: float, canvas: _Canvas, shape: _Shape, rng: np.random.Generator
) -> _Canvas:
    filled = _over(canvas, _strokes(shape, pitch, thick, crooked, rng), shape.rgb)
    return _over(filled, _edge(shape, 0.05), shape.rgb)


def _marker(canvas: _Canvas, shape: _Shape, rng: np.random.Generator) -> _Canvas:
    """Broad strokes that overlap, where the colour is deeper."""
    filled = _over(canvas, 0.85 * shape.mask, shape.rgb)
    return _over(filled, 0.8 * _strokes(shape, 0.1, 0.03, 0.02, rng), 0.85 * shape.rgb)


def _crayon(canvas: _Canvas, shape: _Shape, rng: np.random.Generator) -> _Canvas:
    """The paper's grain shows through."""
    grain = _smooth(shape.mask.shape, 3.0, rng) < 0.9
    return _over(canvas, 0.95 * shape.mask * grain, shape.rgb)


def _watercolour(canvas: _Canvas, shape: _Shape, rng: np.random.Generator) -> _Canvas:
    depth = (0.83 + 0.08 * _smooth(shape.mask.shape, 0.4 * shape.side, rng)).clip(0.65, 1)
    return _over(canvas, _blurred(shape.mask, 0.02 * shape.side) * depth, shape.rgb)


def _shadow(canvas: _Canvas, shape: _Shape, rng: np.random.Generator) -> _Canvas:
    right, down = int(0.06 * shape.side), int(0.08 * shape.side)
    shadow = _blurred(np.roll(shape.mask, (down, right), (0, 1)), 0.04 * shape.side)
    return _even(_over(canvas, 0.4 * shadow, np.zeros(3)), shape, rng)


def _gloss(canvas: _Canvas, shape: _Shape, _rng: np.random.Generator) -> _Canvas:
    """Lighter above, darker below."""
    rows = np.flatnonzero(shape.mask.any(axis=1))
    down = ((np.arange(len(shape.mask)) - rows[0]) / (rows[-1] - rows[0] + 1)).clip(0, 1)[:, None, None]
    shaded = shape.rgb + (255 - shape.rgb) * 0.35 * (1 - down) - shape.rgb * 0.15 * down
    return _over(canvas, shape.mask, shaded)


_CROOKED = 0.02  # how far a hand's outlines stray
_STYLES: dict[str, tuple[_Paint, float]] = {
    "crooked": (_even, _CROOKED),
    "dark outlines": (_dark_outline, _CROOKED),
    "outlines alone": (_outline, _CROOKED),
    "marker": (_marker, _CROOKED),
    "crayon": (_crayon, _CROOKED),
    "scribbled": (partial(_filled_with_strokes, 0.08, 0.05, 0.03), _CROOKED),
    "hatched": (partial(_filled_with_strokes, 0.08, 0.03, 0.0), _CROOKED),
    "watercolour": (_watercolour, _CROOKED),
    "shadows": (_shadow, 0.0),
    "gloss": (_gloss, 0.0),
}
STYLES = {
    name: Renderer(partial(_draw, paint, bend), tuple(SVG_SHAPES), _LIGHT_PAPERS)
    for name, (paint, bend) in _STYLES.items()
}
"""By what a report calls them."""
