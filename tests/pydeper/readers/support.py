"""Small fixation reports for tests: images, files, and what comes out."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pydeper.readers import ReportFormat
from pydeper.samples.sample import Sample

PLAIN = ReportFormat(x="x", y="y", duration="ms", subject="who", image="what", start="start")
HEADER = "who,what,start,ms,x,y"


def make_images(folder: Path, *names: str) -> Path:
    """A folder of images, 400×200 each."""
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (400, 200)).save(folder / name)
    return folder


def write(path: Path, lines: Sequence[str] | str, encoding: str = "utf-8") -> Path:
    """A table of these lines."""
    text = lines if isinstance(lines, str) else "".join(f"{line}\n" for line in lines)
    path.write_bytes(text.encode(encoding))
    return path


def durations(samples: list[Sample]) -> list[Any]:
    """The durations of each sample's fixations."""
    return [[round(fixation.duration, 6) for fixation in sample.trajectory or ()] for sample in samples]


def write_workbook(path: Path, sheets: dict[str, list[list[str | float]]]) -> Path:
    """An .xlsx file with nothing but cells."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    numbers = range(1, len(sheets) + 1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        parts = "".join(
            f'<Override PartName="/xl/worksheets/sheet{n}.xml" ContentType="{kinds}.worksheet+xml"/>' for n in numbers
        )
        archive.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>{parts}</Types>',
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="rId1" Type="{office}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        named = "".join(
            f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in zip(numbers, sheets, strict=True)
        )
        archive.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{named}</sheets></workbook>'
        )
        targets = "".join(
            f'<Relationship Id="rId{n}" Type="{office}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n in numbers
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{package}/relationships">{targets}</Relationships>'
        )
        for n, rows in zip(numbers, sheets.values(), strict=True):
            cells = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
            archive.writestr(
                f"xl/worksheets/sheet{n}.xml", f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
            )
    return path


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
    return f"<c><v>{value!r}</v></c>"
