"""A picture of how somebody looked at an image."""

import math
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path
from pydeper.samples.boxes import Box
from pydeper.samples.trajectory import Trajectory

Color: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

# From first to last: blue, violet, red, orange, yellow; ever lighter, so that the order survives without colour.
_RAMP: tuple[Color, ...] = ((45, 90, 230), (140, 60, 220), (225, 55, 120), (250, 125, 45), (255, 215, 60))
_CASING = (15, 15, 25, 150)
_MIN_SIDE = 640
_MAX_SIDE = 4096
_MOST_APART = 200  # beyond this many fixations no number can be read anyway


def draw_trajectory(image: Image.Image, trajectory: Trajectory) -> Image.Image:
    """Draws fixations over an image: numbered boxes, joined in the order of looking.

    Colours run from blue (first) over red to yellow (last). The longer a fixation, the thicker its box and the larger
    its disc (area proportional to duration, down to the size that a number needs). Discs stand at the centres of their
    boxes, or next to each other where they would overlap. A small image is enlarged first, until the square root of its
    area is 640 pixels or its longer side 4096.

    Args:
        image: An upright RGB image, as `pydeper.images.open_image` returns it; it is left as it is.
        trajectory: The fixations; all of them are drawn.

    Returns:
        A new RGB image.
    """
    side = math.sqrt(image.width * image.height)
    scale = max(1.0, min(_MIN_SIDE / side, _MAX_SIDE / max(image.size)))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    # Pillow draws without anti-aliasing: draw larger and shrink, except where pixels are fine enough already.
    oversampling = 1 if max(size) > 2000 else 2 if max(size) > 1200 else 3
    layer = _layer(trajectory, (size[0] * oversampling, size[1] * oversampling)).resize(size, Image.Resampling.LANCZOS)
    picture.paste(layer, mask=layer)
    return picture


def save_picture(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    """Saves a picture in the format of the path's suffix; the file appears whole or not at all.

    Raises:
        InvalidArgumentError: The suffix is no image format's, or the file cannot be written.
    """
    path = Path(path)
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InvalidArgumentError(f"path {str(path)!r} does not end like an image file; end it in .png or .jpg")
    try:
        with atomic_path(path) as temporary:
            picture.save(temporary)
    except (OSError, ValueError) as error:  # some formats refuse an image of this mode or size
        raise InvalidArgumentError(
            f"path {str(path)!r} cannot be written ({error}); name a .png file in a folder that exists"
        ) from error


def _layer(trajectory: Trajectory, size: tuple[int, int]) -> Image.Image:
    layer = Image.new("RGBA", size)
    draw = ImageDraw.Draw(layer)
    count = len(trajectory)
    crowding = 0.5 + 0.5 * min(1.0, math.sqrt(8 / count))
    unit = math.sqrt(size[0] * size[1]) / 200 * crowding
    colors = [_color(i / max(1, count - 1)) for i in range(count)]
    boxes = [_pixels(fixation.box, size) for fixation in trajectory]
    longest = max(fixation.duration for fixation in trajectory)
    weights = [math.sqrt(fixation.duration / longest) for fixation in trajectory]
    radii = [unit * max(3.5, 6.5 * weight) for weight in weights]
    centers = _apart(boxes, radii, size)

    for box, color, weight in zip(boxes, colors, weights, strict=True):
        _draw_box(draw, box, color, width=unit * (0.5 + weight), unit=unit)
    for start, end, color in zip(centers, centers[1:], colors[1:], strict=False):
        _draw_line(draw, start, end, color, unit)
    for number, (center, color, radius) in enumerate(zip(centers, colors, radii, strict=True), start=1):
        _draw_disc(draw, center, color, radius, label=str(number), unit=unit)
    return layer


def _pixels(box: Box, size: tuple[int, int]) -> Box:
    right, bottom = size[0] - 1, size[1] - 1
    return box[0] * right, box[1] * bottom, box[2] * right, box[3] * bottom


def _apart(boxes: list[Box], radii: list[float], size: tuple[int, int]) -> list[Point]:
    """Centres for the discs: those of the boxes, moved apart where discs would hide each other's numbers."""
    reach = np.array(radii)
    corners = np.array(boxes)
    centers = (corners[:, :2] + corners[:, 2:]) / 2
    if len(boxes) <= _MOST_APART:
        turn = np.arange(len(boxes))  # discs at one point leave it in different directions
        centers += 0.01 * reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        touching = reach[:, None] + reach[None, :]
        np.fill_diagonal(touching, 0)
        for _ in range(60):
            between = centers[:, None] - centers[None, :]
            distance = np.linalg.norm(between, axis=2) + 1e-9
            overlap = np.maximum(touching - distance, 0)
            centers += 0.3 * (between * (overlap / distance)[:, :, None]).sum(axis=1)
            centers = np.clip(centers, 0, np.array(size) - 1)
    return [(x, y) for x, y in centers.tolist()]


def _color(position: float) -> Color:
    """The ramp's colour at `position` in [0, 1]."""
    step, rest = divmod(position * (len(_RAMP) - 1), 1)
    low, high = _RAMP[int(step)], _RAMP[min(int(step) + 1, len(_RAMP) - 1)]
    red, green, blue = (round(a + (b - a) * rest) for a, b in zip(low, high, strict=True))
    return red, green, blue


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, color: Color, width: float, unit: float) -> None:
    edge, radius = max(1, round(0.25 * unit)), 1.5 * unit
    thickness = max(1, round(width))
    x1, y1, x2, y2 = box
    outer = (x1 - edge, y1 - edge, x2 + edge, y2 + edge)
    draw.rounded_rectangle(outer, radius + edge, outline=_CASING, width=thickness + 2 * edge)
    draw.rounded_rectangle(box, radius, outline=color, width=thickness)


def _draw_line(draw: ImageDraw.ImageDraw, start: Point, end: Point, color: Color, unit: float) -> None:
    draw.line((start, end), fill=_CASING, width=max(3, round(1.1 * unit)))
    draw.line((start, end), fill=color, width=max(1, round(0.6 * unit)))


def _draw_disc(draw: ImageDraw.ImageDraw, center: Point, color: Color, radius: float, label: str, unit: float) -> None:
    edge = max(1.0, 0.25 * unit)
    draw.circle(center, radius + 2 * edge, fill=_CASING)
    draw.circle(center, radius + edge, fill="white")
    draw.circle(center, radius, fill=color)
    red, green, blue = color
    ink = "black" if 0.3 * red + 0.59 * green + 0.11 * blue > 140 else "white"
    font = ImageFont.load_default(max(1.0, radius * {1: 1.4, 2: 1.15}.get(len(label), 0.85)))
    draw.text(center, label, fill=ink, font=font, anchor="mm")
