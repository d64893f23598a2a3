"""The code's imports keep to the tables of docs/design.md, and its files stay small enough to be read at once."""

import ast
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from docs.figures.import_graph import PACKAGES, Graph, Row, import_graph, module_files, places, rows
from tests.support.paths import ROOT

LIGHT_LIBRARIES = {
    "PIL", "attrs", "fsspec", "httpx", "huggingface_hub", "numpy", "onnxruntime", "openvino", "safetensors", "shtab",
    "starlette", "tokenizers", "tqdm", "uvicorn",
}  # fmt: skip
LIBRARIES_OF_EXTRAS = {
    "pydeper.serve": {"alembic", "fastapi", "prometheus_client", "pydantic", "sqlalchemy", "starlette", "uvicorn"},
}
FOLDERS_OF_CODE = (*PACKAGES, "tests", "docs", "benchmarks", "examples")
MOST_MODULES_PER_FOLDER, MOST_LINES_PER_MODULE, MOST_LINES_PER_FUNCTION = 14, 400, 60

FILES = module_files()
GRAPH = import_graph()
TABLE = rows()


# --- the rules; each returns what breaks it


def circle(graph: Graph) -> list[str]:
    """A circle of modules that import each other, and nothing where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1][::-1])  # each imports the next
    return []


def not_in_one_row(files: dict[str, str], table: list[Row]) -> list[str]:
    return [files[module] for module, numbers in places(files, table).items() if len(numbers) != 1]


def upward_imports(graph: Graph, files: dict[str, str], table: list[Row]) -> list[str]:
    """Imports of a module that stands in a row further up."""
    place = places(files, table)
    return [
        f"{importer} imports {imported}"
        for importer in graph
        for imported in sorted(graph[importer] & files.keys())
        if max(place[importer]) > min(place[imported])
    ]


def imports_of_entry_points(graph: Graph) -> list[str]:
    """Imports of a ``__main__``, and imports of a ``cli`` package from outside of the command that it belongs to."""

    def command(module: str) -> str:
        package, _, rest = module.partition(".")
        return package if rest.split(".")[0] in ("__main__", "cli") else ""

    return [
        f"{importer} imports {imported}"
        for importer, modules in graph.items()
        for imported in sorted(modules)
        if command(imported)
        if imported.endswith("__main__") or command(importer) != command(imported)
    ]


def crowded_folders(files: list[Path], most: int) -> list[str]:
    counts = Counter(file.parent.as_posix() for file in files)
    return [f"{folder}: {count} modules" for folder, count in counts.items() if count > most]


def long_modules(files: list[Path], most: int) -> list[str]:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    return [f"{file}: {length} lines" for file, length in lengths.items() if length > most]


def long_functions(files: list[Path], most: int) -> list[str]:
    """Functions of more than so many lines of code: docstrings, comments and blank lines do not count."""
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        tree, lines = ast.parse(text), text.splitlines()
        code = {number for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#")}
        for node in ast.walk(tree):
            first = node.body[0] if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
                code -= {*range(first.lineno, first.end_lineno + 1)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                length = len(code & {*range(node.lineno, node.end_lineno + 1)})
                if length > most:
                    found.append(f"{file}: {node.name} has {length} lines of code")
    return found


# --- the code keeps to them


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circle(GRAPH)
    assert not found, "\n".join(found)


def test_every_module_is_in_one_row_of_the_design_page() -> None:
    strays = not_in_one_row(FILES, TABLE)
    assert not strays, "\n".join(strays)
    assert {row.package for row in TABLE} == {*PACKAGES}


def test_every_file_that_a_row_names_is_there() -> None:
    assert all(row.paths for row in TABLE)
    missing = [path for row in TABLE for path in row.paths if not (ROOT / path).exists()]
    assert not missing, "\n".join(missing)


def test_imports_run_downwards() -> None:
    found = upward_imports(GRAPH, FILES, TABLE)
    assert not found, "\n".join(found)


def test_nothing_imports_an_entry_point() -> None:
    found = imports_of_entry_points(GRAPH)
    assert not found, "\n".join(found)


def test_the_sdk_imports_light_libraries_only() -> None:
    for name in GRAPH:
        if name.split(".")[0] == "pydeper":
            imported = {module.split(".")[0] for module in GRAPH[name]} - sys.stdlib_module_names - {"pydeper"}
            extra = next(
                (
                    LIBRARIES_OF_EXTRAS[package]
                    for package in LIBRARIES_OF_EXTRAS
                    if f"{name}.".startswith(f"{package}.")
                ),
                set(),
            )
            assert imported <= LIGHT_LIBRARIES | extra, name


def test_no_module_is_missing_from_the_graph() -> None:
    """A folder without an ``__init__.py`` would be."""
    missing = sorted(FILES.keys() ^ GRAPH.keys())
    assert not missing, "\n".join(missing)


def code_files() -> list[Path]:
    return [path.relative_to(ROOT) for folder in FOLDERS_OF_CODE for path in sorted((ROOT / folder).rglob("*.py"))]


def test_folders_modules_and_functions_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = code_files()
    assert {file.parts[0] for file in files} == {*FOLDERS_OF_CODE}
    found = crowded_folders(files, MOST_MODULES_PER_FOLDER)
    found += long_modules(files, MOST_LINES_PER_MODULE) + long_functions(files, MOST_LINES_PER_FUNCTION)
    assert not found, "\n".join(found)


# --- the rules find what breaks them

PAGE = """
### `shop/`: what sells

