"""Tables as programs export them: CSV or TSV with a header, or a sheet of a workbook."""

import contextlib
import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO, TypeAlias

from pydeper.errors import InvalidSampleError
from pydeper.readers.files import WORKBOOK, first_bytes, kind_of_file, open_text
from pydeper.readers.tables.numbers import Decimal, Numbers
from pydeper.readers.tables.workbook import read_sheet
from pydeper.untrusted import shown

Column: TypeAlias = str | tuple[str, ...]
"""A column's name; of several (as an exporter's versions have it), the first that the file has is taken."""

_REMEDY = "name a CSV, TSV or Excel file"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')
_MOST_NAMES = 60


class Table:
    """A table with a header: its rows by column, each with its line.

    Quotation marks quote as in RFC 4180 where the whole file can be read so. Where it cannot, or where that would join
    lines that are rows by themselves, they are text, as in files of tools that do not quote.

    Attributes:
        path: The file.
        delimiter: What separates fields: a tab, a semicolon or a comma, whichever the header has most of, or what a
            first line such as "sep=;" says.
        header: The names of the columns, their letters composed (NFC).
        text_quotes: Lines whose quotation marks are text because quoting would not fit; the first of them and how many.
    """

    def __init__(self, path: Path, encoding: str | None = None, sheet: str | None = None) -> None:
        """Opens a table and reads its header.

        Args:
            path: CSV, TSV or a workbook; CSV and TSV may be packed by gzip, bzip2 or xz.
            encoding: See `pydeper.readers.files.open_text`.
            sheet: Of a workbook; None: the one that holds anything.

        Raises:
            InvalidSampleError: It cannot be read, has no header, or a column twice.
        """
        self.path = path
        self.encoding = encoding
        self.text_quotes: tuple[int, int] | None = None
        self._sheet = read_sheet(path, sheet) if _is_workbook(path) else None
        self._skipped = 0
        self._quotes_are_text = False
        if self._sheet is None:
            with self._opened() as lines:
                self._read_header(lines)
            self._quotes_are_text = self._judge_quotes()
        else:
            self.delimiter = "\t"
            while self._skipped < len(self._sheet) and not any(self._sheet[self._skipped]):
                self._skipped += 1
            self.header = _names(self._sheet[self._skipped] if self._skipped < len(self._sheet) else [])
            self._skipped += 1
        if not any(self.header):
            raise InvalidSampleError(f"{path}: is empty; its first line must name the columns")
        if doubled := {name for name in self.header if name and self.header.count(name) > 1}:
            raise InvalidSampleError(f"{path}: the column {shown(min(doubled))} is there twice; keep one")

    def column(self, name: Column, role: str) -> str:
        """The name of the column that the file has.

        Raises:
            InvalidSampleError: It has none of that name; the message lists those it has.
        """
        names = (name,) if isinstance(name, str) else name
        for candidate in names:
            if (composed := unicodedata.normalize("NFC", candidate)) in self.header:
                return composed
        there = ", ".join(map(shown, self.header[:_MOST_NAMES])) + (", …" if len(self.header) > _MOST_NAMES else "")
        raise InvalidSampleError(f"{self.path}: has no column {' or '.join(map(repr, names))} ({role}); it has {there}")

    def __iter__(self) -> Iterator[tuple[int, Mapping[str, str]]]:
        for line, fields in self._rows():
            if len(fields) != len(self.header):
                raise InvalidSampleError(
                    f"{self.path}:{line}: has {len(fields)} fields and the header {len(self.header)}; export it again, "
                    "or quote fields that hold the separator"
                )
            yield line, dict(zip(self.header, fields, strict=True))

    def numbers(self, columns: Sequence[str], decimal: Decimal | None = None) -> Numbers:
        """Reads numbers of these columns; see `Numbers`."""
        return Numbers(lambda: (fields[name] for _, fields in self for name in columns), self.delimiter, decimal)

    def _opened(self) -> "contextlib.AbstractContextManager[TextIO]":
        return open_text(self.path, _REMEDY, self.encoding)

    def _read_header(self, lines: Iterable[str]) -> None:
        self.delimiter, self.header, said = ",", [], None
        for line in lines:
            self._skipped += 1
            if said is None and (match := _SEPARATOR_LINE.fullmatch(line)):
                said = match[1]
            elif line.strip():
                bare = _QUOTED.sub("", line)
                self.delimiter = said or max("\t;,", key=bare.count)
                self._header_quoted = [field.startswith('"') for field in line.split(self.delimiter)]
                try:
                    self.header = _names(next(csv.reader([line], delimiter=self.delimiter)))
                except csv.Error as error:
                    raise InvalidSampleError(f"{self.path}:{self._skipped}: is no header ({error})") from error
                return

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """The rows that are not empty, each with its first line."""
        if self._sheet is not None:
            for line, fields in enumerate(self._sheet[self._skipped :], self._skipped + 1):
                if any(fields):
                    yield line, fields
            return
        with self._opened() as file:
            for _ in range(self._skipped):
                next(file, None)
            yield from self._split_rows(file) if self._quotes_are_text else self._quoted_rows(file)

    def _split_rows(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        for line, text in enumerate(lines, self._skipped + 1):
            if text := text.strip("\r\n"):
                fields = text.split(self.delimiter)
                # A program that quotes without doubling the marks inside quotes the header as well.
                if len(fields) == len(self._header_quoted):
                    fields = [
                        _unwrapped(field) if quoted else field
                        for field, quoted in zip(fields, self._header_quoted, strict=True)
                    ]
                yield line, fields

    def _quoted_rows(self, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
        rows = csv.reader(lines, delimiter=self.delimiter, strict=True)
        line = self._skipped + 1
        try:
            for fields in rows:
                if fields:
                    yield line, fields
                line = self._skipped + rows.line_num + 1
        except csv.Error as error:
            raise InvalidSampleError(
                f"{self.path}:{line}: is no table row ({error}); a quotation mark within quotes is doubled, and quotes "
                "are closed"
            ) from error

    def _judge_quotes(self) -> bool:
        """Whether quotation marks are text: by the whole file, if it has any."""
        width, first, marked = len(self.header), 0, 0
        with self._opened() as file:
            for line, text in enumerate(file, 1):
                if line > self._skipped and '"' in text:
                    first, marked = first or line, marked + 1
        if not marked:
            return False
        with self._opened() as file:
            for _ in range(self._skipped):
                next(file, None)
            splits = all(len(fields) == width for _, fields in self._split_rows(file))
        if not splits or self._quotes_fit(width):
            return False
        self.text_quotes = first, marked
        return True

    def _quotes_fit(self, width: int) -> bool:
        """Whether every row can be read as quoted, and no quoted field joins lines."""
        with self._opened() as file:
            for _ in range(self._skipped):
                next(file, None)
            rows = csv.reader(file, delimiter=self.delimiter, strict=True)
            before = 0
            try:
                for fields in rows:
                    if rows.line_num > before + 1 or (fields and len(fields) != width):
                        return False
                    before = rows.line_num
            except csv.Error:
                return False
        return True


def _names(fields: Iterable[str]) -> list[str]:
    return [unicodedata.normalize("NFC", name.strip()) for name in fields]


def _unwrapped(field: str) -> str:
    return field[1:-1] if len(field) > 1 and field[0] == field[-1] == '"' else field


def _is_workbook(path: Path) -> bool:
    return kind_of_file(path, first_bytes(path, _REMEDY)) == WORKBOOK
