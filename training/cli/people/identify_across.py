"""`python -m training identify-across`: `identify` on data sets of other sizes and kinds."""

import argparse
from pathlib import Path

from training.paths import CONFIGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("--config", type=Path, default=CONFIGS / "scene_description.toml")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="holds samples.jsonl, of which a third of the people is one data set, a third of the photographs another",
    )
    parser.add_argument(
        "--narrations", type=Path, nargs="+", default=[], metavar="FILE", help="in the layout of Localized Narratives"
    )
    parser.add_argument(
        "--groups", type=int, default=15, metavar="N", help="of 8 simulated people; 0: none (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of data sets, checkpoints and logs")
    parser.add_argument("--report", type=Path, help="where the table goes (default: OUT/results)")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.evaluation.report import command_line
    from training.people.across.compare import run
    from training.people.across.data_sets import narrations, parts, simulated_people
    from training.preparation.prepared_folder import SAMPLES

    data_sets = []
    words = ["python", "-m", "training", "identify-across"]
    if options.data is not None:
        data_sets += parts(options.data / SAMPLES)
        words += ["--data", "FOLDER"]
    if options.narrations:
        data_sets.append(narrations(options.narrations))
        words += ["--narrations", "FILE"]
    if options.groups:
        data_sets.append(simulated_people(options.groups))
    words += ["--groups", str(options.groups), "--out", "FOLDER"]
    report = options.report or options.out / "results"
    run(data_sets, options.config, options.changes, options.out, report, command_line(words, options.changes))