| package | files | what happens there |
| --- | --- | --- |
| **commands** | `__main__.py`, `cli/` | the command |
| **public names** | `__init__.py` | the public names |
| **till** | `till.py` | takes money |
| **stock** | `stock/`, `prices.py` | what is there |
"""
SOUND = {
    "__init__.py": "from shop.till import pay\n",
    "__main__.py": "from shop.cli.main import main\n",
    "cli/__init__.py": "",
    "cli/main.py": "import shop\nmain = shop.pay\n",
    "till.py": "import numpy.linalg\nfrom shop.stock import shelf\ndef pay():\n    from shop import prices\n",
    "stock/__init__.py": "",
    "stock/shelf.py": "",
    "prices.py": "",
}


def check(folder: Path, changes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that the rules have against a package of these files, imported from a folder."""
    for name, text in {**SOUND, **changes}.items():
        file = folder / "shop" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (folder / "design.md").write_text(PAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    graph, files = import_graph(["shop"]), module_files(["shop"], folder)
    table = rows(folder / "design.md", ["shop"])
    assert not circle({"shop.till": graph["shop.till"]})
    assert graph["shop.till"] >= {"numpy", "shop.stock.shelf", "shop.prices"}
    if strays := not_in_one_row(files, table):
        return strays
    found = circle(graph)
    return [
        *([" -> ".join(found)] if found else []),
        *upward_imports(graph, files, table),
        *imports_of_entry_points(graph),
    ]


def test_a_sound_package_breaks_no_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(tmp_path, {}, monkeypatch) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {
                "stock/shelf.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import shop.prices\n",
                "prices.py": "from shop.stock.shelf import box\n",
            },
            ["shop.prices", "shop.stock.shelf"],
        ),
        (
            {"stock/shelf.py": "def f():\n    from shop import prices\n", "prices.py": "import shop.stock.shelf\n"},
            ["shop.prices", "shop.stock.shelf"],
        ),
    ],
    ids=["under TYPE_CHECKING", "inside a function"],
)
def test_a_circle_is_found_within_a_row(
    changes: dict[str, str], found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (complaint,) = check(tmp_path, changes, monkeypatch)
    assert sorted({*complaint.split(" -> ")}) == found


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"prices.py": "def f():\n    import shop.till\n"}, "shop.prices imports shop.till"),
        ({"prices.py": "from shop import pay\n"}, "shop.prices imports shop"),
        ({"prices.py": "from . import till\n"}, "shop.prices imports shop.till"),
        ({"cli/main.py": "import shop.__main__\n"}, "shop.cli.main imports shop.__main__"),
        ({"__init__.py": "from shop.cli import main\n"}, "shop imports shop.cli.main"),
        ({"more.py": ""}, "shop/more.py"),
    ],
)
def test_what_breaks_a_rule_is_named(
    changes: dict[str, str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert complaint in check(tmp_path, changes, monkeypatch)


def test_only_lines_of_code_count_in_a_function(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        'def short():\n    """Two\n    lines."""\n\n    # why\n    return 1\n\n\n'
        "class A:\n    async def long(self):\n        def inner():\n            return 1\n\n        return inner\n"
    )
    assert long_functions([file], 2) == [f"{file}: long has 4 lines of code"]
    assert long_modules([file], 13) == [f"{file}: 14 lines"]
    assert long_modules([file], 14) == crowded_folders([file], 1) == []
    assert crowded_folders([file, file], 1) == [f"{tmp_path.as_posix()}: 2 modules"]
