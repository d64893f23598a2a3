"""The command `pydeper`: demo; persona create, show, list, fetch, push, delete; describe; doctor.

Exit status: 0; 1 where `doctor` finds something wrong; 2 for a mistake in what was asked for, with one message on
stderr; 130 after Ctrl-C; 141 where the reader of a pipe has gone.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TextIO

from pydeper.cli.parser import parser
from pydeper.errors import PydeperError
from pydeper.untrusted import legible


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        with _plain_warnings():
            status: int = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python flushes stdout once more at its end, and would complain there.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except (PydeperError, OSError) as error:
        print(f"pydeper: {error}", file=sys.stderr)
        return 2


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Shows warnings as messages of this command, without the line of code they come from."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
        line: str | None = None,
    ) -> None:  # fmt: skip
        print(f"pydeper: warning: {legible(str(message))}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
