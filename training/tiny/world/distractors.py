"""Things in pictures that are no shapes: writing, lines, scribbles, frames, clouds, stripes."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.tiny.world.colours import RGB, contrast

_LETTERS = list("abcdefghijkmnpqrstuvwyzABCDEFGHJKLMNPQRSTUVWYZ23456789")
_Box = tuple[float, float, float, float]


def draw_distractors(
    image: Image.Image, count: int, background: tuple[RGB, RGB], taken: Sequence[_Box], rng: np.random.Generator
) -> None:
    """Draws `count` random things beside the boxes in `taken`; where nothing is taken, sometimes over all the image."""
    if count and not taken and rng.random() < 0.4:
        _EVERYWHERE[int(rng.integers(len(_EVERYWHERE)))](image, rng)
        return
    for _ in range(count):
        colour = _visible(background, rng)
        thing = _THINGS[int(rng.integers(len(_THINGS)))]
        if thing is _frame:
            _frame(image, (0, 0, *image.size), colour, rng)
        elif (place := _free_place(image.size, taken, rng)) is not None:
            thing(image, place, colour, rng)


def _visible(background: tuple[RGB, RGB], rng: np.random.Generator) -> RGB:
    while True:
        red, green, blue = (int(channel) for channel in rng.integers(0, 256, 3))
        if contrast((red, green, blue), background[0]) > 0.2:
            return (red, green, blue)


def _free_place(
    size: tuple[int, int], taken: Sequence[_Box], rng: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """A box in pixels that touches none of the taken ones."""
    for _ in range(20):
        width, height = rng.uniform(0.12, 0.5), rng.uniform(0.06, 0.3)
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        if all(
            x + width < x1 - 0.02 or x2 + 0.02 < x or y + height < y1 - 0.02 or y2 + 0.02 < y
            for x1, y1, x2, y2 in taken
        ):
            left, top = int(x * size[0]), int(y * size[1])
            return (left, top, left + max(int(width * size[0]), 4), top + max(int(height * size[1]), 4))
    return None


def _writing(image: Image.Image, box: tuple[int, int, int, int], colour: RGB, rng: np.random.Generator) -> None:
    height = int(np.clip((box[3] - box[1]) * rng.uniform(0.3, 1.0), 7, 40))
    font = ImageFont.load_default(height)
    fits = max(3, int((box[2] - box[0]) / (0.55 * height)))
    letters = [str(letter) for letter in rng.choice(_LETTERS, size=min(fits, 14))]
    if fits > 6:
        letters[int(rng.integers(2, len(letters) - 1))] = " "
    ImageDraw.Draw(image).text((box[0], box[1]), "".join(letters), fill=colour, font=font)


def _lines(image: Image.Image, box: tuple[int, int, int, int], colour: RGB, rng: np.random.Generator) -> None:
    pen, width = ImageDraw.Draw(image), max(1, round(min(image.size) * rng.uniform(0.003, 0.012)))
    for _ in range(int(rng.integers(1, 4))):
        ends = rng.uniform((box[0], box[1]), (box[2], box[3]), (2, 2))
        pen.line([tuple(end) for end in ends.tolist()], fill=colour, width=width)


def _scribble(image: Image.Image, box: tuple[int, int, int, int], colour: RGB, rng: np.random.Generator) -> None:
    turns = rng.uniform((box[0], box[1]), (box[2], box[3]), (int(rng.integers(5, 10)), 2))
    t = np.linspace(0, len(turns) - 1, 80)
    smooth = np.stack([np.interp(t, np.arange(len(turns)), turns[:, axis]) for axis in (0, 1)], axis=1)
    kernel = np.ones(7) / 7
    smooth = np.stack([np.convolve(smooth[:, axis], kernel, "valid") for axis in (0, 1)], axis=1)
    width = max(1, round(min(image.size) * rng.uniform(0.003, 0.015)))
    ImageDraw.Draw(image).line([tuple(point) for point in smooth.tolist()], fill=colour, width=width)


def _frame(image: Image.Image, box: tuple[int, int, int, int], colour: RGB, rng: np.random.Generator) -> None:
    """A frame around the picture, or the axes of a plot with their ticks."""
    pen, side = ImageDraw.Draw(image), min(image.size)
    margin, width = side * rng.uniform(0.0, 0.03), max(1, round(side * 0.005))
    left, top, right, bottom = margin, margin, box[2] - 1 - margin, box[3] - 1 - margin
    pen.rectangle((left, top, right, bottom), outline=colour, width=width)
    if rng.random() < 0.5:
        for part in np.linspace(0, 1, int(rng.integers(4, 8))):
            x, y = left + part * (right - left), top + part * (bottom - top)
            pen.line((x, bottom, x, bottom - 0.02 * side), fill=colour, width=width)
            pen.line((left, y, left + 0.02 * side, y), fill=colour, width=width)


def _clouds(image: Image.Image, rng: np.random.Generator) -> None:
    """Soft colours without outlines, like a photograph out of focus, with details down to single pixels."""
    width, height = image.size
    total = np.zeros((height, width, 3))
    strength, side = 1.0, 3
    while side < max(image.size):
        noise = rng.normal(0, 1, (side, side, 3)) * (0.4, 0.4, 0.4) + rng.normal(0, 1, (side, side, 1))
        layer = [
            np.asarray(Image.fromarray(noise[..., c].astype(np.float32)).resize(image.size, Image.Resampling.BICUBIC))
            for c in range(3)
        ]
        total += strength * np.stack(layer, axis=-1)
        strength *= rng.uniform(0.4, 0.8)
        side *= 2
    pixels = 127 + 55 * total + rng.normal(0, 30, 3)
    image.paste(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))


def _stripes(image: Image.Image, rng: np.random.Generator) -> None:
    pen = ImageDraw.Draw(image)
    colours = [tuple(int(c) for c in rng.integers(0, 256, 3)) for _ in range(2)]
    step = max(2, int(min(image.size) * rng.uniform(0.02, 0.15)))
    slope = int(rng.integers(-image.size[1], image.size[1] + 1))
    for number, x in enumerate(range(-abs(slope), image.size[0] + abs(slope), step)):
        pen.line((x, 0, x + slope, image.size[1]), fill=colours[number % 2], width=step + 1)


def _page_of_text(image: Image.Image, rng: np.random.Generator) -> None:
    paper = int(rng.integers(225, 256))
    image.paste((paper, paper, paper), (0, 0, *image.size))
    height = int(np.clip(min(image.size) * rng.uniform(0.04, 0.09), 7, 30))
    for y in range(height, image.size[1] - height, int(height * 1.5)):
        box = (height, y, int(image.size[0] * rng.uniform(0.5, 0.95)), y + height)
        _writing(image, box, (30, 30, 30), rng)


_Thing = Callable[[Image.Image, tuple[int, int, int, int], RGB, np.random.Generator], None]
_THINGS: tuple[_Thing, ...] = (_writing, _writing, _lines, _scribble, _frame)
_EVERYWHERE: tuple[Callable[[Image.Image, np.random.Generator], None], ...] = (
    _clouds,
    _clouds,
    _stripes,
    _page_of_text,
)
