"""`python -m training privacy`: measures what a persona gives away."""

import argparse
from pathlib import Path

from training.paths import CONFIGS, RESULTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("--config", type=Path, default=CONFIGS / "tiny.toml", help="what the model was made with")
    parser.add_argument("--report", type=Path, default=RESULTS, help="where the results go")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.people import privacy

    print(privacy.run(options.config, options.report)[1].read_text(encoding="utf-8"))
