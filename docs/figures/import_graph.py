"""Which module imports which, and the order of the modules in the tables of docs/design.md."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import grimp

ROOT = Path(__file__).parents[2]
PACKAGES = ("export", "training", "pydeper")
"""The top-level packages, from top to bottom: each may import those after it."""

Graph = dict[str, set[str]]


class Row(NamedTuple):
    """One row of a table in docs/design.md.

    Attributes:
        package: The top-level package that the table describes.
        name: The row's first column.
        paths: The files and folders of its second column, from the root of the repository. A folder ends in a slash
            and stands for everything in it.
    """

    package: str
    name: str
    paths: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Says whether a file, such as ``pydeper/model/model.py``, belongs to this row."""
        return any(path == own or (own.endswith("/") and path.startswith(own)) for own in self.paths)


def module_files(packages: Iterable[str] = PACKAGES, root: Path = ROOT) -> dict[str, str]:
    """Returns the file of every module, from the root of the repository."""
    files = {}
    for path in sorted(path for package in packages for path in (root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.relative_to(root).as_posix()
    return files


def import_graph(packages: Iterable[str] = PACKAGES) -> Graph:
    """Returns what every module imports.

    Imports inside functions and under ``TYPE_CHECKING`` count. Of a library only the top-level name is given. The
    packages have to be importable; they are read and not run.
    """
    graph = grimp.build_graph(*packages, include_external_packages=True, cache_dir=None)
    return {
        module: graph.find_modules_directly_imported_by(module)
        for module in sorted(graph.modules)
        if not graph.is_module_squashed(module)
    }


def rows(page: Path = ROOT / "docs" / "design.md", packages: Iterable[str] = PACKAGES) -> list[Row]:
    """Returns the rows of the tables on the design page, from top to bottom: those of the first package come first."""
    packages = list(packages)
    found: list[Row] = []
    package = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"#+ (?:`(\w+)/`)?", line):
            package = heading[1] or ""
        elif package in packages and (row := re.match(r"\| \*\*(.+?)\*\* \| (.+?) \|", line)):
            paths = tuple(f"{package}/{name}" for name in re.findall(r"`([^`]+)`", row[2]))
            found.append(Row(package, row[1], paths))
    return sorted(found, key=lambda row: packages.index(row.package))


def places(files: dict[str, str], table: list[Row]) -> dict[str, list[int]]:
    """Returns the numbers of the rows that hold each module, counted from the top; there should be one."""
    return {module: [number for number, row in enumerate(table) if row.holds(path)] for module, path in files.items()}
