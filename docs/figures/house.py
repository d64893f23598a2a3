"""The house: its rooms as docs/design.md names them, and the imports between them as the code has them."""

import ast
import functools
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from docs.figures.drawing import WIDTH, Drawing, Kind

ROOT = Path(__file__).parents[2]
PACKAGES = ("export", "training", "pydeper")  # from the roof down
UPWARDS = {
    ("pydeper.persona.persona", "pydeper.model.model"),  # the default model, where none is given
    ("training.__main__", "export.tiny"),  # `python -m training tiny` makes a whole model
}
"""The imports that go up: each inside a function, when it is called."""

Edges = set[tuple[str, str]]

_KINDS: dict[str, Kind] = {"export": "loss", "training": "learned", "pydeper": "frozen"}
_ROW, _HIGH, _GAP = 70, 38, 12
_SLOT = 12  # the room that a line needs which passes between boxes


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Returns all modules of the packages, name -> file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(files: dict[str, Path]) -> Edges:
    """Returns who imports whom when it runs, also inside functions; what only type checkers read does not count."""
    homes = _public_names(files["pydeper"])
    edges: Edges = set()
    for importer, path in files.items():
        for module, name in _imported(_tree(path)):
            full = f"{module}.{name}" if name else module
            target = homes.get(name) if module == "pydeper" and name in homes else full if full in files else module
            if target in files and target not in ("pydeper", importer):  # the package itself: its version
                edges.add((importer, str(target)))
    return edges


def outside(files: dict[str, Path]) -> set[tuple[str, str]]:
    """Returns pairs of a module and a top-level package of others that it imports."""
    return {
        (importer, module.split(".")[0])
        for importer, path in files.items()
        for module, _ in _imported(_tree(path))
        if module.split(".")[0] not in PACKAGES
    }


def rooms(page: Path = ROOT / "docs" / "design.md") -> dict[str, list[str]]:
    """Returns the rooms of the tables in docs/design.md: package/room -> the files that the table names, as paths.

    A folder stands for all that is in it.
    """
    found: dict[str, list[str]] = {}
    package = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ (?:`(\w+)/`)?", line):
            package = heading[1] or ""
        elif package in PACKAGES and (row := re.match(r"\| \*\*(.+?)\*\* \| (.+?) \|", line)):
            found[f"{package}/{row[1]}"] = [f"{package}/{name}" for name in re.findall(r"`([^`]+)`", row[2])]
    return found


def room_of(path: str, plan: dict[str, list[str]]) -> list[str]:
    """Returns the rooms that a file, such as ``pydeper/model/model.py``, is in; there should be one."""
    return [
        room for room, names in plan.items() if any(path == n or (n[-1] == "/" and path.startswith(n)) for n in names)
    ]


def between_rooms(edges: Edges, files: dict[str, Path], plan: dict[str, list[str]]) -> Edges:
    """Returns which room imports from which, without the imports that are known to go up."""
    home = {name: room_of(path.relative_to(ROOT).as_posix(), plan) for name, path in files.items()}
    pairs = {(a, b) for one, other in edges - UPWARDS for a in home[one] for b in home[other]}
    return {(a, b) for a, b in pairs if a != b}


def storeys(names: Iterable[str], edges: Edges) -> dict[str, int]:
    """Returns on which storey every room is, from 0 at the ground: one above the highest room that it imports.

    Raises:
        ValueError: There is a circle.
    """
    levels: dict[str, int] = {}
    todo = sorted(names)
    while todo:
        free = [name for name in todo if all(b in levels for a, b in edges if a == name)]
        if not free:
            raise ValueError(f"rooms that import each other in a circle are among: {', '.join(todo)}")
        for name in free:
            levels[name] = max((levels[b] + 1 for a, b in edges if a == name), default=0)
        todo = [name for name in todo if name not in levels]
    return levels


def shortest(edges: Edges) -> Edges:
    """Returns the edges that no longer way makes superfluous (the transitive reduction)."""

    def reached(start: str) -> set[str]:
        direct = {b for a, b in edges if a == start}
        return direct.union(*(reached(b) for b in direct)) if direct else set()

    return {(a, b) for a, b in edges if not any(b in reached(c) for x, c in edges if x == a and c != b)}


