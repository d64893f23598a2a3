"""A fixation report read: its viewings as samples, with what was said about them."""

import os
from collections.abc import Iterator
from pathlib import Path

from pydeper.errors import InvalidArgumentError
from pydeper.readers.fixation_report.descriptions import description_key, read_descriptions, report_text_quotes
from pydeper.readers.fixation_report.fixations import FixationReader
from pydeper.readers.fixation_report.placement import Area, BoxRadius, Placement
from pydeper.readers.fixation_report.report_format import ReportFormat
from pydeper.readers.fixation_report.viewings import Viewing, Viewings
from pydeper.readers.image_folder import ImageFolder
from pydeper.readers.stream import PassedOver, ReadReport, SampleStream, Tolerance, stream
from pydeper.readers.tables.numbers import Decimal
from pydeper.readers.tables.table import Table
from pydeper.readers.trajectories import Outside, Without, one_of, trajectory_of
from pydeper.samples.sample import Sample


def read_fixation_report(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    report_format: ReportFormat,
    descriptions: str | os.PathLike[str] | None = None,
    *,
    subject: str | None = None,
    image: str | None = None,
    placement: Placement | None = None,
    radius: BoxRadius = BoxRadius(),  # noqa: B008 - frozen
    outside: Outside = "drop",
    without_trajectory: Without = "skip",
    without_description: Without = "skip",
    description_columns: tuple[str, str, str] = ("subject", "image", "description"),
    encoding: str | None = None,
    sheet: str | None = None,
    decimal: Decimal | None = None,
    check_durations: bool = True,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
) -> SampleStream:
    r"""Reads a fixation report, a viewing (one person, one image, one trial) at a time.

    The rows of a viewing must stand together; where an image comes again in a recording after another one, that is a
    viewing of its own. Tabs, semicolons or commas separate fields, whichever the first line has most of, or what a
    line such as "sep=;" says. Files may be packed by gzip, bzip2 or xz, and be workbooks (.xlsx, .ods; extra `excel`).
    Numbers may have a decimal comma, and marks between thousands: "1,200" is 1200 where other numbers have a decimal
    point, 1.2 where they have a comma, and refused where they do not tell. `MISSING_WORDS` stand for missing numbers.
    Memory holds one viewing, the descriptions, and what the viewings are called.

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
        encoding: Of report and table; None: by their byte order mark or the zeros of UTF-16, else UTF-8.
        sheet: Of a report that is a workbook; None: the one that holds anything.
        decimal: The decimal mark, "." or ","; None: as the report's numbers show (see below).
        check_durations: Whether to refuse trajectories whose median fixation lasts less than 0.01 s or more than 10 s,
            which are in another unit; False where they are meant.
        tolerance: How many damaged viewings and missing images are passed over; none, unless told.

    Returns:
        The samples, read while they are asked for, and the report. Their places are such as "report.tsv:7", the
        viewing's first row.

    Raises:
        InvalidArgumentError: An option is out of range or lacks what the format needs.
        InvalidSampleError: The folder is not there, the report cannot be opened or lacks a column, or the descriptions
            cannot be used. While iterating: more than is tolerated is wrong; the message names file, line and column.

    Examples:
        >>> from pathlib import Path
        >>> from pydeper import draw_scene
        >>> from pydeper.readers import ReportFormat, read_fixation_report
        >>> draw_scene([]).save("star.png")
        >>> rows = ["who,picture,x,y,ms", "ana,star.png,0.4,0.5,250", "ana,star.png,0.7,0.5,300"]
        >>> _ = Path("report.csv").write_text("\n".join(rows))
        >>> columns = ReportFormat(x="x", y="y", duration="ms", subject="who", image="picture")
        >>> [sample.trajectory.durations for sample in read_fixation_report("report.csv", ".", columns)]
        [array([0.25, 0.3 ], dtype=float32)]
    """
    one_of("outside", outside, ("clip", "drop"))
    one_of("without_trajectory", without_trajectory, ("skip", "keep"))
    one_of("without_description", without_description, ("skip", "keep"))
    one_of("decimal", decimal, (None, ".", ","))
    _check_given(report_format, subject, image, placement)
    path, folder = Path(path), ImageFolder(images, without_suffix=True)
    report = ReadReport(str(path))
    texts: dict[tuple[str, str], str] | None = None
    if descriptions is not None:
        texts = read_descriptions(Path(descriptions), description_columns, encoding, folder, report)
    described: set[tuple[str, str]] = set()
    table = Table(path, encoding, sheet)
    report_text_quotes(table, report)
    viewings = Viewings(table, report_format, subject, image, folder)
    fixations = FixationReader(report_format, viewings.numbers(decimal), outside, report)

    def read(viewing: Viewing, place: str) -> Sample:
        file = folder.find(viewing.image)
        key = description_key(viewing.subject, viewing.image, folder)
        described.add(key)
        text = None if texts is None else texts.get(key)
        if texts is not None and text is None:
            if without_description == "skip":
                raise PassedOver("no description")
            report.change("samples without a description", place)
        area = Area.of(file, report_format.units, placement, radius)
        trajectory = trajectory_of(
            fixations.read(viewing, area),
            "skip" if text is None else without_trajectory,
            report,
            place,
            check_durations=check_durations,
            unit=report_format.time_unit,
        )
        return Sample(image=file, description=text, trajectory=trajectory, subject=viewing.subject, source=place)

    def records() -> Iterator[tuple[str, Viewing]]:
        yield from viewings.read(report)
        for who, what in sorted((texts or {}).keys() - described):
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
