"""Tables and lines in the wrappings, quotes and numbers that people have, read through the readers."""

import bz2
import gzip
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from pydeper.errors import InvalidSampleError
from pydeper.readers import (
    MISSING_WORDS,
    read_deper_json,
    read_fixation_report,
    read_localized_narratives,
    read_samples,
)
from tests.pydeper.readers.support import HEADER, PLAIN, durations, make_images, write, write_workbook

TEXT_QUOTES = "lines whose quotation marks are text: quoting does not fit the file"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_images(tmp_path / "images", "a.png", "b.png")


def said(tmp_path: Path, images: Path, lines: str) -> tuple[list[str | None], Any]:
    """What a table of descriptions says, and the report of reading it."""
    report = write(
        tmp_path / "looks.csv", [HEADER, *(f"{who},{what}.png,0,200,0.5,0.5" for who in "xy" for what in "ab")]
    )
    stream = read_fixation_report(
        report, images, PLAIN, write(tmp_path / "said.tsv", lines), without_description="keep"
    )
    return [sample.description for sample in stream], stream.report


# Quotation marks


@pytest.mark.parametrize(
    ("texts", "expected", "counted"),
    [
        (['"Look, a star', "A heart", "A disc", '"Stop" is on the sign'], None, 2),
        (['"hi', 'she said "no"', '"', "x"], None, 3),
        (['"a"', "b", '"c" and "d"', "e"], None, 2),
        (
            ['"quoted"', '"with ""marks"""', '"two\nlines"', "plain"],
            ["quoted", 'with "marks"', "two\nlines", "plain"],
            0,
        ),
        (['5" tall', "x", "y", "z"], None, 0),
    ],
)
def test_quotation_marks_quote_or_are_text(
    texts: list[str], expected: list[str] | None, counted: int, tmp_path: Path, images: Path
) -> None:
    keys = [f"{who}\t{what}.png" for who in "xy" for what in "ab"]
    lines = "".join(f"{key}\t{text}\n" for key, text in zip(keys, texts, strict=True))
    found, report = said(tmp_path, images, f"subject\timage\tdescription\n{lines}")
    assert found == (expected or texts)
    assert (report.changed[TEXT_QUOTES].count if counted else TEXT_QUOTES not in report.changed) == (counted or True)


def test_a_program_that_quotes_without_doubling(tmp_path: Path, images: Path) -> None:
    lines = '"subject"\t"image"\t"description"\n"x"\t"a.png"\t"She said "look" to me"\n'
    assert said(tmp_path, images, lines)[0] == ['She said "look" to me', None, None, None]


def test_quotes_that_fit_in_no_way_are_an_error_that_names_the_line(tmp_path: Path, images: Path) -> None:
    lines = 'subject\timage\tdescription\nx\ta.png\t"a\ttab"\ny\ta.png\t"open\n'
    with pytest.raises(InvalidSampleError, match=r"said\.tsv:3: is no table row .*quotes are closed"):
        said(tmp_path, images, lines)


# Numbers


def read(tmp_path: Path, images: Path, fields: list[str], delimiter: str = "\t", **options: Any) -> list[Any]:
    rows = [delimiter.join(["ana", "a.png", *field.split(" ")]) for field in fields]
    path = write(tmp_path / "r.txt", [delimiter.join(["who", "what", "ms", "x", "y"]), *rows])
    form = attrs.evolve(PLAIN, start=None)
    (sample,) = read_fixation_report(path, images, form, **options)
    return [
        (round(f.duration, 6), round((f.box[0] + f.box[2]) / 2, 6), round((f.box[1] + f.box[3]) / 2, 6))
        for f in sample.trajectory or ()
    ]


@pytest.mark.parametrize(
    ("fields", "delimiter", "expected"),
    [
        (["200 0.5 0.5", "1,200 0.3 0.5"], "\t", [(0.2, 0.5, 0.5), (1.2, 0.3, 0.5)]),
        (["200 0,5 0,5", "1.200 0,3 0,5"], "\t", [(0.2, 0.5, 0.5), (1.2, 0.3, 0.5)]),
        (["200,25 0,5 0,5", "1.200,5 0,3 0,5"], ";", [(0.20025, 0.5, 0.5), (1.2005, 0.3, 0.5)]),
        (["200 0.5 0.5", "1,200.5 .3 5e-1"], "\t", [(0.2, 0.5, 0.5), (1.2005, 0.3, 0.5)]),
        (['200 "0,5" "0,5"', '"1.200" "0,3" "0,5"'], ",", [(0.2, 0.5, 0.5), (1.2, 0.3, 0.5)]),
        (["200 0.5 0.5", '"1,200" 0.3 0.5'], ",", [(0.2, 0.5, 0.5), (1.2, 0.3, 0.5)]),
        (["1'200 0.5 0.5", "1\u202f250 0.3 +0.5"], "\t", [(1.2, 0.5, 0.5), (1.25, 0.3, 0.5)]),
        (["250.125 1 1", "300.500 1 1"], "\t", [(0.250125, 0.9825, 0.9825), (0.3005, 0.9825, 0.9825)]),
    ],
)
def test_numbers_as_people_write_them(
    fields: list[str], delimiter: str, expected: list[Any], tmp_path: Path, images: Path
) -> None:
    assert read(tmp_path, images, fields, delimiter) == expected


