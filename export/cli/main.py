"""The command `python -m export`: a VLM from transformers to ONNX, a trained model to a bundle, work on a bundle."""

import argparse
from collections.abc import Sequence

from export.cli import bundle, card, manifest, parts, push, tiny, verify, vlm
from pydeper.console import run_command, write_any_text
from pydeper.errors import PydeperError

_DESCRIPTION = "Export a vision-language model or a trained model, or work on a finished bundle."

_INTERRUPTED = {
    "vlm": "interrupted; the same command goes on after the last finished step",
    "push": "interrupted; the same command goes on with what was not sent yet",
}
"""What to say after Ctrl-C, where there is more to say."""


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command and of all its sub-commands."""
    parser = argparse.ArgumentParser(prog="python -m export", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (vlm, bundle, parts, tiny, verify, manifest, card, push):
        module.add_to(commands)
    for name, command in commands.choices.items():
        command.set_defaults(interrupted=_INTERRUPTED.get(name, "interrupted"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    It is 0, or 2 with a message where something is not in order, 130 for Ctrl-C, 141 where the reader of a pipe has
    gone.
    """
    write_any_text()  # also the help
    options = build_parser().parse_args(arguments)

    def run() -> int:
        try:
            print(options.execute(options))
        except PydeperError:
            raise
        except ValueError as error:  # what cannot be exported, and graphs that differ from torch
            raise PydeperError(str(error)) from error
        return 0

    return run_command("export", run, interrupted=options.interrupted)
