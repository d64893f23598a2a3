"""A small writer of SVG: boxes, arrows and text that are legible on light and dark pages, on screens and phones.

Drawings are 560 units wide, with no text below 15, so that words are words on a phone too. Colours follow the page that
shows the drawing (`prefers-color-scheme`, which an image takes over from its page's `color-scheme`). Letters are the
reader's own; widths leave room for wide ones. The same calls give the same bytes.
"""

import html
import re
from collections.abc import Sequence
from typing import Literal

Kind = Literal["plain", "frozen", "learned", "persona", "loss", "quiet"]
Stroke = Literal["", "soft", "dashed"]
Point = tuple[float, float]

WIDTH = 560

# Fill, line and ink of every kind of box, on light pages and on dark ones.
KINDS: dict[str, tuple[tuple[str, str, str], tuple[str, str, str]]] = {
    "plain": (("#f6f7f9", "#5b6678", "#1a202c"), ("#2b303b", "#97a3b6", "#eef1f6")),
    "frozen": (("#e3ecf9", "#33507d", "#14284a"), ("#22344f", "#82a8de", "#e4eefc")),
    "learned": (("#fdeed6", "#a5630f", "#4a2b03"), ("#47351a", "#e3a85a", "#fdf0dc")),
    "persona": (("#a5630f", "#a5630f", "#ffffff"), ("#e3a85a", "#e3a85a", "#241703")),
    "loss": (("#fbe3e8", "#a52a4a", "#5a0f24"), ("#4a2330", "#ee8aa4", "#fde4ea")),
    "quiet": (("none", "#8a94a6", "#454f5f"), ("none", "#7c8798", "#c3cad6")),
}
PAGE, INK = ("#ffffff", "#1e2129"), ("#1a202c", "#eef1f6")
QUIET, _LINE = ("#454f5f", "#c3cad6"), ("#5b6678", "#97a3b6")
_LETTERS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


class Drawing:
    """One picture; `svg` returns it.

    Args:
        title: Its name, for those who cannot see it.
        description: What it shows, for them.
        height: In units; it is 560 wide.
    """

    def __init__(self, title: str, description: str, height: float) -> None:
        self._title, self._description, self._height = title, description, height
        self._parts: list[str] = []

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        lines: Sequence[str] = (),
        *,
        kind: Kind = "plain",
        label: bool = True,
        align: Literal["start", "middle"] = "middle",
    ) -> None:
        """Draws a box with lines of text in its middle; the first is its label, the others are small."""
        self._parts.append(
            f'<rect class="{kind}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="7"/>'
        )
        top = y + height / 2 - 10 * (len(lines) - 1) + 5.5
        for number, line in enumerate(lines):
            style = f"on-{kind}" + (" label" if label and number == 0 else "" if number == 0 else " small")
            at = x + width / 2 if align == "middle" else x + 12
            self.text(at, top + 20 * number, line, style=style, align=align)

    def text(
        self, x: float, y: float, text: str, *, style: str = "", align: Literal["start", "middle", "end"] = "start"
    ) -> None:
        """Writes one line with its baseline at y; ``z_{s}`` has a subscript. `style` is any of label, small, aside."""
        anchor = "" if align == "start" else f' text-anchor="{align}"'
        named = f' class="{style}"' if style else ""
        self._parts.append(f'<text x="{_n(x)}" y="{_n(y)}"{anchor}{named}>{_subscripts(text)}</text>')

    def arrow(self, *points: Point, kind: Stroke = "", head: bool = True) -> None:
        """Draws a line through points, with a head at its end."""
        path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        marker = f' marker-end="url(#{"soft" if kind == "soft" else ""}head)"' if head else ""
        self._parts.append(f'<path class="{f"line {kind}".strip()}" d="{path}"{marker}/>')

    def raw(self, element: str) -> None:
        """Adds an element as it is."""
        self._parts.append(element)

    def svg(self) -> str:
        """Returns the picture as the text of an SVG file."""
        size = f'viewBox="0 0 {WIDTH} {_n(self._height)}" width="{WIDTH}" height="{_n(self._height)}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description"',
                f'     font-family="{_LETTERS}" font-size="16">',
                f'<title id="title">{html.escape(self._title)}</title>',
                f'<desc id="description">{html.escape(self._description)}</desc>',
                f"<style>\n{_style(0)}\n@media (prefers-color-scheme: dark) {{\n{_style(1)}\n}}\n</style>",
                f"<defs>{_marker('head')}{_marker('softhead')}</defs>",
                f'<rect class="page" width="{WIDTH}" height="{_n(self._height)}"/>',
                *self._parts,
                "</svg>\n",
            ]
        )


def _style(theme: int) -> str:
    rules = [
        f".page {{ fill: {PAGE[theme]} }} text {{ fill: {INK[theme]} }} .aside {{ fill: {QUIET[theme]} }}",
        f".line {{ fill: none; stroke: {_LINE[theme]}; stroke-width: 1.8 }} .head {{ fill: {_LINE[theme]} }}",
        f".soft {{ stroke: {KINDS['learned'][theme][1]}; stroke-width: 2.4 }} "
        f".softhead {{ fill: {KINDS['learned'][theme][1]} }}",
    ]
    for kind, themes in KINDS.items():
        fill, line, ink = themes[theme]
        rules.append(f".{kind} {{ fill: {fill}; stroke: {line}; stroke-width: 1.5 }} .on-{kind} {{ fill: {ink} }}")
    if theme == 0:
        rules.append(".label { font-weight: 650 } .small { font-size: 15px } .dashed { stroke-dasharray: 5 5 }")
    return "\n".join(rules)


def _marker(name: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6.5" markerHeight="6.5" '
        f'orient="auto-start-reverse"><path class="{name}" d="M0 0 10 5 0 10z"/></marker>'
    )


def _subscripts(text: str) -> str:
    pieces = re.split(r"_\{([^}]*)\}", text)
    return "".join(
        html.escape(piece)
        if number % 2 == 0
        else f'<tspan dy="4" font-size="72%">{html.escape(piece)}</tspan><tspan dy="-4">&#8203;</tspan>'
        for number, piece in enumerate(pieces)
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
