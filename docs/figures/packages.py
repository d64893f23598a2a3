"""The packages of the code as docs/design.md names them, and the imports between them."""

import math
from collections.abc import Iterable

from docs.figures.drawing import WIDTH, Drawing, Kind
from docs.figures.import_graph import PACKAGES, import_graph, module_files, places, rows

Edges = set[tuple[str, str]]

_KINDS: dict[str, Kind] = {"export": "loss", "training": "learned", "pydeper": "frozen"}
_ROW, _HIGH, _GAP = 70, 38, 12
_SLOT = 12  # the width of a line that passes between boxes


def imports_between_rows() -> tuple[list[str], Edges]:
    """Returns the rows of the design page as ``package/name``, and which of them imports which.

    An import upwards is left out: the picture has no place for it, and the tests refuse it.
    """
    table, files = rows(), module_files()
    names = [f"{row.package}/{row.name}" for row in table]
    place = places(files, table)
    pairs = {
        (one, other)
        for importer, imported in import_graph().items()
        for module in imported & files.keys()
        for one in place[importer]
        for other in place[module]
    }
    return names, {(names[one], names[other]) for one, other in pairs if one < other}


def levels(names: Iterable[str], edges: Edges) -> dict[str, int]:
    """Returns the level of every row, from 0 at the bottom: one above the highest row that it imports.

    Args:
        names: The rows.
        edges: Their imports, which have no circle.
    """
    found: dict[str, int] = {}
    todo = sorted(names)
    while todo:
        free = [name for name in todo if all(b in found for a, b in edges if a == name)]
        for name in free:
            found[name] = max((found[b] + 1 for a, b in edges if a == name), default=0)
        todo = [name for name in todo if name not in found]
    return found


def transitive_reduction(edges: Edges) -> Edges:
    """Returns the edges without those that follow from a longer way."""

    def reached(start: str) -> set[str]:
        direct = {b for a, b in edges if a == start}
        return direct.union(*(reached(b) for b in direct)) if direct else set()

    return {(a, b) for a, b in edges if not any(b in reached(c) for x, c in edges if x == a and c != b)}


def draw() -> str:
    """Draws the top-level packages above each other, each with its rows on levels."""
    names, edges = imports_between_rows()
    layouts = {
        package: _layout([name for name in names if name.startswith(f"{package}/")], edges) for package in PACKAGES
    }
    heights = {package: 52 + _ROW * len(lines) - (_ROW - _HIGH) for package, (lines, _) in layouts.items()}
    drawn = sorted((a, b) for a, b in transitive_reduction(edges) if a.split("/")[0] == b.split("/")[0])
    d = Drawing(
        "Packages and their imports",
        "The packages inside export, training and pydeper, from top to bottom, as boxes. An arrow leads from a package "
        "to one that it imports; arrows that follow from others are left out. All arrows point downwards. "
        + " ".join(f"{a.split('/')[1]} imports {b.split('/')[1]}." for a, b in drawn),
        sum(heights.values()) + 54 * (len(PACKAGES) - 1) + 24,
    )
    y = 8.0
    for number, package in enumerate(PACKAGES):
        height = heights[package]
        d.box(6, y, WIDTH - 12, height, kind="quiet")
        d.text(18, y + 24, f"{package}/", style="label")
        _draw_lines(d, package, *layouts[package], top=y + 36)
        if number + 1 < len(PACKAGES):
            d.arrow((WIDTH / 2, y + height), (WIDTH / 2, y + height + 50))
            d.text(WIDTH / 2 + 14, y + height + 32, f"imports {PACKAGES[number + 1]}", style="small aside")
        y += height + 54
    return d.svg()


_Lines = list[list[str]]


def _layout(names: list[str], edges: Edges) -> tuple[_Lines, Edges]:
    """Boxes line by line from the top, where long edges pass through slots, and the edges from line to line."""
    inside = {(a, b) for a, b in edges if a in names and b in names}
    level_of = levels(names, inside)
    top = max(level_of.values())
    lines: _Lines = [[name for name in names if level_of[name] == level] for level in range(top, -1, -1)]
    steps: Edges = set()
    for a, b in sorted(transitive_reduction(inside)):
        before = a
        for level in range(level_of[a] - 1, level_of[b], -1):
            slot = f"slot/{b}/{level}"  # arrows to one box run together
            if slot not in lines[top - level]:
                lines[top - level].append(slot)
            steps.add((before, slot))
            before = slot
        steps.add((before, b))
    for _ in range(8):
        for number in [*range(1, len(lines)), *range(len(lines) - 2, -1, -1)]:
            _sort(lines, number, steps)
    return lines, steps


def _sort(lines: _Lines, number: int, steps: Edges) -> None:
    """Puts a line into the order of the boxes that its own are joined to."""
    x = {name: index / max(1, len(line) - 1) for line in lines for index, name in enumerate(line)}

    def middle(name: str) -> float:
        near = [x[b if a == name else a] for a, b in steps if name in (a, b)]
        return math.fsum(near) / len(near) if near else x[name]

    lines[number].sort(key=lambda name: (middle(name), name))


def _draw_lines(d: Drawing, package: str, lines: _Lines, steps: Edges, top: float) -> None:
    centres: dict[str, tuple[float, float]] = {}
    widths: dict[str, float] = {}
    for number, line in enumerate(lines):
        boxes = sum(not name.startswith("slot/") for name in line)
        free = WIDTH - 44 - _GAP * (len(line) - 1) - _SLOT * (len(line) - boxes)
        width = min(150.0, free / boxes)
        x = (WIDTH - (width * boxes + _SLOT * (len(line) - boxes) + _GAP * (len(line) - 1))) / 2
        for name in line:
            widths[name] = _SLOT if name.startswith("slot/") else width
            centres[name] = (x + widths[name] / 2, top + _ROW * number)
            x += widths[name] + _GAP
    for a, b in sorted(steps):
        (x1, y1), (x2, y2) = centres[a], centres[b]
        slot = b.startswith("slot/")
        d.arrow((x1, y1 + _HIGH), (x2, y2), *([(x2, y2 + _HIGH)] if slot else []), head=not slot)
    for name, (x, y) in centres.items():
        if not name.startswith("slot/"):
            d.box(x - widths[name] / 2, y, widths[name], _HIGH, [name.split("/")[1]], kind=_KINDS[package], label=False)
