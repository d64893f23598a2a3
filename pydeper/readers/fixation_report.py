"""Fixation reports, as eye trackers' software exports them: one fixation a row, CSV or TSV.

A `ReportFormat` says which column is what and what its numbers mean. `REPORT_FORMATS` has those of Tobii Pro Lab,
EyeLink Data Viewer and Pupil Labs; `attrs.evolve(REPORT_FORMATS["eyelink"], image="picture")` changes one for your
experiment. What people said about the images is in a second file, joined by person and image.
"""

import itertools
import math
import os
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import attrs

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.gaze import box_around
from pydeper.readers.records import ImageFolder, field, json_lines, parse_object, upright_size
from pydeper.readers.stream import PassedOver, ReadReport, SampleStream, Tolerance, stream
from pydeper.readers.tables import Column, Table
from pydeper.readers.trajectories import Outside, Without, one_of, trajectory_of
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_ROLES = ("x", "y", "duration", "subject", "image", "trial", "start", "fixation")

# A trial whose median fixation is shorter or longer is in another unit than was said.
_PLAUSIBLE = (0.01, 10.0)


@attrs.frozen(kw_only=True)
class ReportFormat:
    """Which column of a fixation report is what, and what its numbers mean.

    Attributes:
        x: Column of the horizontal position.
        y: Column of the vertical position.
        duration: Column of the duration.
        time_unit: Of the duration: "s", "ms", "us" or "ns".
        units: Of x and y: "normalised" (fractions of the image), "image_px" (pixels of the upright image) or
            "screen_px" (pixels of the screen, whose `Placement` must then be given).
        subject: Column of the person; None: the file is of one person, who is named when it is read.
        image: Column of the image's name; None: the file is of one image, which is named when it is read.
        trial: Column that tells two viewings of an image by one person apart, or None.
        start: Column of the start, which must not go backwards within a viewing (in any unit), or None.
        fixation: Column of the fixation's number, where several rows belong to one; its position is their mean.
        keep: Rows that count, by column: the values that it may have (in any case); other rows are passed over.
        y_up: Whether y grows upwards, from the lower edge.
    """

    x: Column
    y: Column
    duration: Column
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    units: Literal["normalised", "image_px", "screen_px"] = "normalised"
    subject: Column | None = None
    image: Column | None = None
    trial: Column | None = None
    start: Column | None = None
    fixation: Column | None = None
    keep: Mapping[str, tuple[str, ...]] = attrs.Factory(dict)
    y_up: bool = False

    def __attrs_post_init__(self) -> None:
        one_of("time_unit", self.time_unit, ("s", "ms", "us", "ns"))
        one_of("units", self.units, ("normalised", "image_px", "screen_px"))


REPORT_FORMATS: Mapping[str, ReportFormat] = {
    # Rows are gaze points; those of one fixation share its number.
    "tobii": ReportFormat(
        x=("Fixation point X [MCS norm]", "Fixation point X (MCSnorm)"),
        y=("Fixation point Y [MCS norm]", "Fixation point Y (MCSnorm)"),
        duration=(
            "Gaze event duration [ms]",
            "Gaze event duration",
            "Eye movement event duration [ms]",
            "Eye movement event duration",
        ),
        subject="Participant name",
        image=("Presented Stimulus name", "Presented Media name", "Recording media name"),
        trial="Recording name",
        fixation="Eye movement type index",
        keep={"Eye movement type": ("Fixation",)},
    ),
    # The image is a variable of the experiment, so its column must be named.
    "eyelink": ReportFormat(
        x="CURRENT_FIX_X",
        y="CURRENT_FIX_Y",
        duration="CURRENT_FIX_DURATION",
        units="screen_px",
        subject="RECORDING_SESSION_LABEL",
        trial="TRIAL_INDEX",
        start="CURRENT_FIX_START",
    ),
    # Pupil Player: fixations_on_surface_NAME.csv, a row for every frame of a fixation. One recording and surface.
    "pupil_player": ReportFormat(
        x="norm_pos_x",
        y="norm_pos_y",
        duration="duration",
        start="start_timestamp",
        fixation="fixation_id",
        keep={"on_surf": ("True", "1")},
        y_up=True,
    ),
    # Pupil Cloud, Marker Mapper: fixations.csv.
    "pupil_marker_mapper": ReportFormat(
        x="fixation x [normalized]",
        y="fixation y [normalized]",
        duration="duration [ms]",
        subject="recording id",
        trial="section id",
        start="start timestamp [ns]",
        fixation="fixation id",
        keep={"fixation detected on surface": ("True",)},
    ),
    # Pupil Cloud, Reference Image Mapper: fixations.csv.
    "pupil_reference_image": ReportFormat(
        x="fixation x [px]",
        y="fixation y [px]",
        duration="duration [ms]",
        units="image_px",
        subject="recording id",
        trial="section id",
        start="start timestamp [ns]",
        fixation="fixation id",
        keep={"fixation detected in reference image": ("True",)},
    ),
}
"""Formats by name, with the column names that the exporters write."""


