"""Work on a finished bundle: `python -m export verify|manifest|card BUNDLE`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from export.bundle import write_card, write_manifest
from pydeper.bundle import read_config, verify
from pydeper.errors import PydeperError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 2 with a message where the bundle is not in order."""
    parser = argparse.ArgumentParser(prog="python -m export", description="Work on a finished bundle.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in (
        ("verify", "check every file against the manifest, and config.json"),
        ("manifest", "write manifest.json anew from the files that are there"),
        ("card", "write README.md anew from config.json, and then the manifest"),
    ):
        commands.add_parser(name, help=does, description=does).add_argument("bundle", type=Path, help="the folder")
    options = parser.parse_args(arguments)
    try:
        print(_run(options.command, options.bundle))
    except (PydeperError, OSError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


def _run(command: str, folder: Path) -> str:
    if command == "manifest":
        entries = write_manifest(folder)
        return f"{len(entries)} files, {sum(entry.size for entry in entries.values())} bytes"
    if command == "card":
        return str(write_card(folder))
    verify(folder)
    return f"{folder}: {read_config(folder).name} is in order"


if __name__ == "__main__":
    sys.exit(main())
