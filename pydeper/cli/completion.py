"""`pydeper completion`: what a shell needs to complete the command's names, options and files."""

import argparse
from typing import Any

from pydeper.cli.command import add_command
from pydeper.errors import InvalidArgumentError


def add_to(commands: Any, whole: argparse.ArgumentParser) -> None:
    """Adds the sub-command, which completes the `whole` command."""

    def run(options: argparse.Namespace) -> int:
        print(script(whole, options.shell))
        return 0

    completion = add_command(commands, "completion", run, "print the completion of this command for a shell")
    completion.add_argument(
        "shell", choices=("bash", "zsh", "tcsh"), help="as in: pydeper completion bash >> ~/.bashrc"
    )


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Returns the script that completes a parser's commands and options in a shell.

    Raises:
        InvalidArgumentError: shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise InvalidArgumentError('completion needs shtab: pip install "pydeper[completion]"') from error
    complete: str = shtab.complete(parser, shell=shell)
    return complete
