"""The arguments of the command `pydeper`, put together from those of its sub-commands."""

import argparse

import pydeper
from pydeper.cli import capture, completion, demo, describe, doctor, persona, serve


def parser() -> argparse.ArgumentParser:
    """Returns the parser of `pydeper`; the options it reads have a function `run`, which takes them."""
    whole = argparse.ArgumentParser(
        prog="pydeper", description=pydeper.__doc__.splitlines()[0] if pydeper.__doc__ else ""
    )
    whole.add_argument("--version", action="version", version=f"pydeper {pydeper.__version__}")
    commands = whole.add_subparsers(title="commands", metavar="COMMAND")
    for command in (demo, capture, persona, describe, serve, doctor):
        command.add_to(commands)
    completion.add_to(commands, whole)
    return whole
