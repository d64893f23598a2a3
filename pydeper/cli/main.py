"""The command `pydeper`.

demo; capture; persona create, show, list, fetch, push, delete; describe; serve, serve keys; doctor; completion.

Exit status: 0; 1 where `doctor` finds something wrong, or `describe` passed over images that failed; 2 for a mistake in
what was asked for, with one message on stderr; 130 after Ctrl-C; 141 where the reader of a pipe has gone.
"""

import os
from collections.abc import Sequence

from pydeper.cli.parser import parser
from pydeper.console import run_command, write_any_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    # The Hub's client writes a line for each of its attempts; what came of them is said in one message.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    write_any_text()  # the help, too
    whole = parser()
    options = whole.parse_args(arguments)
    if not hasattr(options, "run"):
        whole.print_help()
        return 0
    return run_command("pydeper", lambda: options.run(options))
