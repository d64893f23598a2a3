"""Colours of objects and of paper."""

import colorsys

import numpy as np
from PIL import ImageColor

from pydeper.drawing.colours import COLOURS, colour_name

RGB = tuple[int, int, int]


def sample_background(rng: np.random.Generator, *, light: bool = False) -> tuple[RGB, RGB]:
    """Colours of opposite ends of the paper; mostly the same. With `light`, always the same and nearly white."""
    if light:
        paper = _rgb(rng.random(), rng.uniform(0.0, 0.1), rng.uniform(0.93, 1.0))
        return paper, paper
    kind = rng.random()
    if kind < 0.3:
        first = (255, 255, 255)
    elif kind < 0.55:
        first = _rgb(rng.random(), rng.uniform(0.0, 0.2), rng.uniform(0.85, 1.0))
    elif kind < 0.7:
        first = _rgb(rng.random(), rng.uniform(0.0, 0.9), rng.uniform(0.0, 0.25))
    else:
        first = _rgb(rng.random(), rng.uniform(0.0, 1.0), rng.uniform(0.2, 1.0))
    if rng.random() > 0.15:
        return first, first
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in first))
    shifted = np.clip([saturation + rng.normal(0, 0.15), value + rng.normal(0, 0.2)], 0, 1)
    return first, _rgb((hue + rng.normal(0, 0.05)) % 1, *shifted)


def contrast(first: RGB, second: RGB) -> float:
    """How different two colours look, 0 to about 1: a weighted distance in RGB."""
    difference = (np.array(first, float) - second) / 255
    mean_red = (first[0] + second[0]) / 510
    weights = np.array([2 + mean_red, 4, 3 - mean_red]) / 9
    return float(np.sqrt((weights * difference**2).sum()))


def sample_colour(rng: np.random.Generator, clear: bool) -> RGB:
    """A colour, each name equally often; with `clear`, none that is close to the next name."""
    name = str(rng.choice(list(COLOURS)))
    while True:
        if rng.random() < 0.5:
            anchors = _ANCHORS[name]
            base = np.array(anchors[int(rng.integers(len(anchors)))]) + rng.normal(0, 8, 3)
            red, green, blue = (int(channel) for channel in np.clip(base, 0, 255))
            colour = (red, green, blue)
        else:
            colour = _rgb(*(rng.random(3) ** (1.0, 0.7, 0.7)))
            if name in ("white", "black", "grey"):
                colour = _rgb(rng.random(), rng.uniform(0, 0.1), rng.random())
        if colour_name(colour) == name and (not clear or _is_clear_colour(colour, name)):
            return colour


def _is_clear_colour(colour: RGB, name: str) -> bool:
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    steps = ((0.02, 0, 0), (-0.02, 0, 0), (0, 0.07, 0), (0, -0.07, 0), (0, 0, 0.07), (0, 0, -0.07))
    return all(
        colour_name(_rgb((hue + h) % 1, min(max(saturation + s, 0), 1), min(max(value + v, 0), 1))) == name
        for h, s, v in steps
    )


def _rgb(hue: float, saturation: float, value: float) -> RGB:
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value))
    return (red, green, blue)


def _anchors() -> dict[str, list[RGB]]:
    """The named colours of CSS under the names that they have here; the ones that people take most come most often."""
    anchors: dict[str, list[RGB]] = {name: [rgb, _css(name)] * 3 for name, rgb in COLOURS.items()}
    for css in ImageColor.colormap:
        anchors[colour_name(_css(css))].append(_css(css))
    return anchors


def _css(name: str) -> RGB:
    red, green, blue = ImageColor.getrgb(name)[:3]
    return (red, green, blue)


_ANCHORS = _anchors()
