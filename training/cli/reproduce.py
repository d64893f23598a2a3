"""`python -m training reproduce`: an experiment of the paper."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="a configuration with that name, or its path")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="the data set as it was published")
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: runs/EXPERIMENT)")
    parser.add_argument(
        "--systems", nargs="+", metavar="SYSTEM", help='such as "DEPER, no FiLM" (default: no ablation)'
    )
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="at a time (default: %(default)s)")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all)")
    parser.add_argument("--tokenizer", choices=["ptb", "words", "split"], default="ptb", help="(default: %(default)s)")


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.evaluation.evaluate import ScoreSettings
    from training.evaluation.scores import METRICS
    from training.reproduce import SYSTEMS, run

    run(
        options.experiment,
        options.data,
        options.out,
        options.changes,
        systems=options.systems or SYSTEMS,
        scoring=ScoreSettings(metrics=tuple(options.metrics or METRICS), tokenizer=options.tokenizer),
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )
