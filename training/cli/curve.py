"""`python -m training curve`: how many samples a persona, and a training, needs; a sub-command for each curve."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.data.prepare import add_check_durations
from training.paths import CONFIGS

if TYPE_CHECKING:
    from training.curves.support import SupportSettings
    from training.evaluation.evaluate import ScoreSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds a sub-command for each curve."""
    curves = parser.add_subparsers(dest="curve", required=True, metavar="CURVE")

    support = curves.add_parser("support", help="personas of a model from 1, 2, 3, ... samples of each person")
    support.add_argument("--bundle", required=True, metavar="MODEL", help='folder, Hub id or "tiny": describes')
    support.add_argument("--samples", type=Path, required=True, metavar="FILE", help="what people wrote")
    support.add_argument(
        "--splits", nargs="+", metavar="SPLIT", default=["test", "query"], help="what is described (default: both)"
    )
    _add_draws(support)
    support.add_argument("--style", default="description", help="prompt style of the model (default: %(default)s)")
    _add_describing(support)
    _add_scoring(support)
    add_check_durations(support)
    _add_output(support, Path("runs/curve-support"))
    support.set_defaults(make=_support)

    training = curves.add_parser("training", help="DEPER trained anew on 25, 50, 100, ... samples of each person")
    training.add_argument("--config", type=Path, required=True, help="the training on all samples")
    _add_counts(training)
    training.add_argument("--batch-size", type=int, default=16, metavar="N", help="at a time (default: %(default)s)")
    _add_describing(training)
    _add_scoring(training)
    _add_output(training, Path("runs/curve-training"))
    _add_changes(training)
    training.set_defaults(make=_training)

    tiny_support = curves.add_parser("tiny-support", help="the first in the tiny world")
    _add_tiny_config(tiny_support)
    tiny_support.add_argument("--bundle", default="tiny", metavar="MODEL", help="(default: the built-in model)")
    _add_draws(tiny_support)
    _add_metrics(tiny_support)
    _add_output(tiny_support, Path("runs/curve-tiny-support"))
    _add_changes(tiny_support)
    tiny_support.set_defaults(make=_tiny_support)

    tiny_training = curves.add_parser("tiny-training", help="the second in the tiny world")
    _add_tiny_config(tiny_training)
    tiny_training.add_argument(
        "--frozen", type=Path, default=Path("runs/tiny"), help="the tiny VLM's (default: %(default)s)"
    )
    _add_counts(tiny_training)
    tiny_training.add_argument("--seed", type=int, default=0, help="of the trainings (default: %(default)s)")
    _add_metrics(tiny_training)
    _add_output(tiny_training, Path("runs/curve-tiny-training"))
    _add_changes(tiny_training)
    tiny_training.set_defaults(make=_tiny_training)


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    options.make(options, options.out, options.report or options.out / "results")


def _add_counts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--counts", type=int, nargs="+", metavar="N", help="(default: those that there are samples for)"
    )


def _add_draws(parser: argparse.ArgumentParser) -> None:
    _add_counts(parser)
    parser.add_argument("--draws", type=int, default=3, metavar="N", help="of each number (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: %(default)s)")


def _add_describing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--dataset", metavar="NAME", help="what to call the samples' data set, as in evaluate")


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all; METEOR needs Java)")


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    _add_metrics(parser)
    parser.add_argument("--tokenizer", choices=["ptb", "words", "split"], default="ptb", help="(default: %(default)s)")
    parser.add_argument("--wordnet", choices=["meteor", "nltk"], default="meteor", help="(default: %(default)s)")


def _add_tiny_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGS / "tiny.toml")


def _add_output(parser: argparse.ArgumentParser, default: Path) -> None:
    parser.add_argument("--out", type=Path, default=default, help="what is done (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="where the results go (default: OUT/results)")


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
    )


def _scoring(options: argparse.Namespace) -> "ScoreSettings":
    from training.evaluation.evaluate import ScoreSettings
    from training.evaluation.scores import METRICS

    return ScoreSettings(
        metrics=tuple(options.metrics or METRICS), tokenizer=options.tokenizer, wordnet=options.wordnet
    )


def _draws(options: argparse.Namespace) -> "SupportSettings":
    from training.curves.support import SupportSettings

    return SupportSettings(
        counts=None if options.counts is None else tuple(options.counts), draws=options.draws, seed=options.seed
    )


def _support(options: argparse.Namespace, out: Path, report: Path) -> None:
    import attrs

    from training.curves import support

    support.run(
        options.bundle,
        options.samples,
        out,
        report,
        attrs.evolve(_draws(options), style=options.style, max_new_tokens=options.max_new_tokens),
        _scoring(options),
        splits=options.splits,
        dataset=options.dataset,
        check_durations=options.check_durations,
    )


def _training(options: argparse.Namespace, out: Path, report: Path) -> None:
    from training.curves import training_samples

    training_samples.run(
        options.config,
        options.changes,
        out,
        report,
        _scoring(options),
        counts=options.counts,
        dataset=options.dataset,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )


def _tiny_support(options: argparse.Namespace, out: Path, report: Path) -> None:
    from training.curves import tiny
    from training.evaluation.scores import METRICS

    tiny.support_curve(
        options.config,
        options.changes,
        options.bundle,
        out,
        report,
        _draws(options),
        metrics=options.metrics or METRICS,
    )


def _tiny_training(options: argparse.Namespace, out: Path, report: Path) -> None:
    from training.curves import tiny
    from training.evaluation.scores import METRICS

    tiny.training_curve(
        options.config,
        options.changes,
        options.frozen,
        out,
        report,
        counts=options.counts,
        seed=options.seed,
        metrics=options.metrics or METRICS,
    )