@attrs.frozen(kw_only=True)
class Placement:
    """Where on the screen the images were shown: one rectangle for all, or each centred in its own size.

    Attributes:
        rectangle: (left, top, width, height) in screen pixels; the image fills it.
        screen: (width, height) of the screen in pixels; each image is centred, one of its pixels to one of the screen.
    """

    rectangle: tuple[float, float, float, float] | None = None
    screen: tuple[float, float] | None = None

    def __attrs_post_init__(self) -> None:
        if (self.rectangle is None) == (self.screen is None):
            raise InvalidArgumentError("a placement is a rectangle or a screen: give one of them")
        width, height = self.rectangle[2:] if self.rectangle is not None else self.screen or (0, 0)
        if not (width > 0 and height > 0):
            raise InvalidArgumentError(f"{self} has no area; give width and height above 0")

    def on_screen(self, image: Path) -> tuple[float, float, float, float]:
        """The image's (left, top, width, height) in screen pixels."""
        if self.rectangle is not None:
            return self.rectangle
        assert self.screen is not None
        width, height = upright_size(image)
        return ((self.screen[0] - width) / 2, (self.screen[1] - height) / 2, width, height)


@attrs.frozen
class BoxRadius:
    """How far a fixation's box reaches from its position to each side.

    Attributes:
        value: The length.
        unit: "fraction" (of the image's width, and of its height), or "px" (of what x and y count: the screen's pixels
            or the image's; the image's own where they are fractions).
    """

    value: float = 0.035
    unit: Literal["fraction", "px"] = "fraction"

    def __attrs_post_init__(self) -> None:
        one_of("unit", self.unit, ("fraction", "px"))
        if not 0 < self.value < math.inf:
            raise InvalidArgumentError(f"a box's radius must be above 0, not {self.value!r}")

    @classmethod
    def degrees(cls, value: float, *, distance: float, pixel: float) -> "BoxRadius":
        """A radius in degrees of visual angle, seen from `distance`, where a pixel is `pixel` wide (in one unit)."""
        return cls(math.tan(math.radians(value)) * distance / pixel, "px")


def read_fixation_report(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    report_format: ReportFormat,
    descriptions: str | os.PathLike[str] | None = None,
    *,
    subject: str | None = None,
    image: str | None = None,
    placement: Placement | None = None,
    radius: BoxRadius = BoxRadius(),
    outside: Outside = "drop",
    without_trajectory: Without = "skip",
    without_description: Without = "skip",
    description_columns: tuple[str, str, str] = ("subject", "image", "description"),
    encoding: str | None = None,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
) -> SampleStream:
    """Reads a fixation report, a viewing (one person, one image, one trial) at a time.

    The rows of a viewing must stand together. Tabs, semicolons or commas separate fields, whichever the first line has
    most of; with the former two, a decimal comma is understood. Empty fields and "." are missing numbers. Memory holds
    one viewing, the descriptions, and what the viewings are called.

    Args:
        path: The report.
        images: The folder of the images.
        report_format: Which column is what; see `REPORT_FORMATS`.
        descriptions: What was said: JSON Lines (".jsonl") or a table with a header; None: samples of gaze alone.
        subject: Who it is, where the report does not say.
        image: Which image it is, where the report does not say.
        placement: Where on the screen the images were, for positions in screen pixels.
        radius: How large a fixation's box is.
        outside: Fixations outside the image: "drop", or "clip" (moved to its edge).
        without_trajectory: Viewings without a fixation: "skip", or "keep" as text.
        without_description: Viewings that no description is given for: "skip", or "keep" as gaze.
        description_columns: What the columns (or fields) of the descriptions' file are called: person, image, text.
        encoding: Of report and table; None: by their byte order mark, else UTF-8.
        tolerance: How many damaged viewings and missing images are passed over; none, unless told.

    Returns:
        The samples, read while they are asked for, and the report. Their places are such as "report.tsv:7", the
        viewing's first row.

    Raises:
        InvalidArgumentError: An option is out of range or lacks what the format needs.
        InvalidSampleError: The folder is not there, the report cannot be opened, or the descriptions cannot be used.
            While iterating: the report lacks a column, or more than is tolerated is wrong; the message names file, line
            and column.
    """
    one_of("outside", outside, ("clip", "drop"))
    one_of("without_trajectory", without_trajectory, ("skip", "keep"))
    one_of("without_description", without_description, ("skip", "keep"))
    _check_given(report_format, subject, image, placement)
    path, folder = Path(path), ImageFolder(images)
    report = ReadReport(str(path))
    texts = None if descriptions is None else _descriptions(Path(descriptions), description_columns, encoding)
    told: set[tuple[str, str]] = set()
    table = Table(path, encoding)

    def read(viewing: _Viewing, place: str) -> Sample:
        file = folder.find(viewing.image)
        told.add((viewing.subject, viewing.image))
        text = None if texts is None else texts.get((viewing.subject, viewing.image))
        if texts is not None and text is None:
            if without_description == "skip":
                raise PassedOver("no description")
            report.change("samples without a description", place)
        area = _Area.of(file, report_format.units, placement, radius)
        fixations = _fixations(viewing, report_format, area, outside, report)
        return Sample(
            image=file,
            description=text,
            trajectory=trajectory_of(fixations, "skip" if text is None else without_trajectory, report, place),
            subject=viewing.subject,
            source=place,
        )

    def records() -> Iterator[tuple[str, _Viewing]]:
        yield from _viewings(table, report_format, subject, image, report)
        for who, what in sorted((texts or {}).keys() - told):
            report.pass_over("description of an image that was not viewed", f"{descriptions} ({who}, {what})")

    return stream(records(), read, report, tolerance)