def draw() -> str:
    """Draws the packages above each other, each with its rooms on storeys."""
    files, plan = modules(), rooms()
    edges = between_rooms(imports(files), files, plan)
    layouts = {package: _layout(package, plan, edges) for package in PACKAGES}
    heights = {package: 52 + _ROW * len(rows) - (_ROW - _HIGH) for package, (rows, _) in layouts.items()}
    d = Drawing(
        "The house",
        "The rooms of export, training and pydeper, from top to bottom, as boxes; arrows lead from a room to those "
        "that it imports, without those that follow from others. All arrows point downwards. "
        + " ".join(f"{a.split('/')[1]} imports {b.split('/')[1]}." for a, b in sorted(_drawn(edges))),
        sum(heights.values()) + 54 * (len(PACKAGES) - 1) + 24,
    )
    y = 8.0
    for number, package in enumerate(PACKAGES):
        height = heights[package]
        d.box(6, y, WIDTH - 12, height, kind="quiet")
        d.text(18, y + 24, f"{package}/", style="label")
        _draw_rooms(d, package, *layouts[package], top=y + 36)
        if number + 1 < len(PACKAGES):
            d.arrow((WIDTH / 2, y + height), (WIDTH / 2, y + height + 50))
            d.text(WIDTH / 2 + 14, y + height + 32, f"imports {PACKAGES[number + 1]}", style="small aside")
        y += height + 54
    return d.svg()


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of every import, name empty for whole modules; blocks for type checkers are left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        yield from _imported(node)


def _public_names(init: Path) -> dict[str, str]:
    """The public names of pydeper, and the modules that they are loaded from."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes: dict[str, str] = ast.literal_eval(node.value)
            return homes
    raise ValueError(f"{init} has no table _HOMES of the public names")


def _drawn(edges: Edges) -> Edges:
    return {(a, b) for a, b in shortest(edges) if a.split("/")[0] == b.split("/")[0]}


_Rows = list[list[str]]


def _layout(package: str, plan: dict[str, list[str]], edges: Edges) -> tuple[_Rows, Edges]:
    """Rows from the top, in which long edges pass through slots, and the edges from row to row."""
    names = [room for room in plan if room.startswith(f"{package}/")]
    inside = {(a, b) for a, b in edges if a in names and b in names}
    levels = storeys(names, inside)
    top = max(levels.values())
    rows: _Rows = [[name for name in names if levels[name] == level] for level in range(top, -1, -1)]
    steps: Edges = set()
    for a, b in sorted(shortest(inside)):
        before = a
        for level in range(levels[a] - 1, levels[b], -1):
            slot = f"slot/{b}/{level}"  # lines to one room run together
            if slot not in rows[top - level]:
                rows[top - level].append(slot)
            steps.add((before, slot))
            before = slot
        steps.add((before, b))
    for _ in range(8):
        for number in [*range(1, len(rows)), *range(len(rows) - 2, -1, -1)]:
            _sort(rows, number, steps)
    return rows, steps


def _sort(rows: _Rows, number: int, steps: Edges) -> None:
    """Puts a row into the order of what its rooms are joined to."""
    places = {name: index / max(1, len(row) - 1) for row in rows for index, name in enumerate(row)}

    def middle(name: str) -> float:
        near = [places[b if a == name else a] for a, b in steps if name in (a, b)]
        return math.fsum(near) / len(near) if near else places[name]

    rows[number].sort(key=lambda name: (middle(name), name))


def _draw_rooms(d: Drawing, package: str, rows: _Rows, steps: Edges, top: float) -> None:
    centres: dict[str, tuple[float, float]] = {}
    widths: dict[str, float] = {}
    for number, row in enumerate(rows):
        boxes = sum(not name.startswith("slot/") for name in row)
        free = WIDTH - 44 - _GAP * (len(row) - 1) - _SLOT * (len(row) - boxes)
        width = min(150.0, free / boxes)
        x = (WIDTH - (width * boxes + _SLOT * (len(row) - boxes) + _GAP * (len(row) - 1))) / 2
        for name in row:
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
