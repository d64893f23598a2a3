"""What people said about the images of a fixation report: a second file, joined by person and image."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from pydeper.errors import InvalidSampleError
from pydeper.readers.image_folder import ImageFolder
from pydeper.readers.records import field, json_lines, parse_object
from pydeper.readers.stream import ReadReport
from pydeper.readers.tables.table import Table
from pydeper.untrusted import shown


def read_descriptions(
    path: Path, columns: tuple[str, str, str], encoding: str | None, folder: ImageFolder, report: ReadReport
) -> dict[tuple[str, str], str]:
    """Texts by person and image; see `description_key`.

    Raises:
        InvalidSampleError: The file cannot be read, or a description is empty or there twice.
    """
    texts: dict[tuple[str, str], str] = {}
    for place, (who, what, text) in _description_rows(path, columns, encoding, report):
        subject, image = description_key(who, what, folder)
        if not text.strip():
            raise InvalidSampleError(f"{place}: {columns[2]} is empty; leave the row out")
        if (subject, image) in texts:
            raise InvalidSampleError(f"{place}: {shown(who)} has a description of {shown(what)} already; keep one")
        texts[subject, image] = text
    return texts


def description_key(subject: str, image: str, folder: ImageFolder) -> tuple[str, str]:
    """What person and image are joined by: the name, however its letters are composed, and the image's path."""
    path = str(folder.find(image)) if folder.holds(image) else unicodedata.normalize("NFC", image)
    return unicodedata.normalize("NFC", subject), path


def _description_rows(
    path: Path, columns: tuple[str, str, str], encoding: str | None, report: ReadReport
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    subject, image, text = columns
    if ".jsonl" not in path.suffixes:
        table = Table(path, encoding)
        subject, image, text = (table.column(name, "descriptions") for name in columns)
        for line, row in table:
            yield f"{path}:{line}", (row[subject], row[image], row[text])
        report_text_quotes(table, report)
        return
    for place, content in json_lines(path):
        try:
            record = parse_object(content)
            who = str(field(record, subject, (str, int), "text or a whole number"))
            yield place, (who, field(record, image, str, "text"), field(record, text, str, "text"))
        except InvalidSampleError as error:
            raise InvalidSampleError(f"{place}: {error}") from error


def report_text_quotes(table: Table, report: ReadReport) -> None:
    """Counts the lines of a table whose quotation marks are text."""
    if table.text_quotes is not None:
        line, count = table.text_quotes
        report.change(
            "lines whose quotation marks are text: quoting does not fit the file", f"{table.path}:{line}", count
        )
