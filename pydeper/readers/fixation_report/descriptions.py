"""What people said about the images of a fixation report: a second file, joined by person and image."""

from collections.abc import Iterator
from pathlib import Path

from pydeper.errors import InvalidSampleError
from pydeper.readers.records import field, json_lines, parse_object
from pydeper.readers.tables.table import Table


def read_descriptions(path: Path, columns: tuple[str, str, str], encoding: str | None) -> dict[tuple[str, str], str]:
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
