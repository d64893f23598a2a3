"""Keeps the tables in a Markdown page equal to the results they come from.

A page marks the place of a table by two comments; the table of `NAME.json` (see `report`) goes between them. NAME may
begin with a folder, as in `another/NAME`:

    <!-- results: NAME -->
    <!-- end of results -->
"""

import json
import re
from pathlib import Path

from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path
from training.evaluation.report import figure_from_json, format_table

_BLOCK = re.compile(
    r"(<!-- results: (?P<name>[\w/-]+)(?: digits=(?P<digits>\d+))? -->\n).*?(<!-- end of results -->)", re.S
)


def refreshed(page: str, results: Path) -> str:
    """Returns the page's text with every table filled in anew.

    Args:
        page: Markdown with marked places.
        results: Folder of the JSON files.

    Raises:
        InvalidArgumentError: The page marks no place, or a marked result does not exist.
    """
    if not _BLOCK.search(page):
        raise InvalidArgumentError("the page marks no place for results; write <!-- results: NAME --> and its end")
    return _BLOCK.sub(
        lambda match: f"{match[1]}\n{_block(results, match['name'], match['digits'])}\n\n{match[4]}", page
    )


def refresh(page: Path, results: Path) -> None:
    """Fills in all tables of a page file, see `refreshed`."""
    text = refreshed(page.read_text(encoding="utf-8"), results)
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _block(results: Path, name: str, digits: str | None) -> str:
    path = results / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidArgumentError(f"{path}: no such results; run the command that makes them") from error
    rows = {
        row: {key: figure_from_json(value) for key, value in figures.items()}
        for row, figures in content["results"].items()
    }
    facts = "; ".join(f"{fact}: {value}" for fact, value in content["facts"].items() if fact != "command")
    command = content["facts"].get("command")
    said = [f"Made by `{command}`."] if command else []
    said += [f"{facts}."] if facts else []
    return "\n\n".join([format_table(rows, digits=int(digits or 3)), " ".join(said)])
