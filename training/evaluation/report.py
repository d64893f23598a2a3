"""Results as a file for programs (JSON) and a table for people (Markdown)."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path
from training.evaluation.bootstrap import Interval
from training.outputs import exists, output_folder, refuse

Figure = Interval | float | int | None
"""A result: with an interval, without one, or None where it was not measured."""


def write_report(
    folder: str | os.PathLike[str],
    name: str,
    results: Mapping[str, Mapping[str, Figure]],
    *,
    title: str | None = None,
    facts: Mapping[str, object] | None = None,
    digits: int = 3,
) -> tuple[Path, Path]:
    """Writes `folder/name.json` and `folder/name.md`, each by atomic rename; the folder is made where it is missing.

    Args:
        folder: Where to.
        name: File name without suffix.
        results: System (row) -> metric (column) -> figure. Columns appear in the order in which rows bring them.
        title: Heading of the table; None: `name`.
        facts: What else there is to know (data, tokenizer, seeds): anything JSON can hold.
        digits: Decimals in the table; the JSON keeps all.

    Returns:
        The two paths.

    Raises:
        InvalidArgumentError: If there are no results, or a figure is NaN, infinite or no figure; nothing is written
            then.
        OutputError: See `check_reports`.
    """
    table = format_table(results, digits=digits)
    content = {
        "title": title or name,
        "facts": dict(facts or {}),
        "results": {
            row: {metric: _to_json(figure) for metric, figure in figures.items()} for row, figures in results.items()
        },
    }
    try:
        encoded = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"facts must be plain JSON values: {error}") from error
    lines = [f"# {title or name}", "", table, ""]
    lines += [f"- {fact}: {value}" for fact, value in (facts or {}).items()]
    folder = Path(folder)
    check_reports(folder, [name])
    paths = folder / f"{name}.json", folder / f"{name}.md"
    with output_folder(folder):
        for path, text in zip(paths, (encoded, "\n".join(lines).rstrip() + "\n"), strict=True):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return paths


def command_line(words: Iterable[str], changes: Iterable[str] = ()) -> str:
    """A command as reports name it, to be pasted into a shell.

    Args:
        words: Of the command.
        changes: To its configuration, each as after `--set`.
    """
    return shlex.join([*words, *(word for change in changes for word in ("--set", change))])


def check_reports(folder: Path, names: Iterable[str], suffixes: Sequence[str] = (".json", ".md")) -> None:
    """Refuses to replace files that are not earlier reports; to be called before the work that a report is about.

    Args:
        folder: Where reports are to go.
        names: The reports', without suffix.
        suffixes: Of the files that each has.

    Raises:
        OutputError: There is another file of such a name.
    """
    foreign = []
    for name in names:
        title = _title(folder / f"{name}.json")
        for suffix in suffixes:
            path = folder / f"{name}{suffix}"
            if exists(path) and (title is None or (suffix == ".md" and not _is_headed(path, title))):
                foreign.append(path.name)
    refuse(folder, foreign)


def _title(path: Path) -> str | None:
    """The title of a report's JSON file, or None where it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    own = isinstance(content, dict) and content.keys() == {"title", "facts", "results"}
    return str(content["title"]) if own else None


def _is_headed(path: Path, title: str) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith(f"# {title}\n")
    except (OSError, ValueError):
        return False


def format_table(results: Mapping[str, Mapping[str, Figure]], *, digits: int = 3) -> str:
    """A Markdown table with aligned columns: systems down, metrics across, "–" where nothing was measured.

    Raises:
        InvalidArgumentError: See `write_report`.
    """
    metrics = list(dict.fromkeys(metric for figures in results.values() for metric in figures))
    if not metrics:
        raise InvalidArgumentError("results are empty; at least one system with one metric is needed")
    for row, figures in results.items():
        for metric, figure in figures.items():
            _check(figure, f"{row!r}, {metric!r}")
    cells = [["", *map(_escape, metrics)]]
    cells += [
        [_escape(row), *(_format(figures.get(metric), digits) for metric in metrics)]
        for row, figures in results.items()
    ]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        [cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)] for row in cells
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _check(figure: Figure, where: str) -> None:
    numbers = (figure.estimate, figure.low, figure.high) if isinstance(figure, Interval) else (figure,)
    for number in numbers:
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise InvalidArgumentError(
                f"{where}: {number!r} is a {type(number).__name__}, not a number, Interval or None"
            )
        if number is not None and not math.isfinite(number):
            raise InvalidArgumentError(f"{where}: {number} is no figure; give None for what was not measured")


def _to_json(figure: Figure) -> object:
    if isinstance(figure, Interval):
        return {"value": figure.estimate, "low": figure.low, "high": figure.high, "level": figure.level}
    return {"value": figure}


def figure_from_json(stored: Mapping[str, Any]) -> Figure:
    """A figure as a report's JSON file stores it: `value`, and where there is an interval `low`, `high` and `level`.

    Raises:
        KeyError: A key is missing.
        TypeError: It is no mapping, or a value is neither a number nor null.
        ValueError: An end of the interval is no number.
    """
    value = stored["value"]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"value: must be a number or null, got {value!r:.80}")
    if "low" not in stored:
        return value
    return Interval(float(stored["value"]), float(stored["low"]), float(stored["high"]), float(stored["level"]))


def _format(figure: Figure, digits: int) -> str:
    if figure is None:
        return "–"
    if isinstance(figure, Interval):
        return f"{figure.estimate:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    return str(figure) if isinstance(figure, int) else f"{figure:.{digits}f}"


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
