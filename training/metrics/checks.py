"""What every metric asks of its input and of the machine it runs on."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence, Sized
from pathlib import Path

from pydeper.errors import InvalidArgumentError, PydeperError


class MissingRequirementError(PydeperError, RuntimeError):
    """Something a metric needs (Java, a package, a spaCy pipeline) is not installed; the message says how to get it."""


class ProgramError(PydeperError, RuntimeError):
    """A program that a metric runs (Java) failed or does not answer; the message carries what it printed."""


def check_texts(name: str, texts: Sequence[str]) -> list[str]:
    """Returns `texts` as a list.

    Raises:
        InvalidArgumentError: If it is empty, a single string, or holds anything but strings that UTF-8 can encode.
    """
    if isinstance(texts, str):
        raise InvalidArgumentError(f"{name} is one string; give a list of strings, one per description")
    texts = list(texts)
    if not texts:
        raise InvalidArgumentError(f"{name} is empty; a metric needs at least one description")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidArgumentError(f"{name}[{index}] is a {type(text).__name__}, not a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"{name}[{index}] holds half a surrogate pair at character {error.start}, which is no text; decode it "
                "again from its original bytes"
            ) from error
    return texts


def check_lengths(**columns: Sized) -> int:
    """Returns the number of rows that all columns share.

    Raises:
        InvalidArgumentError: If the columns differ in length or are empty.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        sizes = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InvalidArgumentError(f"the lists must be of one length, row for row, but {sizes}")
    length = next(iter(lengths.values()))
    if length == 0:
        raise InvalidArgumentError(f"{' and '.join(lengths)} are empty; a metric needs at least one row")
    return length


def check_pairs(candidates: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns candidates and references as two lists of strings of one length, at least 1.

    Raises:
        InvalidArgumentError: See `check_texts` and `check_lengths`.
    """
    candidates, references = check_texts("candidates", candidates), check_texts("references", references)
    check_lengths(candidates=candidates, references=references)
    return candidates, references


def find_java(purpose: str) -> str:
    """Returns the path of the `java` program.

    Raises:
        MissingRequirementError: If there is none on PATH.
    """
    java = shutil.which("java")
    if java is None:
        raise MissingRequirementError(
            f"{purpose} runs in Java, and there is no `java` on PATH; install a Java runtime, version 8 or newer "
            "(Debian and Ubuntu: `apt-get install default-jre-headless`)"
        )
    return java


def find_coco_file(relative: str) -> Path:
    """Returns the path of a file of the `pycocoevalcap` package.

    Raises:
        MissingRequirementError: If the package or the file is missing.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        path = Path(folder, relative)
        if path.is_file():
            return path
    raise MissingRequirementError(
        f"{relative} of the package pycocoevalcap is missing (looked in: {', '.join(folders) or 'not installed'}); "
        'run `pip install "pycocoevalcap==1.2"`, or the extra: `pip install -e ".[eval]"`'
    )


def check_meteor(purpose: str) -> None:
    """Says before hours of work that METEOR would lack something.

    Args:
        purpose: What wants it, such as "selection: meteor".

    Raises:
        MissingRequirementError: Java or pycocoevalcap is missing.
    """
    find_java(purpose)
    find_coco_file("meteor/meteor-1.5.jar")