def test_a_number_that_can_be_read_in_two_ways_is_refused_unless_somebody_says(tmp_path: Path, images: Path) -> None:
    fields = ["200 1 1", "1,200 1 1"]
    with pytest.raises(
        InvalidSampleError, match=r"line 3: duration is '1,200', which may be 1200 or 1\.200.*\(decimal\)"
    ):
        read(tmp_path, images, fields)
    assert [duration for duration, *_ in read(tmp_path, images, fields, decimal=".")] == [0.2, 1.2]
    assert [duration for duration, *_ in read(tmp_path, images, fields, decimal=",")] == [0.2, 0.0012]
    assert [duration for duration, *_ in read(tmp_path, images, fields, delimiter=";")] == [0.2, 0.0012]


@pytest.mark.parametrize(
    "field", ["1,2,3", "1.2.3", "1,23,456", "12 000 0", "1_000", "200ms", "50%", "0x10", "1,2.3,4"]
)
def test_what_is_no_number_is_refused(field: str, tmp_path: Path, images: Path) -> None:
    lines = ["who\twhat\tms\tx\ty", f"ana\ta.png\t{field}\t0.5\t0.5"]
    with pytest.raises(InvalidSampleError, match=r"line 2: duration is .* which is no number"):
        list(read_fixation_report(write(tmp_path / "r.tsv", lines), images, attrs.evolve(PLAIN, start=None)))


def test_words_that_mean_missing(tmp_path: Path, images: Path) -> None:
    assert {"", ".", "n/a", "#n/a", "-nan(ind)", "nan", "null", "-"} <= MISSING_WORDS
    words = sorted({*MISSING_WORDS, "N/A", "#N/A", "NaN", "-NaN(ind)"} - {""})
    lines = ["who\twhat\tms\tx\ty", "ana\ta.png\t200\t0.5\t0.5", *(f"ana\ta.png\t200\t{word}\t0.5" for word in words)]
    stream = read_fixation_report(write(tmp_path / "r.tsv", lines), images, attrs.evolve(PLAIN, start=None))
    assert durations(list(stream)) == [[0.2]]
    assert stream.report.changed["fixations left out: position or duration is missing"].count == len(words)


# Wrappings

TABLE = f"{HEADER}\nzoë,a.png,0,200,0.5,0.5\n"

