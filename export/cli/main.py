"""The command `python -m export`: a VLM from transformers to ONNX, a trained model to a bundle, work on a bundle."""

import argparse
import sys
from collections.abc import Sequence

from export.cli import bundle, card, manifest, push, tiny, verify, vlm
from pydeper.errors import PydeperError

_DESCRIPTION = "Export a vision-language model or a trained model, or work on a finished bundle."


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command and of all its sub-commands."""
    parser = argparse.ArgumentParser(prog="python -m export", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (vlm, bundle, tiny, verify, manifest, card, push):
        module.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 2 with a message where something is not in order."""
    options = build_parser().parse_args(arguments)
    try:
        print(options.execute(options))
    except (PydeperError, ValueError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0
