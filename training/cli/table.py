"""`python -m training table`: baselines, DEPER, its ablations and its recipe in the tiny world."""

import argparse
from pathlib import Path

from training.paths import CONFIGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("--config", type=Path, default=CONFIGS / "tiny.toml")
    parser.add_argument("--frozen", type=Path, default=Path("runs/tiny"), help="the tiny VLM's (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/table"), help="what is done (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="where the results go (default: OUT/results)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each (default: %(default)s)")
    parser.add_argument("--systems", nargs="+", metavar="SYSTEM", help='some, such as "DEPER, no FiLM" (default: all)')
    parser.add_argument(
        "--recipe",
        action="store_true",
        help="instead: what makes looking reach unseen people, one choice of the tiny model's recipe changed at a time",
    )
    parser.add_argument("--name", metavar="NAME", help="what the tables' names begin with (default: tiny-table)")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all; METEOR needs Java)")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from pydeper.errors import InvalidArgumentError
    from training.evaluation.scores import METRICS
    from training.tiny import recipe, table

    report, metrics = options.report or options.out / "results", options.metrics or METRICS
    places = (options.config, options.changes, options.frozen, options.out, report)
    if not options.recipe:
        systems, name = options.systems or table.SYSTEMS, options.name or table.NAME
        table.run(*places, seeds=options.seeds, systems=systems, metrics=metrics, name=name)
        return
    for option, given in {"--systems": options.systems, "--name": options.name}.items():
        if given:
            raise InvalidArgumentError(f"{option}: --recipe has its own; leave one of the two out")
    recipe.run(*places, seeds=options.seeds, metrics=metrics)