def _check_given(form: ReportFormat, subject: str | None, image: str | None, placement: Placement | None) -> None:
    for name, column, given in (("subject", form.subject, subject), ("image", form.image, image)):
        if (column is None) == (given is None):
            said = "has no column for it: name it, or the column" if given is None else f"says it in {column!r}"
            raise InvalidArgumentError(f"{name}: the format {said}")
    if (form.units == "screen_px") != (placement is not None):
        raise InvalidArgumentError(
            "placement: positions are screen pixels, so say where on the screen the images were"
            if placement is None
            else f"placement: positions are {form.units}, which need none"
        )


# --- the rows


@attrs.frozen
class _Row:
    """A row's fields by their role ("x", "start", …)."""

    line: int
    fields: Mapping[str, str]


@attrs.frozen
class _Viewing:
    """One person looking at one image once."""

    subject: str
    image: str
    rows: list[_Row]
    table: Table

    def number(self, row: _Row, role: str) -> float | None:
        return self.table.number(row.fields[role], f"line {row.line}: {role}")


def _viewings(
    table: Table, form: ReportFormat, subject: str | None, image: str | None, report: ReadReport
) -> Iterator[tuple[str, _Viewing]]:
    """The viewings of a report, each with its place."""
    columns = {role: table.column(getattr(form, role), role) for role in _ROLES if getattr(form, role) is not None}
    rows = (
        _Row(line, {role: fields[column] for role, column in columns.items()})
        for line, fields in _kept(table, form, report)
    )

    def key(row: _Row) -> tuple[str, ...]:
        return subject or row.fields["subject"], image or row.fields["image"], row.fields.get("trial", "")

    seen: set[tuple[str, ...]] = set()
    for (who, what, trial), group in itertools.groupby(rows, key):
        viewing = _Viewing(who, what, list(group), table)
        place = f"{table.path}:{viewing.rows[0].line}"
        if not (who.strip() and what.strip()):
            report.pass_over("rows without a person or an image", place, len(viewing.rows))
            continue
        if (who, what, trial) in seen:
            raise InvalidSampleError(
                f"{place}: the rows of {who!r} and {what!r} do not stand together; sort the report by person, image "
                "and time, or name the column that tells their viewings apart (trial)"
            )
        seen.add((who, what, trial))
        yield place, viewing


