"""`python -m training evaluate`: scores descriptions."""

import argparse
from pathlib import Path

from training.cli.data.prepare import add_check_durations


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("--predictions", type=Path, nargs="+", default=[], metavar="FILE", help="JSON Lines")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="what people wrote; what a model is asked")
    parser.add_argument("--bundle", metavar="MODEL", help='folder, Hub id or "tiny": describes the samples first')
    parser.add_argument(
        "--splits", nargs="+", metavar="SPLIT", default=["test", "query"], help="which samples a model describes"
    )
    parser.add_argument("--style", default="description", help="prompt style of the model (default: %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--zero-shot", action="store_true", help="the model also describes without a persona")
    parser.add_argument("--dataset", metavar="NAME", help="what to call the samples' data set")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all)")
    parser.add_argument("--tokenizer", choices=["ptb", "words", "split"], default="ptb", help="(default: %(default)s)")
    parser.add_argument("--wordnet", choices=["meteor", "nltk"], default="meteor", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of predictions, tables and pictures")
    add_check_durations(parser)


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.evaluation.describe import DescribeSettings
    from training.evaluation.evaluate import ScoreSettings, run
    from training.evaluation.scores import METRICS

    describing = DescribeSettings(
        bundle=options.bundle,
        splits=tuple(options.splits),
        style=options.style,
        max_new_tokens=options.max_new_tokens,
        zero_shot=options.zero_shot,
    )
    run(
        options.out,
        ScoreSettings(metrics=tuple(options.metrics or METRICS), tokenizer=options.tokenizer, wordnet=options.wordnet),
        files=options.predictions,
        samples=options.samples,
        describing=describing if options.bundle else None,
        dataset=options.dataset,
        check_durations=options.check_durations,
    )
