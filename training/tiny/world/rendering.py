"""How scenes are drawn: by many hands, on many papers, and passed on in many qualities.

No two scenes are drawn alike: edges are smooth or jagged, lines steady or trembling, fills even, shaded or bordered,
the paper plain or grainy, and the picture is blurred, compressed or scaled on its way. A model that learns from them
learns shapes, not the pixels of one renderer. A sketched scene is drawn as it would be otherwise, but for its fills.
"""

import io
import math
from collections.abc import Sequence

import attrs
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pydeper.drawing.shapes import Points
from training.tiny.world.colours import RGB
from training.tiny.world.distractors import draw_distractors
from training.tiny.world.scenes import Scene, SceneObject
from training.tiny.world.sketching import sketched_fill, sketched_outlines

_SHORTER_SIDES = (64, 400)
_SMALLEST = 16  # pixels of the smallest object: below, nobody could tell shapes apart


@attrs.frozen
class Style:
    """One way of drawing.

    Attributes:
        shorter_side: Of the picture, in pixels.
        smooth: How many times finer than the picture outlines are drawn; 1 leaves jagged edges.
        tremble: How far outlines stray, in halves of an object's extent.
        stroke: Width of outlines, in halves of an object's extent.
        border: How filled objects are bordered: not at all, in a darker or lighter shade, or in one colour.
        shade: How much fills brighten or darken from one side to the other.
        grain: Standard deviation of the paper's grain, in shades of 255.
        blur: Radius of the blur, in thousandths of the shorter side.
        quality: JPEG quality; None leaves the pixels as they are.
        distractors: How many things lie about that are no shapes.
    """

    shorter_side: int
    smooth: int
    tremble: float
    stroke: float
    border: str
    shade: float
    grain: float
    blur: float
    quality: int | None
    distractors: int


PLAIN = Style(160, 3, 0.0, 0.1, "none", 0.0, 0.0, 0.0, None, 0)


def sample_style(rng: np.random.Generator, distractors: bool = True) -> Style:
    """A random way of drawing."""
    low, high = _SHORTER_SIDES
    often = rng.random(8)
    return Style(
        shorter_side=round(low * (high / low) ** float(rng.random())),
        smooth=1 if often[0] < 0.3 else 3,
        tremble=float(rng.uniform(0.01, 0.04)) if often[1] < 0.3 else 0.0,
        stroke=float(rng.uniform(0.06, 0.2)),
        border="none" if often[2] < 0.6 else str(rng.choice(["shade", "black", "white"])),
        shade=float(rng.uniform(-0.15, 0.15)) if often[3] < 0.2 else 0.0,
        grain=float(rng.uniform(1, 9)) if often[4] < 0.3 else 0.0,
        blur=float(rng.uniform(1, 6)) if often[5] < 0.25 else 0.0,
        quality=int(rng.integers(35, 95)) if often[6] < 0.35 else None,
        distractors=int(rng.integers(1, 4)) if distractors and often[7] < 0.12 else 0,
    )


def render(scene: Scene, shorter_side: int | None = None) -> Image.Image:
    """Draws a scene as an RGB image; the same scene is always drawn alike.

    Args:
        scene: What is drawn.
        shorter_side: In pixels; by default, what the scene's way of drawing says.
    """
    rng = np.random.default_rng(scene.seed)
    empty = not scene.objects
    style = PLAIN if scene.plain else sample_style(rng)
    if empty and not scene.plain and rng.random() < 0.7:
        style = attrs.evolve(style, distractors=int(rng.integers(1, 6)))
    if shorter_side is not None:
        style = attrs.evolve(style, shorter_side=shorter_side)
    smallest = min((thing.extent for thing in scene.objects), default=1.0)
    scale = max(style.shorter_side, math.ceil(_SMALLEST / smallest))
    size = (max(round(scene.canvas[0] * scale), 1), max(round(scene.canvas[1] * scale), 1))
    image = _paper(size, scene.background, style, rng)
    draw_distractors(image, style.distractors, scene.background, [thing.box for thing in scene.objects], rng)
    hand = np.random.default_rng([scene.seed, 1]) if scene.sketched else None  # leaves `rng` to draw the rest alike
    for thing in scene.objects:
        _draw_object(image, thing, scale, style, rng, hand)
    return _pass_on(image, style, rng)


def _paper(size: tuple[int, int], background: tuple[RGB, RGB], style: Style, rng: np.random.Generator) -> Image.Image:
    first, second = background
    image = Image.new("RGB", size, first)
    if first != second:
        ramp = Image.linear_gradient("L").rotate(90 * int(rng.integers(4))).resize(size)
        image.paste(Image.new("RGB", size, second), mask=ramp)
    if style.grain:
        width, height = size
        coarse = int(rng.integers(1, 4))
        grain = rng.normal(0, style.grain, (height // coarse + 1, width // coarse + 1, 1))
        grain = grain.repeat(coarse, 0).repeat(coarse, 1)[:height, :width]
        image = Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
    return image


def _draw_object(
    image: Image.Image,
    thing: SceneObject,
    scale: float,
    style: Style,
    rng: np.random.Generator,
    hand: np.random.Generator | None,
) -> None:
    """Draws an object: by hand, as far as its fill goes, where there is randomness for a hand."""
    polygons = [_trembling(points, thing, style, rng) * scale for points in thing.polygons]
    stroke = max(style.stroke * thing.extent / 2 * scale, 1.5)
    low = np.floor(polygons[0].min(axis=0) - stroke - 1).astype(int)
    high = np.ceil(polygons[0].max(axis=0) + stroke + 1).astype(int)
    fine = [(points - low) * style.smooth for points in polygons]
    size = (int(high[0] - low[0]), int(high[1] - low[1]))
    colour = _fill(size, thing.rgb, style, rng)
    if thing.outlined:
        _paste(image, colour, _stroke(fine, size, stroke, style.smooth), low)
        return
    filled = _filled(fine, size, style.smooth)
    outlines = []
    if style.border != "none":
        width = max(min(stroke, 0.08 * thing.extent * scale) * 0.6, 1.0)
        outlines.append((_border_colour(thing.rgb, style.border, rng), width))
    if hand is not None:
        filled = sketched_fill(filled, thing.extent * scale, hand)
        outlines += sketched_outlines(thing.rgb, thing.extent * scale, hand)
    _paste(image, colour, filled, low)
    for edge, width in outlines:
        _paste(image, Image.new("RGB", size, edge), _stroke(fine, size, width, style.smooth), low)


def _trembling(points: Points, thing: SceneObject, style: Style, rng: np.random.Generator) -> Points:
    """The outline as an unsteady hand draws it: finely divided, and moved by smooth noise."""
    if not style.tremble:
        return points
    closed = np.concatenate([points, points[:1]])
    steps = max(1, round(48 / len(points)))
    parts = np.arange(steps) / steps
    fine = (closed[:-1, None] * (1 - parts)[:, None] + closed[1:, None] * parts[:, None]).reshape(-1, 2)
    angles = np.linspace(0, 2 * np.pi, len(fine), endpoint=False)
    waves = np.arange(2, 7)
    phases = rng.uniform(0, 2 * np.pi, (2, len(waves)))
    strengths = rng.normal(0, 1, (2, len(waves))) / len(waves) ** 0.5
    noise = (strengths[..., None] * np.sin(waves[:, None] * angles + phases[..., None])).sum(axis=1).T
    moved: Points = fine + style.tremble * thing.extent / 2 * noise
    return moved


def _filled(polygons: Sequence[Points], size: tuple[int, int], smooth: int) -> Image.Image:
    mask = Image.new("L", (size[0] * smooth, size[1] * smooth))
    pen = ImageDraw.Draw(mask)
    for number, points in enumerate(polygons):
        pen.polygon([(x, y) for x, y in points], fill=0 if number else 255)
    return mask.reduce(smooth) if smooth > 1 else mask


def _stroke(polygons: Sequence[Points], size: tuple[int, int], width: float, smooth: int) -> Image.Image:
    mask = Image.new("L", (size[0] * smooth, size[1] * smooth))
    pen = ImageDraw.Draw(mask)
    for points in polygons:
        line = [(x, y) for x, y in np.concatenate([points, points[:2]])]
        pen.line(line, fill=255, width=max(round(width * smooth), 1), joint="curve")
    return mask.reduce(smooth) if smooth > 1 else mask


def _fill(size: tuple[int, int], rgb: RGB, style: Style, rng: np.random.Generator) -> Image.Image:
    if not style.shade:
        return Image.new("RGB", size, rgb)
    width, height = size
    direction = rng.uniform(0, 2 * np.pi)
    ramp = np.cos(direction) * np.linspace(-1, 1, width)[None] + np.sin(direction) * np.linspace(-1, 1, height)[:, None]
    pixels = np.array(rgb) * (1 + style.shade / 2 * ramp[..., None])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _border_colour(rgb: RGB, border: str, rng: np.random.Generator) -> RGB:
    if border == "shade":
        factor = rng.uniform(0.4, 0.75)
        return tuple(int(channel * factor) for channel in rgb)  # type: ignore[return-value]
    return (0, 0, 0) if border == "black" else (255, 255, 255)


def _paste(image: Image.Image, colour: Image.Image, mask: Image.Image, corner: np.ndarray) -> None:
    image.paste(colour, (int(corner[0]), int(corner[1])), mask)


def _pass_on(image: Image.Image, style: Style, rng: np.random.Generator) -> Image.Image:
    """What happens to pictures on their way: blur, compression."""
    if style.blur:
        image = image.filter(ImageFilter.GaussianBlur(style.blur / 1000 * min(image.size)))
    if style.quality is not None:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=style.quality)
        image = Image.open(stream).convert("RGB")
    return image
