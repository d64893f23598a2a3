"""Files and modules that the pages and pictures name are there."""

import pkgutil
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from docs.figures.__main__ import IMAGES
from tests.support.paths import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
PACKAGES = "pydeper|training|export|benchmarks|examples|docs"
FILE = re.compile(r"(?:pydeper|training|export|tests|benchmarks|docs|examples)/(?:[\w./-]+\.[a-z]+\b|[\w/-]*/)")


def modules_and_names(text: str) -> set[str]:
    """Dotted names of the project's own: in code, in the reference's marks, in commands and imports."""
    found = set(re.findall(rf"(?:`|::: |: |python -m |from |import )((?:{PACKAGES})(?:\.\w+)+)", text))
    return {name for name in found if not re.search(r"\.(?:md|py|toml|json|onnx|svg)$", name)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_public_names_on_a_page_can_be_imported(page: Path) -> None:
    for name in sorted(modules_and_names(page.read_text(encoding="utf-8"))):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_on_a_page_are_there(page: Path) -> None:
    code = re.findall(r"`[^`\n]+`|<code>[^<]+</code>", page.read_text(encoding="utf-8"))
    missing = {path for words in code for path in FILE.findall(words) if not (ROOT / path).exists()}
    assert not missing


def test_files_in_the_picture_of_the_network_are_there() -> None:
    root = ET.parse(IMAGES / "network.svg").getroot()
    texts = " ".join("".join(text.itertext()) for text in root.iter() if text.tag.endswith("}text"))
    files, folders = re.findall(r"(\w+\.py)", texts), re.findall(r"(\w+)/", texts)
    assert len(files) > 5
    assert {*files} <= {path.name for path in (ROOT / "training" / "network").rglob("*.py")}
    assert {"losses", "vlm"} <= {*folders}
    assert all((ROOT / "training" / folder).is_dir() for folder in {*folders} - {"training"})


def test_names_are_found_wherever_they_stand() -> None:
    text = "`pydeper.gaze.IDT` python -m training.x, ::: pydeper.Persona\nfrom export.tiny import a\n`docs.md`"
    assert modules_and_names(text) == {"pydeper.gaze.IDT", "training.x", "pydeper.Persona", "export.tiny"}
    assert FILE.findall("`training/a.py`, `tests/golden/`") == ["training/a.py", "tests/golden/"]
