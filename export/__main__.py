"""Starts the command `python -m export`; see `export.cli.main`."""

import sys

from export.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
