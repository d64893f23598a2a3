"""A table of fixations on the command line: its columns, its units, and where on the screen the images were."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers import (
    REPORT_FORMATS,
    BoxRadius,
    Placement,
    ReportFormat,
    SampleStream,
    Tolerance,
    read_fixation_report,
)
from pydeper.readers.fixation_report.columns import likely_columns, likely_time_unit
from pydeper.readers.fixation_report.report_format import ROLES
from pydeper.readers.tables.table import Table
from pydeper.untrusted import shown

CUSTOM = "custom"
"""The format of a table whose columns the command line names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `prepare fixation-report`."""
    parser.add_argument("path", type=Path, metavar="FILE", help="CSV, TSV or a workbook")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument(
        "--descriptions", type=Path, metavar="FILE", help="JSON Lines or CSV: subject, image, description"
    )
    parser.add_argument(
        "--format",
        dest="report_format",
        choices=[*sorted(REPORT_FORMATS), CUSTOM],
        required=True,
        help=f"whose columns they are; {CUSTOM}: as --column says",
    )
    add_column(parser)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="take the rows with this value alone; may be repeated, also for several values of a column",
    )
    add_units(parser)
    parser.add_argument("--subject", help="who it is, where no column says")
    parser.add_argument("--image", help="which image it is, where no column says")
    add_placement(parser, "(or WxH) images are centred on it, see --scale")
    parser.add_argument("--radius", type=float, default=0.035, help="of a box (default: %(default)s)")
    parser.add_argument("--radius-unit", choices=["fraction", "px"], default="fraction", help="(default: %(default)s)")
    parser.add_argument("--encoding", help="(default: by the byte order mark, else UTF-8)")
    parser.add_argument("--sheet", metavar="NAME", help="of a workbook (default: the one that holds anything)")
    parser.add_argument("--decimal", choices=[".", ","], help="the decimal mark (default: as the numbers show)")


def add_column(parser: argparse._ActionsContainer) -> None:
    """Adds the option that says which column of a table is what."""
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help=f"which column is what: NAME is one of {', '.join(ROLES)}; may be repeated",
    )


def add_units(parser: argparse._ActionsContainer) -> None:
    """Adds the options that say what the numbers of a table of fixations mean."""
    parser.add_argument("--units", choices=["normalised", "image_px", "screen_px"], help="of x and y")
    parser.add_argument("--time-unit", choices=["s", "ms", "us", "ns"], help="of the duration")


def add_placement(parser: argparse._ActionsContainer, screen: str = "images are centred on it, see --scale") -> None:
    """Adds the options that say where on the screen the images were; `screen` is the help of --screen."""
    parser.add_argument(
        "--rectangle", type=float, nargs=4, metavar=("X", "Y", "W", "H"), help="of the images on screen"
    )
    parser.add_argument("--screen", type=float, nargs=2, metavar=("W", "H"), help=screen)
    parser.add_argument(
        "--scale",
        choices=["none", "fit", "shrink"],
        default="none",
        help="of images on the screen: own size, as large as fits, or that for larger ones only (default: %(default)s)",
    )


def placement_of(options: argparse.Namespace) -> Placement | None:
    """Where on the screen the images were, as far as the command line says."""
    if not (options.rectangle or options.screen):
        return None
    return Placement(rectangle=options.rectangle, screen=options.screen, scale=options.scale)


def read(options: argparse.Namespace, tolerance: Tolerance) -> SampleStream:
    """Reads the table that the command line names."""
    report_format = _report_format(options)
    return read_fixation_report(
        options.path,
        options.images,
        report_format,
        options.descriptions,
        subject=options.subject,
        image=options.image,
        placement=placement_of(options),
        radius=BoxRadius(options.radius, options.radius_unit),
        outside=options.outside,
        without_trajectory=options.without_trajectory,
        without_description=options.without_description,
        encoding=options.encoding,
        sheet=options.sheet,
        decimal=options.decimal,
        check_durations=options.check_durations,
        tolerance=tolerance,
    )


def _report_format(options: argparse.Namespace) -> ReportFormat:
    """The columns of the table, which is opened to see that it has them.

    Raises:
        InvalidArgumentError: A column is not named, or the table has none of its name; proposes those that it has.
    """
    given = {"units": options.units, "time_unit": options.time_unit} | named_columns(options.column)
    changes = {name: value for name, value in given.items() if value is not None}
    table = Table(options.path, options.encoding, options.sheet)
    if options.report_format == CUSTOM:
        if missing := [role for role in ("x", "y", "duration") if role not in changes]:
            raise InvalidArgumentError(
                f"--format {CUSTOM}: say which column is {' and '.join(missing)}, by --column {missing[0]}=COLUMN"
                f"{_proposal(table)}"
            )
        report_format = ReportFormat(**changes)
    else:
        report_format = attrs.evolve(REPORT_FORMATS[options.report_format], **changes)
    report_format = attrs.evolve(report_format, keep={**report_format.keep, **_kept(options.keep)})
    try:
        for role in ROLES:
            if (column := getattr(report_format, role)) is not None:
                table.column(column, role)
        for column in report_format.keep:
            table.column(column, "--keep")
    except InvalidSampleError as error:
        raise InvalidArgumentError(f"{error}{_proposal(table)}") from error
    return report_format


def named_columns(changes: Sequence[str]) -> dict[str, Any]:
    """The columns of a table by their roles, as `--column NAME=COLUMN` gives them.

    Raises:
        InvalidArgumentError: One is not of this form, or names no role.
    """
    columns = {}
    for change in changes:
        role, equals, name = change.partition("=")
        if role not in ROLES or not equals or not name:
            raise InvalidArgumentError(f"--column {change}: write NAME=COLUMN, where NAME is one of {', '.join(ROLES)}")
        columns[role] = name
    return columns


def _kept(conditions: list[str]) -> dict[str, tuple[str, ...]]:
    kept: dict[str, tuple[str, ...]] = {}
    for condition in conditions:
        column, equals, value = condition.partition("=")
        if not column or not equals:
            raise InvalidArgumentError(f"--keep {condition}: write COLUMN=VALUE")
        kept[column] = (*kept.get(column, ()), value)
    return kept


def _proposal(table: Table) -> str:
    """The end of a message: the options that the names of a table's columns speak for, or the names."""
    columns = likely_columns(table.header)
    if not {"x", "y", "duration"} <= columns.keys():
        return f"; {table.path} has the columns {', '.join(shown(name) for name in table.header)}"
    words = [word for role, column in columns.items() for word in ("--column", f"{role}={column}")]
    if unit := likely_time_unit(columns["duration"]):
        words += ["--time-unit", unit]
    return f". By their names this is --format {CUSTOM} {shlex.join(words)}, and --units as x and y are"
