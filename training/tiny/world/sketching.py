"""Fills and outlines as hands make them: strokes, hatching, the grain of crayons, uneven paint, thick outlines."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.tiny.world.colours import RGB

_Cover = NDArray[np.float64]  # (height, width), 0 to 1: how much of the paper the colour covers

_KINDS: Final = ("strokes", "strokes", "hatching", "grain", "paint", "even")


def sketched_fill(mask: Image.Image, extent: float, rng: np.random.Generator) -> Image.Image:
    """Mostly thins a fill out, so that the paper shows through.

    Args:
        mask: Where the fill is, as a picture of one channel.
        extent: Of the object, in pixels.
        rng: Source of randomness.
    """
    kind = rng.choice(_KINDS)
    if kind == "even":
        return mask
    if kind == "grain":
        cover = _grain(mask.size, extent, rng)
    elif kind == "paint":
        cover = np.clip(rng.uniform(0.7, 0.95) + rng.uniform(0.05, 0.2) * _smooth(mask.size, (4, 4), rng), 0.5, 1.0)
    else:
        cover = _strokes(mask.size, extent, 2 if kind == "hatching" else 1, rng)
    return Image.fromarray((np.asarray(mask) * cover).astype(np.uint8))


def sketched_outlines(rgb: RGB, extent: float, rng: np.random.Generator) -> list[tuple[RGB, float]]:
    """The colours and widths in pixels of the outlines around a sketched fill: often its own, at times a thick one."""
    outlines = []
    if rng.random() < 0.8:
        outlines.append((rgb, max(rng.uniform(0.02, 0.07) * extent, 1.0)))
    if rng.random() < 0.35:
        width = max(rng.uniform(0.02, 0.1) * extent, 1.0)
        darkest, lightest = (215, 256) if rng.random() < 0.2 else (0, 50)
        red, green, blue = (int(channel) for channel in rng.integers(darkest, lightest, 3))
        outlines.append(((red, green, blue), width))
    return outlines


def _grain(size: tuple[int, int], extent: float, rng: np.random.Generator) -> _Cover:
    pitch = int(rng.integers(1, max(2, round(extent / 25)) + 1))
    points = (size[1] // pitch + 2, size[0] // pitch + 2)
    covered = _smooth(size, points, rng) < rng.uniform(-0.2, 1.2)
    return np.where(covered, rng.uniform(0.8, 1.0), 0.0)


def _strokes(size: tuple[int, int], extent: float, directions: int, rng: np.random.Generator) -> _Cover:
    width, height = size
    pitch = max(rng.uniform(0.04, 0.16) * extent, 2.0)
    thick, crooked = rng.uniform(0.25, 0.75) * pitch, rng.uniform(0, 0.06) * extent * (rng.random() < 0.6)
    first = rng.uniform(0, np.pi)
    cover = np.zeros((height, width))
    for angle in (first, first + rng.uniform(0.8, 2.3))[:directions]:
        across = np.arange(width)[None] * np.sin(angle) + np.arange(height)[:, None] * np.cos(angle)
        away = np.abs((across + crooked * _smooth(size, (5, 5), rng)) % pitch - pitch / 2)
        cover = np.maximum(cover, np.clip(thick / 2 - away + 0.5, 0, 1))
    return cover


def _smooth(size: tuple[int, int], points: tuple[int, int], rng: np.random.Generator) -> _Cover:
    """Normal noise at so many points down and across, and smooth between them: (height, width)."""
    noise = Image.fromarray(rng.normal(size=points).astype(np.float32))
    return np.asarray(noise.resize(size, Image.Resampling.BICUBIC), float)
