"""Tables as programs export them: CSV or TSV with a header, in whatever encoding and with whatever separator."""

import codecs
import csv
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from pydeper.errors import InvalidSampleError

Column: TypeAlias = str | tuple[str, ...]
"""A column's name; of several (as an exporter's versions have it), the first that the file has is taken."""

_MISSING = {"", ".", "na", "nan", "null", "none", "-"}


class Table:
    """A CSV or TSV file with a header: its rows by column, each with its line."""

    def __init__(self, path: Path, encoding: str | None) -> None:
        self.path = path
        self.encoding = encoding or _encoding(path)
        with self._opened() as lines:
            first = next(lines, "")
        self.delimiter = max("\t;,", key=first.count)
        with self._opened() as lines:
            self.header = [name.strip() for name in next(csv.reader(lines, delimiter=self.delimiter), [])]
        if not self.header:
            raise InvalidSampleError(f"{path}: is empty; its first line must name the columns")
        if doubled := {name for name in self.header if name and self.header.count(name) > 1}:
            raise InvalidSampleError(f"{path}: the column {min(doubled)!r} is there twice; keep one")

    def _opened(self) -> "_Lines":
        return _Lines(self.path, self.encoding)

    def column(self, name: Column, role: str) -> str:
        """The name of the column that the file has."""
        names = (name,) if isinstance(name, str) else name
        for candidate in names:
            if candidate in self.header:
                return candidate
        raise InvalidSampleError(
            f"{self.path}: has no column {' or '.join(map(repr, names))} ({role}); it has "
            f"{', '.join(map(repr, self.header))}"
        )

    def __iter__(self) -> Iterator[tuple[int, Mapping[str, str]]]:
        with self._opened() as lines:
            rows = csv.reader(lines, delimiter=self.delimiter)
            next(rows)
            try:
                for fields in rows:
                    if not fields:
                        continue
                    if len(fields) != len(self.header):
                        raise InvalidSampleError(
                            f"{self.path}:{rows.line_num}: has {len(fields)} fields and the header {len(self.header)}; "
                            "export it again, or quote fields that hold the separator"
                        )
                    yield rows.line_num, dict(zip(self.header, fields, strict=True))
            except csv.Error as error:
                raise InvalidSampleError(f"{self.path}:{rows.line_num}: is no table row ({error})") from error

    def number(self, text: str, place: str) -> float | None:
        """The number in a field, or None where it is missing.

        Raises:
            InvalidSampleError: The field holds something else; the message begins with `place`.
        """
        text = text.strip()
        if text.casefold() in _MISSING:
            return None
        try:
            value = float(text if self.delimiter == "," else text.replace(",", "."))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InvalidSampleError(f"{place} is {text!r}, which is no number")
        return value


class _Lines:
    """The lines of a text file, with errors that say what is wrong."""

    def __init__(self, path: Path, encoding: str) -> None:
        self.path, self.encoding = path, encoding

    def __enter__(self) -> Iterator[str]:
        try:
            self.file = self.path.open(encoding=self.encoding, newline="")
        except (OSError, LookupError, ValueError) as error:
            raise InvalidSampleError(f"{self.path}: cannot be read ({error}); name a CSV or TSV file") from error
        return self._lines()

    def _lines(self) -> Iterator[str]:
        try:
            yield from self.file
        except UnicodeError as error:
            raise InvalidSampleError(
                f"{self.path}: is not {self.encoding} ({error}); save it as UTF-8, or say its encoding"
            ) from error

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _encoding(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mark = file.read(2)
    except OSError as error:
        raise InvalidSampleError(f"{path}: cannot be read ({error}); name a CSV or TSV file") from error
    return "utf-16" if mark in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
