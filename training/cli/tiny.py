"""`python -m training tiny`: trains the built-in demonstration model."""

import argparse
from pathlib import Path

from training.paths import CONFIGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("--config", type=Path, default=CONFIGS / "tiny.toml")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/tiny"), help="checkpoints and logs (default: %(default)s)"
    )


def run(options: argparse.Namespace) -> None:
    """Trains what is not trained yet, and says how the bundle is made."""
    from training.config import load_config
    from training.tiny.config import TinyConfig
    from training.tiny.make import make

    make(load_config(TinyConfig, options.config, options.changes), options.out)
    print(f"{options.out}: trained; `python -m export tiny --out {options.out}` makes the bundle")
