"""`python -m training plots`: draws a run's losses, people and trajectories."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; gets plots/")
    parser.add_argument("--projection", choices=("pca", "tsne"), default="pca", help="(default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=6, metavar="N", help="trajectories (default: %(default)s)")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.runs.plots import plot_run

    for path in plot_run(options.out, options.projection, options.pictures):
        print(path)
