"""`python -m training stage1` and `stage2`: trains one stage of DEPER."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments, which both stages have."""
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.config import TrainingConfig, load_config
    from training.runs.train_stages import train_stage1, train_stage2

    train = {"stage1": train_stage1, "stage2": train_stage2}[options.command]
    train(load_config(TrainingConfig, options.config, options.changes), options.out)
