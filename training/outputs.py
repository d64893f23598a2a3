"""Where commands write: what they may replace, and what a failed one leaves behind."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydeper.errors import PydeperError


class OutputError(PydeperError, ValueError):
    """An output would replace what the command did not write."""


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Makes a folder, with its parents, for what the block writes into it.

    After an error, the folders that were made here are removed again, unless something is in them by then.

    Raises:
        OSError: The folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # it is not empty, and then no parent is
            for path in made:
                path.rmdir()
        raise


def refuse(folder: Path, foreign: Iterable[str]) -> None:
    """Refuses to write into a folder, where that would replace files that are not the command's own.

    Args:
        folder: The folder.
        foreign: The names of such files in it.

    Raises:
        OutputError: There is one; the message names the folder, the files and the remedy.
    """
    if names := sorted(foreign):
        others = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise OutputError(
            f"{folder}: holds {', '.join(names[:3])}{others}, which this command would replace and has not written, or "
            "not as it is now: name another folder for the output, or move that away"
        )


def exists(path: Path) -> bool:
    """Whether there is anything at a path, be it a link that leads nowhere."""
    return os.path.lexists(path)
