"""The rows of a fixation report, and which of them are one person looking at one image once."""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import attrs

from pydeper.errors import InvalidSampleError
from pydeper.readers.fixation_report.columns import proposal
from pydeper.readers.fixation_report.report_format import NUMBERS, ROLES, ReportFormat
from pydeper.readers.image_folder import ImageFolder
from pydeper.readers.stream import ReadReport
from pydeper.readers.tables.numbers import Decimal, Numbers, is_missing
from pydeper.readers.tables.table import Table
from pydeper.untrusted import shown

_EYE = re.compile(r"(?:^|[^a-z])eyes?(?:[^a-z]|$)", re.IGNORECASE)


@attrs.frozen
class Row:
    """A row's fields by their role ("x", "start", …), and those of columns that may say which eye it is of."""

    line: int
    fields: Mapping[str, str]
    eyes: Mapping[str, str]


@attrs.frozen
class Look:
    """The rows of one fixation on one image, and those of the same fixation on images shown before and after."""

    rows: list[Row]
    before: Sequence[Row] = ()
    after: Sequence[Row] = ()


@attrs.frozen
class Viewing:
    """One person looking at one image once.

    Attributes:
        subject: Who.
        image: The image's name, as the report has it.
        looks: The fixations, in the order of their rows.
        follows: The last row of an earlier viewing of the image in the same recording, or None.
    """

    subject: str
    image: str
    looks: list[Look]
    follows: Row | None = None

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return [row for look in self.looks for row in look.rows]


class Viewings:
    """The viewings of a report, in the order of its rows."""

    def __init__(
        self, table: Table, form: ReportFormat, subject: str | None, image: str | None, folder: ImageFolder
    ) -> None:
        """Finds the format's columns in a table.

        Raises:
            InvalidSampleError: One is not there; the message proposes a format of those that are.
        """
        self.table, self.form, self.folder = table, form, folder
        self._subject = None if subject is None else _composed(subject)
        self._image = image
        try:
            self.columns = {
                role: table.column(getattr(form, role), role) for role in ROLES if getattr(form, role) is not None
            }
            self._wanted = {
                table.column(name, "keep"): {value.casefold() for value in form.keep[name]} for name in form.keep
            }
        except InvalidSampleError as error:
            raise InvalidSampleError(f"{error}{proposal(table.header)}") from error
        named = (form.image,) if isinstance(form.image, str) else form.image or ()
        self._image_columns = [name for name in map(_composed, named) if name in table.header]
        known = {*self.columns.values(), *self._wanted}
        self._eye_columns = [name for name in table.header if _EYE.search(name) and name not in known]
        self._keys: dict[str, str] = {}

    def numbers(self, decimal: Decimal | None) -> Numbers:
        """Reads the numbers of the report; see `Numbers`."""
        return self.table.numbers([self.columns[role] for role in NUMBERS if role in self.columns], decimal)

    def read(self, report: ReadReport) -> Iterator[tuple[str, Viewing]]:
        """Gives each viewing with its place, the line of its first row.

        Raises:
            InvalidSampleError: (While iterating) a row is damaged, or the rows of a viewing do not stand together.
        """
        last: dict[tuple[str, str], str] = {}
        seen: dict[tuple[str, str, str], Row] = {}
        for (who, trial, what), group in itertools.groupby(self._looks(report), self._key):
            looks = list(group)
            first = looks[0].rows[0]
            place = f"{self.table.path}:{first.line}"
            before = last.get((who, trial))
            last[who, trial] = what
            if not (who and what):
                self._pass_over(first, place, sum(len(look.rows) for look in looks), report)
                continue
            if before == what:
                raise InvalidSampleError(
                    f"{place}: the rows of {shown(who)} and {shown(self._image_of(first))} do not stand together; sort "
                    "the report by person and time, or name the column that tells their viewings apart (trial)"
                )
            earlier = seen.get((who, trial, what))
            seen[who, trial, what] = looks[-1].rows[-1]
            if earlier is not None:
                report.change("viewings of an image that the recording had shown before", place)
            yield place, Viewing(who, self._image_of(first), looks, earlier)

    def _pass_over(self, row: Row, place: str, count: int, report: ReadReport) -> None:
        name = self._image_of(row)
        known = name in self.form.not_images
        reason = f"rows of {name!r}, which is no image" if known else "rows without a person or an image"
        report.pass_over(reason, place, count)

    def _looks(self, report: ReadReport) -> Iterator[Look]:
        """The fixations, in pieces where the image changes while they last."""
        for _, group in itertools.groupby(self._rows(report), self._fixation):
            rows = list(group)
            pieces = [list(piece) for _, piece in itertools.groupby(rows, lambda row: self._image_key(row))]
            start = 0
            for piece in pieces:
                end = start + len(piece)
                yield Look(piece, rows[:start], rows[end:])
                start = end

    def _rows(self, report: ReadReport) -> Iterator[Row]:
        """The rows that count."""
        keep = self.form.keep
        for line, fields in self.table:
            wrong = next(
                (name for name, values in self._wanted.items() if fields[name].strip().casefold() not in values), None
            )
            if wrong is not None:
                reason = f"rows whose {wrong!r} is not {' or '.join(keep[wrong])}"
                report.pass_over(reason, f"{self.table.path}:{line}")
                continue
            roles = {role: fields[column] for role, column in self.columns.items()}
            if self._image_columns:
                roles["image"] = self._choose_image([fields[name] for name in self._image_columns])
            yield Row(line, roles, {name: fields[name] for name in self._eye_columns})

    def _choose_image(self, names: list[str]) -> str:
        """Of several columns' names of an image, the first that has a file."""
        there = [name for name in names if not is_missing(name)]
        if len(there) < 2 or there[0] in self.form.not_images:
            return there[0] if there else ""
        return next((name for name in there if self._image_key_of(name) != name), there[0])

    def _fixation(self, row: Row) -> tuple[str, str, str]:
        number = row.fields.get("fixation", "")
        return self._who(row), row.fields.get("trial", ""), f"line {row.line}" if is_missing(number) else number

    def _key(self, look: Look) -> tuple[str, str, str]:
        row = look.rows[0]
        return self._who(row), row.fields.get("trial", ""), self._image_key(row)

    def _who(self, row: Row) -> str:
        if self._subject is not None:
            return self._subject
        name = row.fields["subject"]
        # "NA" and "None" are people; a word with marks in it, such as "#N/A", is none.
        return "" if is_missing(name) and not name.strip().isalpha() else _composed(name)

    def _image_of(self, row: Row) -> str:
        return self._image if self._image is not None else row.fields["image"]

    def _image_key(self, row: Row) -> str:
        """The path of an image where there is one: names with and without a suffix are one image. Empty: no image."""
        name = self._image_of(row)
        return "" if is_missing(name) or name in self.form.not_images else self._image_key_of(name)

    def _image_key_of(self, name: str) -> str:
        if name not in self._keys:
            self._keys[name] = str(self.folder.find(name)) if self.folder.holds(name) else name
        return self._keys[name]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
