"""What a metric needs to be installed (Java, packages, their data), and the errors where it is missing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from pydeper.errors import PydeperError


class MissingRequirementError(PydeperError, RuntimeError):
    """Something a metric needs (Java, a package, a spaCy pipeline) is not installed; the message says how to get it."""


class ProgramError(PydeperError, RuntimeError):
    """A program that a metric runs (Java) failed or does not answer; the message carries what it printed."""


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
