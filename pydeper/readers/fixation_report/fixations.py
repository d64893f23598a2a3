"""The rows of one viewing, as fixations on the image."""

import itertools
import math
import statistics

from pydeper.errors import InvalidSampleError
from pydeper.gaze import box_around
from pydeper.readers.fixation_report.placement import Area
from pydeper.readers.fixation_report.report_format import ReportFormat
from pydeper.readers.fixation_report.viewings import Row, Viewing
from pydeper.readers.stream import ReadReport
from pydeper.readers.trajectories import Outside
from pydeper.samples.durations import UNITS
from pydeper.samples.trajectory import Fixation


def fixations_of(
    viewing: Viewing, form: ReportFormat, area: Area, outside: Outside, report: ReadReport
) -> list[Fixation]:
    """The fixations of a viewing; a report of damaged rows is an `InvalidSampleError` that names the line."""
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
            fixations.append(Fixation(box, duration * UNITS[form.time_unit]))
        except InvalidSampleError as error:
            raise InvalidSampleError(f"line {rows[0].line}: {error}") from error
    return fixations


def _check_order(viewing: Viewing, form: ReportFormat) -> None:
    before = -math.inf
    for row in viewing.rows if form.start is not None else ():
        start = viewing.number(row, "start")
        if start is not None and start < before:
            raise InvalidSampleError(f"line {row.line}: start goes backwards, from {before:g} to {start:g}")
        before = before if start is None else start


def _position(viewing: Viewing, rows: list[Row]) -> tuple[float, float] | None:
    """The mean of the positions that are there."""
    pairs = [(viewing.number(row, "x"), viewing.number(row, "y")) for row in rows]
    positions = [(x, y) for x, y in pairs if x is not None and y is not None]
    if not positions:
        return None
    return statistics.fmean(x for x, _ in positions), statistics.fmean(y for _, y in positions)
