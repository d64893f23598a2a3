"""`python -m training reproduce`: an experiment of the paper."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli.data.fixation_table import add_column, add_placement, add_units, named_columns, placement_of

if TYPE_CHECKING:
    from training.reproduction.sources import DataOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the sub-command's arguments."""
    parser.add_argument("experiment", metavar="EXPERIMENT", help="a configuration with that name, or its path")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder of the data set as it was published or prepared, or the JSON of the paper's released code",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: runs/EXPERIMENT)")
    parser.add_argument(
        "--systems", nargs="+", metavar="SYSTEM", help='such as "DEPER, no FiLM" (default: no ablation)'
    )
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="at a time (default: %(default)s)")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="some of them (default: all)")
    parser.add_argument("--tokenizer", choices=["ptb", "words", "split"], default="ptb", help="(default: %(default)s)")
    parser.add_argument(
        "--wordnet", choices=["meteor", "nltk"], default="meteor", help="that OSS reads (default: %(default)s)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only say what it would read and train, and what that takes",
    )
    parser.add_argument(
        "--throughput",
        type=Path,
        metavar="FILE",
        help="for --dry-run: a report of benchmarks.training_throughput (default: the one in docs/results)",
    )
    parser.add_argument(
        "--gpu-speedup",
        type=float,
        metavar="X",
        help="for --dry-run: how many times as fast as the machine of that report a GPU is taken to be "
        "(default: 100, or 1 if that was a GPU)",
    )
    _add_splits(parser.add_argument_group("splits, where the data set is not prepared yet"))
    tables = parser.add_argument_group("tables of fixations and captions (kollenda)")
    tables.add_argument("--fixations", default="fixations.csv", metavar="FILE", help="in DIR (default: %(default)s)")
    tables.add_argument("--captions", default="captions.csv", metavar="FILE", help="in DIR (default: %(default)s)")
    tables.add_argument(
        "--caption-columns",
        nargs=3,
        default=("subject", "image", "description"),
        metavar=("PERSON", "IMAGE", "TEXT"),
        help="of the captions (default: subject image description)",
    )
    add_column(tables)
    add_units(tables)
    add_placement(tables)


def _add_splits(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--splits",
        choices=["published", "own"],
        help="of the images: as they were published, or made by order of hashes (default: published, if any are)",
    )
    group.add_argument(
        "--test-split", choices=["val", "test"], help="the published split to report on (default: the paper's)"
    )
    group.add_argument(
        "--unseen",
        nargs="*",
        metavar="ID",
        help="who is unseen; no ID: nobody (default: the paper's people, or as many, chosen by order of hashes)",
    )
    group.add_argument(
        "--boxes",
        choices=["normalised", "pixels"],
        default="normalised",
        help="in the JSON of the released code (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Runs the sub-command."""
    from training.evaluation.evaluate import ScoreSettings
    from training.evaluation.scores import METRICS
    from training.reproduce import SYSTEMS, dry_run, run
    from training.reproduction.trainings import THROUGHPUT

    if options.dry_run:
        told = dry_run(
            options.experiment,
            options.data,
            options.out,
            options.changes,
            systems=options.systems or SYSTEMS,
            options=_data_options(options),
            max_new_tokens=options.max_new_tokens,
            throughput=options.throughput or THROUGHPUT,
            gpu_speedup=options.gpu_speedup,
        )
        print(told)
        return
    run(
        options.experiment,
        options.data,
        options.out,
        options.changes,
        systems=options.systems or SYSTEMS,
        options=_data_options(options),
        scoring=ScoreSettings(
            metrics=tuple(options.metrics or METRICS), tokenizer=options.tokenizer, wordnet=options.wordnet
        ),
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
    )


def _data_options(options: argparse.Namespace) -> "DataOptions":
    import attrs

    from training.reproduction.sources import FIXATION_TABLE, DataOptions, TableOptions

    given = {"units": options.units, "time_unit": options.time_unit} | named_columns(options.column)
    changes = {name: value for name, value in given.items() if value is not None}
    return DataOptions(
        splits=options.splits,
        test_split=options.test_split,
        unseen=None if options.unseen is None else tuple(options.unseen),
        boxes=options.boxes,
        tables=TableOptions(
            fixations=options.fixations,
            captions=options.captions,
            caption_columns=tuple(options.caption_columns),
            fixation_format=attrs.evolve(FIXATION_TABLE, **changes),
            placement=placement_of(options),
        ),
    )
