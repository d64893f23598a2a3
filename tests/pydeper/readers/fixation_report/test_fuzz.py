"""Thousands of mutated tables: only a `PydeperError` comes out, and no row is lost without being counted."""

import csv
import random
import re
from pathlib import Path

import attrs
import pytest

from pydeper.errors import PydeperError
from pydeper.readers import ReadReport, Tolerance, read_fixation_report
from pydeper.samples.sample import Sample
from tests.pydeper.readers.support import PLAIN, make_images

FORM = attrs.evolve(PLAIN, keep={"valid": ("1",)})
COLUMNS = ["who", "what", "start", "ms", "x", "y", "valid", "said"]
SNIPPETS = [
    '"',
    '""',
    ",",
    "\t",
    ";",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "n/a",
    "-",
    "1,200",
    "0,5",
    "1e999",
    "é",
    "e\u0301",
    "\ufeff",
]
SNIPPETS += ["a.png", "b", "../a.png", " ", "''", "0", "999999999", "\u202e", "sep=;\n"]

ALWAYS, MANY = 300, 10_000


def table(rng: random.Random) -> str:
    """A sound table of up to 12 rows."""
    delimiter = rng.choice(",;\t")
    rows = [COLUMNS]
    for who in ("ana", "ben")[: rng.randint(1, 2)]:
        for what in ("a.png", "b.png")[: rng.randint(1, 2)]:
            for i in range(rng.randint(1, 3)):
                said = rng.choice(["", "ok", '"quoted"', '"a ""b"""', "left"])
                rows.append([who, what, str(300 * i), "200", "0.5", "0.25", rng.choice("1110"), said])
    return "".join(f"{delimiter.join(row)}\n" for row in rows)


def mutated(text: str, rng: random.Random) -> bytes:
    """The table with a few places changed, mostly behind the header."""
    header = text.index("\n") + 1
    for _ in range(rng.randint(0, 4)):
        place = rng.randint(0 if rng.random() < 0.1 else min(header, len(text)), len(text))
        cut = rng.choice([0, 0, 1, 3, rng.randint(0, 40)])
        text = text[:place] + rng.choice(["", *SNIPPETS]) + text[place + cut :]
    data = text.encode(rng.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le"]), "surrogatepass")
    if rng.random() < 0.1:
        spot = rng.randrange(len(data) + 1)
        data = data[:spot] + rng.randbytes(rng.randint(0, 3)) + data[spot:]
    return data


def rows_in(data: bytes) -> list[int]:
    """How many rows there may be, counted without the reader: as lines that hold something, or as quoted rows."""
    encoding = (
        "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-16-le" if data[1:2] == b"\0" else "utf-8-sig"
    )
    lines = re.split("\r\n|\r|\n", data.decode(encoding, "replace"))
    filled = [number for number, line in enumerate(lines) if line.strip()]
    header = next((n for n in filled if not re.fullmatch(r'"?sep=.("?\s*)', lines[n], re.IGNORECASE)), None)
    if header is None:
        return [0]
    rest = [line for line in lines[header + 1 :] if line]
    text = "\n".join(lines[header + 1 :])
    counts = [len(rest)]
    for delimiter in ",;\t":
        counts.append(sum(1 for row in csv.reader(text.splitlines(keepends=True), delimiter=delimiter) if row))
    return counts


def accounted(samples: list[Sample], report: ReadReport) -> tuple[int, int]:
    """Rows in samples, and rows that the report counts as left out or passed over."""
    changed = sum(tally.count for what, tally in report.changed.items() if what.startswith("fixations "))
    moved = report.changed.get("fixations outside the image moved to its edge")
    rows = sum(tally.count for what, tally in report.passed_over.items() if what.startswith("rows "))
    return sum(len(sample.trajectory or ()) for sample in samples), changed + rows - (moved.count if moved else 0)


def fuzz(folder: Path, count: int, seed: int) -> int:
    """Reads so many mutated tables, and gives how many were read to their end."""
    images = make_images(folder / "images", "a.png", "b.png")
    rng, path, read = random.Random(seed), folder / "r.txt", 0
    for number in range(count):
        data = mutated(table(rng), rng)
        path.write_bytes(data)
        try:
            stream = read_fixation_report(path, images, FORM, check_durations=False)
            samples = list(stream)
        except PydeperError:
            with_tolerance(path, images)
            continue
        read += 1
        kept, counted = accounted(samples, stream.report)
        assert kept + counted in rows_in(data), (number, data, stream.report.as_dict())
    return read


def with_tolerance(path: Path, images: Path) -> None:
    """What is refused is read with tolerance, or refused as well; nothing else comes out."""
    try:
        stream = read_fixation_report(path, images, FORM, tolerance=Tolerance(damaged=99, missing_images=99))
        list(stream)
    except PydeperError:
        pass


def test_mutated_tables_lose_no_row_uncounted(tmp_path: Path) -> None:
    assert fuzz(tmp_path, ALWAYS, seed=0) > ALWAYS / 4


@pytest.mark.slow
def test_ten_thousand_mutated_tables_lose_no_row_uncounted(tmp_path: Path) -> None:
    assert fuzz(tmp_path, MANY, seed=1) > MANY / 4
