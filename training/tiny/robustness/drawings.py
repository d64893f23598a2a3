"""Drawings to try a model with: shapes that lie apart on paper, whoever draws them."""

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np
from PIL import Image

from pydeper.drawing.colours import colour_name
from training.tiny.world.colours import RGB, contrast

# Colours as people type them: names of CSS and of matplotlib's palette.
_COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("#ff0000", "#d62728", "#dc143c"),
    "orange": ("#ffa500", "#ff7f0e", "#ff8c00"),
    "yellow": ("#ffff00", "#ffd700", "#f0d000"),
    "green": ("#008000", "#2ca02c", "#32cd32", "#00ff00"),
    "blue": ("#0000ff", "#1f77b4", "#4169e1", "#00bfff"),
    "purple": ("#800080", "#9467bd", "#6a0dad"),
    "pink": ("#ffc0cb", "#e377c2", "#ff69b4"),
    "brown": ("#a52a2a", "#8c564b", "#8b4513"),
    "black": ("#000000", "#111111"),
    "grey": ("#808080", "#7f7f7f", "#a9a9a9"),
    "white": ("#ffffff", "#f8f8f8"),
}
_PAPERS = ("#ffffff", "#ffffff", "#ffffff", "#fdf6e3", "#eef4fb", "#f5f5f5", "#222222", "#000000", "#1b2a41", "#2f6f4f")

_TRIES = 1000


@attrs.frozen
class DrawnShape:
    """One shape of a drawing: its name, colour, and the square that it fills, in pixels."""

    shape: str
    rgb: RGB
    left: float
    top: float
    side: float

    @property
    def name(self) -> tuple[str, str]:
        """Colour and shape."""
        return (colour_name(self.rgb), self.shape)

    @property
    def hex(self) -> str:
        """Its colour as a drawing program takes it."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb)


@attrs.frozen(eq=False)
class Drawing:
    """A drawing by one renderer."""

    renderer: str
    size: tuple[int, int]
    paper: RGB
    shapes: tuple[DrawnShape, ...]
    _draw: Callable[["Drawing"], Image.Image]

    def render(self) -> Image.Image:
        """Draws it."""
        return self._draw(self)


@attrs.frozen
class Renderer:
    """Who draws, which shapes they can draw, and on which papers."""

    draw: Callable[[Drawing], Image.Image]
    shapes: Sequence[str]
    papers: Sequence[str] = _PAPERS


def sample_drawings(
    renderers: Mapping[str, Renderer], count: int, rng: np.random.Generator, objects: tuple[int, int] = (1, 5)
) -> list[Drawing]:
    """Random drawings, by each renderer in turn: shapes that lie apart, on paper of one colour.

    Args:
        renderers: By name.
        count: How many drawings.
        rng: Decides all of it.
        objects: The smallest and the largest number of shapes.
    """
    names = list(renderers)
    in_turn = (names[number % len(names)] for number in range(count))
    return [_sample(name, renderers[name], rng, objects) for name in in_turn]


def _sample(name: str, renderer: Renderer, rng: np.random.Generator, objects: tuple[int, int]) -> Drawing:
    width, height = (
        int(side) for side in rng.choice([(240, 240), (320, 240), (400, 300), (300, 400), (480, 320), (512, 512)])
    )
    paper = _rgb(str(rng.choice(renderer.papers)))
    shapes: list[DrawnShape] = []
    wanted = int(rng.integers(objects[0], objects[1] + 1))
    tries = 0
    while len(shapes) < wanted:
        tries += 1
        if tries % _TRIES == 0:  # the first shapes may lie so that there is no room for the others
            shapes.clear()
        side = float(min(width, height) * rng.uniform(0.14, 0.34))
        left, top = rng.uniform(2, width - side - 2), rng.uniform(2, height - side - 2)
        if any(
            abs(left - o.left) < max(side, o.side) * 1.1 and abs(top - o.top) < max(side, o.side) * 1.1 for o in shapes
        ):
            continue
        rgb = _rgb(str(rng.choice(_COLOURS[str(rng.choice(list(_COLOURS)))])))
        if contrast(rgb, paper) < 0.25:
            continue
        shape = str(rng.choice(list(renderer.shapes)))
        shapes.append(DrawnShape(shape, rgb, float(left), float(top), side))
    return Drawing(name, (width, height), paper, tuple(shapes), renderer.draw)


def _rgb(code: str) -> RGB:
    red, green, blue = bytes.fromhex(code[1:])
    return (red, green, blue)
