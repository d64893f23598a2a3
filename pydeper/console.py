"""What a command does with the terminal or the pipes that it was started with."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from pydeper.errors import PydeperError
from pydeper.untrusted import legible


def run_command(name: str, run: Callable[[], int], *, interrupted: str = "") -> int:
    """Runs a command as a shell expects it; its messages and warnings are one line each on stderr.

    Args:
        name: What messages begin with.
        run: The command; returns its exit status.
        interrupted: What to say after Ctrl-C; a `KeyboardInterrupt` with a text of its own says that.

    Returns:
        What `run` returns; 2 for a mistake of the user or of the system, 130 after Ctrl-C (or the `code` of the
        `KeyboardInterrupt`), 141 where the reader of a pipe has gone.
    """
    write_any_text()
    try:
        with _plain_warnings(name):
            status = run()
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        _drop_output()
        return 141
    except KeyboardInterrupt as stop:
        if text := str(stop) or interrupted:
            print(f"\n{text}", file=sys.stderr)
        return int(getattr(stop, "code", 130))
    except (PydeperError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # the error was one of stdout, such as a disk that is full
            _drop_output()
        return 2


def write_any_text() -> None:
    r"""Lets stdout and stderr take any text, whatever their encoding, and whether they are open or not.

    What an encoding lacks, and the parts of file names that are no text, are written as escapes such as ``\u65e5``.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the process
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the process's life
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Keeps Python from complaining once more, at its end, about what could not be written to stdout."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _plain_warnings(name: str) -> Iterator[None]:
    """Shows warnings as messages of the command, without the line of code they come from."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
        line: str | None = None,
    ) -> None:  # fmt: skip
        print(f"{name}: warning: {legible(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
