"""`python -m training`: trains DEPER, makes the tiny model, measures."""

import argparse
from collections.abc import Sequence
from typing import Protocol

import attrs

from pydeper.console import run_command, write_any_text
from training.cli import (
    baseline,
    curve,
    evaluate,
    page,
    plots,
    reproduce,
    shard,
    stages,
    table,
    tiny,
)
from training.cli.data import prepare
from training.cli.people import identify, identify_across, privacy


class SubCommand(Protocol):
    """What a module of a sub-command has; heavy imports stay inside `run`, so that `--help` is quick."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the sub-command's own arguments."""

    def run(self, options: argparse.Namespace) -> None:
        """Runs the sub-command."""


@attrs.frozen
class Entry:
    """How a sub-command is listed.

    Attributes:
        name: Its name on the command line.
        module: See `SubCommand`.
        help: One line of `--help`.
        has_config: Whether it reads a configuration whose settings `--set` changes.
        interrupted: What to say after Ctrl-C.
    """

    name: str
    module: SubCommand
    help: str
    has_config: bool = True
    interrupted: str = "the same command goes on from the last checkpoint"


COMMANDS = (
    Entry("tiny", tiny, "train the built-in demonstration model from nothing"),
    Entry("stage1", stages, "train stage 1 on the samples that a config names"),
    Entry("stage2", stages, "train stage 2 on the samples that a config names"),
    Entry("shard", shard, "pack samples with their images in tar shards, to train on from anywhere", has_config=False),
    Entry("plots", plots, "draw a run's losses, its people as points, and how they looked", has_config=False),
    Entry(
        "identify",
        identify,
        "train stage 1 on one part of the samples and tell who made the others, beside classical answers",
    ),
    Entry(
        "identify-across",
        identify_across,
        "the same on data sets of other sizes and kinds: parts of one, narrations, simulated people",
    ),
    Entry(
        "evaluate",
        evaluate,
        "score descriptions, from files or made by a model, with intervals, person by person",
        has_config=False,
    ),
    Entry(
        "prepare",
        prepare,
        "make a data set to train on from files of people who look and tell",
        has_config=False,
        interrupted="nothing was written",
    ),
    Entry(
        "curve",
        curve,
        "how figures rise with the samples of a persona, or of a training",
        has_config=False,
        interrupted="the same command goes on where it stopped",
    ),
    Entry("privacy", privacy, "measure what a persona of the built-in model gives away", has_config=False),
    Entry("page", page, "fill the tables of a Markdown page in anew from the results beside it", has_config=False),
    Entry(
        "baseline",
        baseline,
        "let a baseline describe a config's samples, for evaluate to score",
        interrupted="the same command goes on with the next description",
    ),
    Entry(
        "table",
        table,
        "baselines, DEPER and its ablations in the tiny world, over several seeds",
        interrupted="the same command goes on where it stopped",
    ),
    Entry(
        "reproduce",
        reproduce,
        "an experiment of the paper, from its data to its table",
        interrupted="the same command goes on where it stopped",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    It is 2 for a mistake of the user or the system, 130 for Ctrl-C, 143 for SIGTERM, 141 where the reader of a pipe has
    gone.
    """
    write_any_text()  # also the help
    options = build_parser().parse_args(arguments)

    def run() -> int:
        options.entry.module.run(options)
        return 0

    # A training run that was asked to stop says itself what it saved, and which signal came.
    interrupted = f"interrupted; {options.entry.interrupted}"
    return run_command(f"python -m training {options.command}", run, interrupted=interrupted)


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all sub-commands."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for entry in COMMANDS:
        command = commands.add_parser(entry.name, help=entry.help)
        entry.module.add_arguments(command)
        if entry.has_config:
            command.add_argument(
                "--set", dest="changes", action="append", default=[], metavar="KEY=VALUE", help="change a setting"
            )
        command.set_defaults(entry=entry)
    return parser
