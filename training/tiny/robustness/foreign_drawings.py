"""Drawings by renderers that training never used: matplotlib's patches, SVG through resvg, glyphs of a font.

Shapes are stated here once more in each renderer's own terms; nothing is shared with the drawings of training but the
names.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.tiny.robustness.drawings import Drawing, DrawnShape, Renderer

if TYPE_CHECKING:
    from matplotlib.patches import Patch
    from matplotlib.path import Path as Outline

# --- SVG

SVG_SHAPES: dict[str, str] = {
    "circle": '<circle cx="50" cy="50" r="50"/>',
    "oval": '<ellipse cx="50" cy="50" rx="50" ry="31"/>',
    "square": '<rect width="100" height="100"/>',
    "rectangle": '<rect y="22" width="100" height="56"/>',
    "triangle": '<polygon points="50,5 100,95 0,95"/>',
    "diamond": '<polygon points="50,0 85,50 50,100 15,50"/>',
    "star": '<polygon points="50,2 61,38 98,38 68,59 79,95 50,73 21,95 32,59 2,38 39,38"/>',
    "heart": '<path d="M50 92 C10 60 0 40 0 27 C0 8 18 4 28 6 C40 8 47 17 50 25 C53 17 60 8 72 6 C82 4 100 8 100 27 '
    'C100 40 90 60 50 92 Z"/>',
    "cross": '<path d="M36 0h28v36h36v28h-36v36h-28v-36h-36v-28h36z"/>',
    "ring": '<path fill-rule="evenodd" d="M50 0a50 50 0 1 0 .1 0zM50 22a28 28 0 1 1 -.1 0z"/>',
    "moon": '<path d="M70 4 A48 48 0 1 0 70 96 A40 40 0 1 1 70 4 Z"/>',
    "arrow": '<path d="M0 38 H58 V15 L100 50 L58 85 V62 H0 Z"/>',
}
"""Each fills a square of side 100, or the middle of it."""


def _draw_svg(drawing: Drawing) -> Image.Image:
    body = "".join(
        f'<g fill="{thing.hex}" transform="translate({thing.left} {thing.top}) scale({thing.side / 100})">'
        f"{SVG_SHAPES[thing.shape]}</g>"
        for thing in drawing.shapes
    )
    return render_svg(drawing.size, "#{:02x}{:02x}{:02x}".format(*drawing.paper), body)


def render_svg(size: tuple[int, int], paper: str, body: str) -> Image.Image:
    """Draws SVG elements on paper of one colour."""
    import resvg_py

    width, height = size
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f'<rect width="100%" height="100%" fill="{paper}"/>{body}</svg>'
    )
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)))).convert("RGB")


# --- matplotlib's patches


def _draw_matplotlib(drawing: Drawing) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = drawing.size
    red, green, blue = (channel / 255 for channel in drawing.paper)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=(red, green, blue))
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for thing in drawing.shapes:
        axes.add_patch(_patch(thing))
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _patch(thing: DrawnShape) -> "Patch":
    from matplotlib import patches
    from matplotlib.path import Path as Outline

    x, y, r = thing.left + thing.side / 2, thing.top + thing.side / 2, thing.side / 2
    shapes: dict[str, Callable[[], Patch]] = {
        "circle": lambda: patches.Circle((x, y), r),
        "oval": lambda: patches.Ellipse((x, y), 2 * r, 1.2 * r),
        "square": lambda: patches.Rectangle((x - r, y - r), 2 * r, 2 * r),
        "rectangle": lambda: patches.Rectangle((x - r, y - 0.55 * r), 2 * r, 1.1 * r),
        "triangle": lambda: patches.RegularPolygon((x, y), 3, radius=r, orientation=np.pi),
        "diamond": lambda: patches.RegularPolygon((x, y), 4, radius=r),
        "star": lambda: patches.PathPatch(_placed(Outline.unit_regular_star(5, 0.4), x, y, r, -1)),
        "cross": lambda: patches.Polygon(
            [
                (x + r * u, y + r * v)
                for u, v in (
                    (-0.3, -1),
                    (0.3, -1),
                    (0.3, -0.3),
                    (1, -0.3),
                    (1, 0.3),
                    (0.3, 0.3),
                    (0.3, 1),
                    (-0.3, 1),
                    (-0.3, 0.3),
                    (-1, 0.3),
                    (-1, -0.3),
                    (-0.3, -0.3),
                )
            ]
        ),
        "ring": lambda: patches.Annulus((x, y), r, 0.45 * r),
        "arrow": lambda: patches.FancyArrow(
            x - r, y, 2 * r, 0, width=0.55 * r, head_width=1.4 * r, head_length=0.8 * r, length_includes_head=True
        ),
    }
    made = shapes[thing.shape]()
    made.set(color=thing.hex, linewidth=0)
    return made


def _placed(outline: "Outline", x: float, y: float, r: float, flip: int) -> "Outline":
    return type(outline)(np.asarray(outline.vertices) * (r, flip * r) + (x, y), outline.codes)


# --- glyphs of DejaVu Sans, which matplotlib brings along

_GLYPHS = {
    "circle": "\u25cf",
    "square": "\u25a0",
    "rectangle": "\u25ac",
    "triangle": "\u25b2",
    "diamond": "\u25c6",
    "star": "\u2605",
    "heart": "\u2665",
    "cross": "\u271a",
    "arrow": "\u27a1",
    "moon": "\u263e",
}


def _draw_glyphs(drawing: Drawing) -> Image.Image:
    import matplotlib

    font_file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    image = Image.new("RGB", drawing.size, drawing.paper)
    pen = ImageDraw.Draw(image)
    for thing in drawing.shapes:
        font = ImageFont.truetype(str(font_file), 200)
        left, top, right, bottom = font.getbbox(_GLYPHS[thing.shape])
        font = ImageFont.truetype(str(font_file), 200 * thing.side / max(right - left, bottom - top))
        left, top, right, bottom = font.getbbox(_GLYPHS[thing.shape])
        x, y = (
            thing.left + (thing.side - (right - left)) / 2 - left,
            thing.top + (thing.side - (bottom - top)) / 2 - top,
        )
        pen.text((x, y), _GLYPHS[thing.shape], fill=thing.rgb, font=font)
    return image


RENDERERS = {
    "SVG (resvg)": Renderer(_draw_svg, tuple(SVG_SHAPES)),
    "matplotlib": Renderer(
        _draw_matplotlib,
        ("circle", "oval", "square", "rectangle", "triangle", "diamond", "star", "cross", "ring", "arrow"),
    ),
    "glyphs (DejaVu Sans)": Renderer(_draw_glyphs, tuple(_GLYPHS)),
}
"""By what a report calls them."""