WRAPPED: dict[str, tuple[bytes, dict[str, Any]]] = {
    "gzip": (gzip.compress(TABLE.encode()), {}),
    "bzip2": (bz2.compress(TABLE.encode()), {}),
    "xz": (lzma.compress(TABLE.encode()), {}),
    "gzip of UTF-16": (gzip.compress(TABLE.encode("utf-16")), {}),
    "UTF-16 without a mark": (TABLE.encode("utf-16-le"), {}),
    "UTF-16 without a mark, big-endian": (TABLE.encode("utf-16-be"), {}),
    "UTF-32": (TABLE.encode("utf-32"), {}),
    "a mark though UTF-8 is said": (TABLE.encode("utf-8-sig"), {"encoding": "utf-8"}),
    "a mark though UTF-16-LE is said": (b"\xff\xfe" + TABLE.encode("utf-16-le"), {"encoding": "utf-16-le"}),
    "sep=;": (("sep=;\r\n" + TABLE.replace(",", ";").replace("\n", "\r\n")).encode(), {}),
    "sep= in quotes, with a mark": (('"sep=,"\n' + TABLE).encode("utf-8-sig"), {}),
    "decimal commas in quotes": (TABLE.replace("0.5", '"0,5"').encode(), {}),
    "blank lines first": (f"\n\n{TABLE}\n\n".encode(), {}),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_a_table_is_read_in_any_wrapping(wrapping: str, tmp_path: Path, images: Path) -> None:
    content, options = WRAPPED[wrapping]
    (tmp_path / "r").write_bytes(content)
    (sample,) = read_fixation_report(tmp_path / "r", images, PLAIN, **options)
    assert (sample.subject, durations([sample])) == ("zoë", [[0.2]])


def test_a_workbook_is_read(tmp_path: Path, images: Path) -> None:
    looks: list[list[str | float]] = [
        HEADER.split(","),
        ["ana", "a.png", 0, 200, 0.5, 0.25],
        ["ana", "a.png", 300.0, 212.5, 0.125, 1],
    ]
    texts: list[list[str | float]] = [["subject", "image", "description"], ["ana", "a.png", 'He said "hi", twice']]
    book = write_workbook(tmp_path / "r.xlsx", {"looks": looks, "empty": []})
    words = write_workbook(tmp_path / "said.xlsx", {"said": texts})
    (sample,) = read_fixation_report(book, images, PLAIN, words)
    assert (sample.description, durations([sample])) == ('He said "hi", twice', [[0.2, 0.2125]])
    two = write_workbook(tmp_path / "two.xlsx", {"looks": looks, "said": texts})
    with pytest.raises(InvalidSampleError, match=r"has the sheets 'looks', 'said'; name one \(sheet\)"):
        read_fixation_report(two, images, PLAIN)
    assert len(list(read_fixation_report(two, images, PLAIN, sheet="looks"))) == 1
    with pytest.raises(InvalidSampleError, match="has no sheet 'other'; it has 'looks', 'said'"):
        read_fixation_report(two, images, PLAIN, sheet="other")


def test_without_the_library_a_workbook_is_named(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "python_calamine", None)
    with pytest.raises(InvalidSampleError, match=r"workbook .*pip install 'pydeper\[excel\]'"):
        read_fixation_report(write_workbook(tmp_path / "r.xlsx", {"looks": [["x"]]}), images, PLAIN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"%PDF-1.7", "is a PDF document"),
        (b"\x28\xb5\x2f\xfd....", "is compressed with zstd; unpack it"),
        (b"SQLite format 3\0", "is an SQLite database"),
        (b"PAR1....", "is a Parquet file"),
        (b"PK\x03\x04 broken", "zip archive, or an Excel workbook .* damaged"),
        (gzip.compress(TABLE.encode(), mtime=0)[:20], "cannot be read"),
        (b"\xfd7zXZ\0 broken", "cannot be read"),
    ],
)
def test_what_holds_no_text_is_named(content: bytes, message: str, tmp_path: Path, images: Path) -> None:
    (tmp_path / "r").write_bytes(content)
    readers: list[Callable[[], object]] = [
        lambda: list(read_fixation_report(tmp_path / "r", images, PLAIN)),
        lambda: read_samples(tmp_path / "r"),
        lambda: list(read_deper_json(tmp_path / "r", images)),
        lambda: list(read_localized_narratives(tmp_path / "r", images)),
    ]
    for reader in readers:
        with pytest.raises(InvalidSampleError, match=message):
            reader()
    with zipfile.ZipFile(tmp_path / "r", "w") as archive:
        archive.writestr("r.csv", TABLE)
    with pytest.raises(InvalidSampleError, match="is a zip archive; unpack it"):
        read_fixation_report(tmp_path / "r", images, PLAIN)


@pytest.mark.parametrize("wrap", [gzip.compress, bz2.compress, lambda data: data.decode().encode("utf-16")])
def test_json_is_read_in_any_wrapping(wrap: Callable[[bytes], bytes], tmp_path: Path, images: Path) -> None:
    line = json.dumps({"image": "images/a.png", "description": "zwei Hunde – 两只狗"}, ensure_ascii=False)
    (tmp_path / "s.jsonl").write_bytes(wrap(f"{line}\r\n\r\n{line}\r\n".encode()))
    samples = read_samples(tmp_path / "s.jsonl")
    assert [sample.source for sample in samples] == [f"{tmp_path / 's.jsonl'}:{number}" for number in (1, 3)]
    assert samples[0].description == "zwei Hunde – 两只狗"
    entry = {
        "name": "a.png",
        "caption": "x",
        "subject": 1,
        "X": [0.5],
        "Y": [0.5],
        "T": [0.3],
        "bboxes": [[0, 0, 1, 1]],
    }
    (tmp_path / "d.json").write_bytes(wrap(json.dumps([entry]).encode()))
    assert len(list(read_deper_json(tmp_path / "d.json", images))) == 1
