"""What `prepare` wrote into a folder, so that it replaces that and nothing else.

`report.json` has under `files` the size and the sha256 of each file that was written with it, and of itself.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.outputs import exists, refuse

SAMPLES, SPLITS_FILE, REPORT, CARD = FILES = ("samples.jsonl", "splits.json", "report.json", "README.md")
"""What a prepared folder holds."""

WORD_TIMES = "word_times.jsonl"
"""What it holds as well where the source says when words were spoken; see training/preparation/word_times.py."""

_ALL_FILES = (*FILES, WORD_TIMES)

Fact = Mapping[str, int | str]
"""A file's size in bytes and its sha256."""


def written_files(folder: Path) -> dict[str, Fact]:
    """Returns the files of a folder that `prepare` wrote, and that are still as it wrote them."""
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        facts: dict[str, Fact] = content.pop("files")
        names = [name for name in _ALL_FILES if name in facts]
        own = {REPORT: facts.get(REPORT)} == {REPORT: _fact(_encoded(content))}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # there is no report, or it is somebody else's
        return {}
    return {name: facts[name] for name in names if own and (name == REPORT or fact_of(folder / name) == facts[name])}


def check_replaceable(folder: Path, kept: tuple[str, ...] = ()) -> None:
    """Refuses to replace files of a folder that `prepare` did not write, or that have been changed since.

    Args:
        folder: The folder to prepare.
        kept: Files that stay as they are.

    Raises:
        OutputError: There is such a file.
    """
    own = written_files(folder)
    refuse(folder, (name for name in _ALL_FILES if name not in (*own, *kept) and exists(folder / name)))


def report_text(content: dict[str, Any], files: Mapping[str, Fact | None]) -> str:
    """Returns the text of a report, with what tells its folder's files from others.

    Args:
        content: What it says.
        files: The files that are written with it; None for those that are not there yet.
    """
    facts = {name: files[name] for name in _ALL_FILES if files.get(name) is not None}
    return _encoded(content | {"files": {**facts, REPORT: _fact(_encoded(content))}})


def fact_of(path: Path) -> Fact | None:
    """Returns a file's size and sha256, or None where there is no such file."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return {"size": file.tell(), "sha256": digest}
    except OSError:
        return None


def _encoded(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _fact(text: str) -> Fact:
    content = text.encode()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
