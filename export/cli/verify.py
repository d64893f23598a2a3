"""`python -m export verify`: a bundle's files against its manifest."""

import argparse
from pathlib import Path

from pydeper.bundle.bundle import read_config
from pydeper.bundle.manifest import verify


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    does = "check every file against the manifest, and config.json"
    parser = commands.add_parser("verify", help=does, description=does)
    parser.add_argument("bundle", type=Path, help="the folder")
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
    verify(options.bundle)
    return f"{options.bundle}: {read_config(options.bundle).name} is in order"
