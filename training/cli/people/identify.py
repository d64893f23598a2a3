"""`python -m training identify`: tells who made the held-out samples."""

import argparse
import json
from pathlib import Path

from training.paths import CONFIGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("--config", type=Path, default=CONFIGS / "scene_description.toml")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="holds samples.jsonl (or use --set samples=FILE)")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--report", type=Path, help="where the results go (default: OUT/results)")
    parser.add_argument(
        "--selection-folds", type=int, default=7, metavar="K", help="to choose within the training split (default: 7)"
    )
    parser.add_argument(
        "--folds", type=int, nargs="*", default=[], metavar="K", help="also measure K-fold over all photographs"
    )
    parser.add_argument(
        "--new-people", type=int, default=0, metavar="P", help="also enrol P people at a time who were not trained on"
    )
    parser.add_argument(
        "--draws", type=int, default=100, metavar="N", help="random enrolments of each P people (default: %(default)s)"
    )
    parser.add_argument(
        "--trainings", type=int, default=1, metavar="N", help="an ensemble of N, with seeds one apart (default: 1)"
    )


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.config import TrainingConfig, load_config
    from training.people.identify import Protocols, run

    changes = [*options.changes]
    if options.data is not None:
        changes.insert(0, f"samples={json.dumps(str(options.data / 'samples.jsonl'))}")
    config = load_config(TrainingConfig, options.config, changes)
    report = options.report or options.out / "results"
    protocols = Protocols(
        selection_folds=options.selection_folds,
        folds=options.folds,
        new_people=options.new_people,
        draws=options.draws,
        trainings=options.trainings,
    )
    run(config, options.out, report, protocols, options.changes)