def _kept(table: Table, form: ReportFormat, report: ReadReport) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows that count."""
    wanted = {table.column(name, "keep"): {value.casefold() for value in form.keep[name]} for name in form.keep}
    for line, fields in table:
        wrong = next((name for name, values in wanted.items() if fields[name].strip().casefold() not in values), None)
        if wrong is None:
            yield line, fields
        else:
            report.pass_over(f"rows whose {wrong!r} is not {' or '.join(form.keep[wrong])}", f"{table.path}:{line}")


# --- the geometry


@attrs.frozen
class _Area:
    """Where the image is in the units of x and y, and the radius of a box as fractions of the image."""

    left: float
    top: float
    width: float
    height: float
    radius: tuple[float, float]

    @classmethod
    def of(cls, image: Path, units: str, placement: Placement | None, radius: BoxRadius) -> "_Area":
        if placement is not None:
            left, top, width, height = placement.on_screen(image)
        else:
            left, top = 0.0, 0.0
            width, height = (1.0, 1.0) if units == "normalised" else upright_size(image)
        if radius.unit == "fraction":
            return cls(left, top, width, height, (radius.value, radius.value))
        across, down = upright_size(image) if units == "normalised" else (width, height)
        return cls(left, top, width, height, (radius.value / across, radius.value / down))


def _fixations(
    viewing: _Viewing, form: ReportFormat, area: _Area, outside: Outside, report: ReadReport
) -> list[Fixation]:
    _check_order(viewing, form)
    fixations = []
    for _, group in itertools.groupby(viewing.rows, lambda row: row.fields.get("fixation", row.line)):
        rows = list(group)
        place = f"{report.source}:{rows[0].line}"
        position = _position(viewing, rows)
        duration = viewing.number(rows[0], "duration")
        if position is None or duration is None:
            report.change("fixations left out: position or duration is missing", place)
            continue
        x, y = (position[0] - area.left) / area.width, (position[1] - area.top) / area.height
        y = 1 - y if form.y_up else y
        inside = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
        if inside != (x, y) and outside == "drop":
            report.change("fixations outside the image left out", place)
            continue
        report.change("fixations outside the image moved to its edge", place, int(inside != (x, y)))
        box = box_around(inside, inside, (2 * area.radius[0], 2 * area.radius[1]))
        assert box is not None  # its centre is inside
        try:
            fixations.append(Fixation(box, duration * _SECONDS[form.time_unit]))
        except InvalidSampleError as error:
            raise InvalidSampleError(f"line {rows[0].line}: {error}") from error
    median = statistics.median(fixation.duration for fixation in fixations) if fixations else 1.0
    if not _PLAUSIBLE[0] <= median <= _PLAUSIBLE[1]:
        raise InvalidSampleError(f"the median fixation lasts {median:g} s, read as {form.time_unit}; say their unit")
    return fixations


def _check_order(viewing: _Viewing, form: ReportFormat) -> None:
    before = -math.inf
    for row in viewing.rows if form.start is not None else ():
        start = viewing.number(row, "start")
        if start is not None and start < before:
            raise InvalidSampleError(f"line {row.line}: start goes backwards, from {before:g} to {start:g}")
        before = before if start is None else start


def _position(viewing: _Viewing, rows: list[_Row]) -> tuple[float, float] | None:
    """The mean of the positions that are there."""
    pairs = [(viewing.number(row, "x"), viewing.number(row, "y")) for row in rows]
    positions = [(x, y) for x, y in pairs if x is not None and y is not None]
    if not positions:
        return None
    return statistics.fmean(x for x, _ in positions), statistics.fmean(y for _, y in positions)


# --- the descriptions


def _descriptions(path: Path, columns: tuple[str, str, str], encoding: str | None) -> dict[tuple[str, str], str]:
    """Texts by person and image."""
    texts: dict[tuple[str, str], str] = {}
    for place, (subject, image, text) in _description_rows(path, columns, encoding):
        if not text.strip():
            raise InvalidSampleError(f"{place}: {columns[2]} is empty; leave the row out")
        if (subject, image) in texts:
            raise InvalidSampleError(f"{place}: {subject!r} has a description of {image!r} already; keep one")
        texts[subject, image] = text
    return texts


def _description_rows(
    path: Path, columns: tuple[str, str, str], encoding: str | None
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    subject, image, text = columns
    if path.suffix != ".jsonl":
        table = Table(path, encoding)
        for name in columns:
            table.column(name, "descriptions")
        for line, row in table:
            yield f"{path}:{line}", (row[subject], row[image], row[text])
        return
    for place, content in json_lines(path):
        try:
            record = parse_object(content)
            who = str(field(record, subject, (str, int), "text or a whole number"))
            yield place, (who, field(record, image, str, "text"), field(record, text, str, "text"))
        except InvalidSampleError as error:
            raise InvalidSampleError(f"{place}: {error}") from error
