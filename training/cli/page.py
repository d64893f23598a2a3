"""`python -m training page`: fills in the tables of a Markdown page."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("page", type=Path, help="for example docs/results.md")
    parser.add_argument("--results", type=Path, help="folder of the JSON files (default: the page's name, without .md)")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.evaluation.page import refresh

    refresh(options.page, options.results or options.page.with_suffix(""))
