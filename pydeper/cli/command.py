"""What the sub-commands share: how one is added, and how it writes what a model said."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from pydeper.untrusted import legible


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], does: str
) -> argparse.ArgumentParser:
    """Adds a sub-command that `run` carries out, and returns its parser.

    Args:
        commands: What `add_subparsers` gave.
        name: Of the sub-command.
        run: Takes the options, returns the exit status.
        does: What it does, for the help.
    """
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=does, description=does[0].upper() + does[1:] + "."
    )
    command.set_defaults(run=run)
    return command


def add_model(command: argparse.ArgumentParser) -> None:
    """Adds the option that names the model."""
    command.add_argument(
        "--model", metavar="MODEL", help="a Hub id, a folder, or 'tiny' (default: $PYDEPER_MODEL, else 'tiny')"
    )


def add_servers(command: argparse.ArgumentParser) -> None:
    """Adds the option that names vLLM servers."""
    command.add_argument(
        "--vlm",
        action="append",
        metavar="ADDRESS",
        help="of a vLLM server that the vision-language model runs on, as http://host:8000/v1; give it again for more "
        "servers; their API key is $PYDEPER_VLLM_API_KEY (default: it runs on this machine)",
    )


def written(text: str) -> str:
    """Returns what a model wrote; for a terminal without what would command it, for a pipe to the letter."""
    return legible(text) if sys.stdout.isatty() else text


def add_runtime(command: argparse.ArgumentParser) -> None:
    """Adds the options that say what the model runs on."""
    command.add_argument(
        "--runtime",
        choices=("onnxruntime", "openvino"),
        help="default: $PYDEPER_RUNTIME, else the one that is installed",
    )
    command.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "gpu"),
        help="cuda is ONNX Runtime's, gpu is OpenVINO's (default: %(default)s)",
    )
    command.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: the runtime's choice)")
