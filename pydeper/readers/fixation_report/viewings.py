"""The rows of a fixation report, and which of them are one person looking at one image once."""

import itertools
from collections.abc import Iterator, Mapping

import attrs

from pydeper.errors import InvalidSampleError
from pydeper.readers.fixation_report.report_format import ROLES, ReportFormat
from pydeper.readers.stream import ReadReport
from pydeper.readers.tables.table import Table


@attrs.frozen
class Row:
    """A row's fields by their role ("x", "start", …)."""

    line: int
    fields: Mapping[str, str]


@attrs.frozen
class Viewing:
    """One person looking at one image once."""

    subject: str
    image: str
    rows: list[Row]
    table: Table

    def number(self, row: Row, role: str) -> float | None:
        """The number in a row's field, or None where it is missing."""
        return self.table.number(row.fields[role], f"line {row.line}: {role}")


def viewings(
    table: Table, form: ReportFormat, subject: str | None, image: str | None, report: ReadReport
) -> Iterator[tuple[str, Viewing]]:
    """The viewings of a report, each with its place."""
    columns = {role: table.column(getattr(form, role), role) for role in ROLES if getattr(form, role) is not None}
    rows = (
        Row(line, {role: fields[column] for role, column in columns.items()})
        for line, fields in _kept(table, form, report)
    )

    def key(row: Row) -> tuple[str, ...]:
        return subject or row.fields["subject"], image or row.fields["image"], row.fields.get("trial", "")

    seen: set[tuple[str, ...]] = set()
    for (who, what, trial), group in itertools.groupby(rows, key):
        viewing = Viewing(who, what, list(group), table)
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
