"""The rows of one viewing, as fixations on the image."""

import itertools
import math
import statistics
from collections.abc import Sequence

import attrs

from pydeper.errors import InvalidSampleError
from pydeper.readers.fixation_report.placement import Area
from pydeper.readers.fixation_report.report_format import ReportFormat
from pydeper.readers.fixation_report.viewings import Look, Row, Viewing
from pydeper.readers.stream import ReadReport
from pydeper.readers.tables.numbers import Numbers, is_missing
from pydeper.readers.trajectories import Outside, refuse_pixels
from pydeper.samples.boxes import box_around
from pydeper.samples.durations import UNITS
from pydeper.samples.trajectory import Fixation

_EYES = {"l": "left", "left": "left", "r": "right", "right": "right"}


@attrs.frozen
class FixationReader:
    """Makes fixations of the rows of viewings."""

    form: ReportFormat
    numbers: Numbers
    outside: Outside
    report: ReadReport

    def read(self, viewing: Viewing, area: Area) -> list[Fixation]:
        """The fixations of a viewing on an image that is in `area`.

        Raises:
            InvalidSampleError: A field is damaged, time goes backwards, fixations overlap in time or come back, or
                positions are in another unit; the message names the line.
        """
        self._check_order(viewing)
        self._check_numbers_come_once(viewing)
        fixations, spans, places = [], [], []
        for look in viewing.looks:
            place = f"{self.report.source}:{look.rows[0].line}"
            position, duration = self._position(look), self._duration(look, place)
            if position is None or duration is None:
                self.report.change("fixations left out: position or duration is missing", place)
                continue
            spans.append((look.rows[0], self._number(look.rows[0], "start"), duration))
            x, y = (position[0] - area.left) / area.width, (position[1] - area.top) / area.height
            y = 1 - y if self.form.y_up else y
            places.append((position, (x, y)))
            inside = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
            if inside != (x, y) and self.outside == "drop":
                self.report.change("fixations outside the image left out", place)
                continue
            self.report.change("fixations outside the image moved to its edge", place, int(inside != (x, y)))
            box = box_around(inside, inside, (2 * area.radius[0], 2 * area.radius[1]))
            assert box is not None  # its centre is inside
            try:
                fixations.append(Fixation(box, duration))
            except InvalidSampleError as error:
                raise InvalidSampleError(f"line {look.rows[0].line}: {error}") from error
        self._check_eyes(viewing, spans)
        self._check_units(places)
        return fixations

    def _number(self, row: Row, role: str) -> float | None:
        text = row.fields.get(role)
        return None if text is None else self.numbers.read(text, f"line {row.line}: {role}")

    def _position(self, look: Look) -> tuple[float, float] | None:
        """The mean of the positions that are there."""
        pairs = [(self._number(row, "x"), self._number(row, "y")) for row in look.rows]
        positions = [(x, y) for x, y in pairs if x is not None and y is not None]
        if not positions:
            return None
        return statistics.fmean(x for x, _ in positions), statistics.fmean(y for _, y in positions)

    def _duration(self, look: Look, place: str) -> float | None:
        """How long a fixation lasted on this image, in seconds.

        Its rows repeat its duration, or let it grow to what the last one says. Where it spans a change of image, each
        image has the time until the next, or the rows' part of the time where they all say the same.
        """
        here = self._durations(look.rows)
        if not here:
            return None
        longest = max(here)
        if len(set(here)) > 1:
            self.report.change("fixations whose rows give different durations: the longest was taken", place)
        if look.before or look.after:
            self.report.change("fixations that span a change of image: each has its part of the time", place)
            earlier, later = self._durations(look.before), self._durations(look.after)
            if len({*earlier, *here, *later}) == 1:
                longest *= len(look.rows) / (len(look.before) + len(look.rows) + len(look.after))
            else:
                longest -= max(earlier, default=0.0)
        return longest * UNITS[self.form.time_unit]

    def _durations(self, rows: Sequence[Row]) -> list[float]:
        return [value for row in rows if (value := self._number(row, "duration")) is not None]

    def _check_order(self, viewing: Viewing) -> None:
        before = -math.inf
        for row in ([] if viewing.follows is None else [viewing.follows]) + viewing.rows:
            start = self._number(row, "start")
            if start is not None and start < before:
                again = "; of two viewings of an image, name the column that tells them apart (trial)"
                raise InvalidSampleError(
                    f"line {row.line}: start goes backwards, from {before:g} to {start:g}"
                    f"{again if viewing.follows is not None else _both_eyes(viewing)}"
                )
            before = before if start is None else start

    def _check_numbers_come_once(self, viewing: Viewing) -> None:
        seen: set[str] = set()
        for look in viewing.looks:
            number = look.rows[0].fields.get("fixation", "").strip()
            if number in seen and not is_missing(number):
                raise InvalidSampleError(
                    f"line {look.rows[0].line}: fixation {number!r} comes back, so its rows are of both eyes or of two "
                    f"viewings; keep those of one eye (keep), or name the column of the viewing (trial)"
                    f"{_both_eyes(viewing)}"
                )
            seen.add(number)

    def _check_eyes(self, viewing: Viewing, spans: list[tuple[Row, float | None, float]]) -> None:
        """Refuses fixations that last at the same time: rows of both eyes, or several rows of one fixation."""
        timed = [(row, start, duration) for row, start, duration in spans if start is not None]
        if not timed:
            if hint := _both_eyes(viewing):
                raise InvalidSampleError(f"line {viewing.rows[0].line}: it and the next are of both eyes{hint}")
            return
        unit = UNITS[self.form.start_unit or self.form.time_unit]
        overlaps = _overlaps(timed, unit)
        if not overlaps:
            return
        if self.form.start_unit is None and len(overlaps) == len(timed) - 1 and not _overlaps(timed, 1000 * unit):
            return  # the starts are in the next larger unit, such as seconds beside milliseconds
        raise InvalidSampleError(
            f"line {overlaps[0].line}: the fixation begins while the one before it lasts; of rows of both eyes keep "
            "those of one (keep), of several rows of one fixation name the column of its number (fixation), of starts "
            f"in another unit than durations say it (start_unit){_both_eyes(viewing)}"
        )

    def _check_units(self, places: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
        if self.form.units == "normalised":
            refuse_pixels([place for _, place in places])
        elif len(places) > 1 and all(0 <= value <= 1 for position, _ in places for value in position):
            raise InvalidSampleError(
                f"all positions lie within one pixel, read as {self.form.units}; they must be "
                "fractions: say their units"
            )


def _overlaps(timed: list[tuple[Row, float, float]], unit: float) -> list[Row]:
    """The rows of fixations that begin while more than half of one, theirs or the one before, is still to come."""
    found = []
    for (_, start, duration), (row, following, its_duration) in itertools.pairwise(timed):
        if start * unit + duration - following * unit > 0.5 * min(duration, its_duration):
            found.append(row)
    return found


def _both_eyes(viewing: Viewing) -> str:
    """What to do where a column says that rows are of both eyes; empty where none does."""
    rows = viewing.rows
    for column in rows[0].eyes:
        words = {row.eyes[column].strip() for row in rows}
        if {_EYES.get(word.casefold()) for word in words} >= {"left", "right"}:
            first = next(word for word in sorted(words) if word.casefold() in _EYES)
            return f": the column {column!r} tells the eyes apart, say keep={{{column!r}: ({first!r},)}}"
    return ""
