"""`python -m export manifest`: a bundle's manifest, written anew."""

import argparse
from pathlib import Path

from export.bundle.assemble import write_manifest


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    does = "write manifest.json anew from the files that are there"
    parser = commands.add_parser("manifest", help=does, description=does)
    parser.add_argument("bundle", type=Path, help="the folder")
    parser.set_defaults(execute=run)


def run(options: argparse.Namespace) -> str:
    """Runs the command; returns what it prints."""
    entries = write_manifest(options.bundle)
    return f"{len(entries)} files, {sum(entry.size for entry in entries.values())} bytes"
