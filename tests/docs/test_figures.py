"""The pictures of the docs are what the code says today, and can be read; the house's imports run downwards."""

import ast
import base64
import io
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageFont

from docs.figures import drawing, house
from docs.figures.__main__ import IMAGES, QUICK, SLOW, drawn
from tests.support.paths import ROOT

SVG = "{http://www.w3.org/2000/svg}"
LIGHT_LIBRARIES = {"PIL", "attrs", "huggingface_hub", "numpy", "onnxruntime", "safetensors", "tokenizers"}
TRAINING_ALONE = {"torch", "transformers", "accelerate", "matplotlib", "sklearn", "scipy"}

FILES = house.modules()
EDGES = house.imports(FILES)
PLAN = house.rooms()


def kept(name: str) -> str:
    return (IMAGES / f"{name}.svg").read_text(encoding="utf-8")


# --- the pictures


@pytest.mark.parametrize("name", [name for name in QUICK if name != "two-people"])
def test_a_picture_drawn_again_is_the_one_that_is_kept(name):
    assert drawn(name) == kept(name), f"run `python -m docs.figures {name}`"


def test_two_people_are_described_as_the_picture_says():
    now, then = ET.fromstring(drawn("two-people")), ET.fromstring(kept("two-people"))
    assert [text.text for text in now.iter(f"{SVG}text")] == [text.text for text in then.iter(f"{SVG}text")]
    for one, other in zip(now.iter(f"{SVG}image"), then.iter(f"{SVG}image"), strict=True):
        assert np.abs(pixels(one) - pixels(other)).mean() < 2  # of 255: Pillow's letters and palettes may change


def pixels(image: ET.Element) -> np.ndarray:
    data = base64.b64decode(image.attrib["href"].removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float64)


@pytest.mark.slow
def test_the_persona_map_is_that_of_the_built_in_model():
    def points(svg: str) -> np.ndarray:
        found = re.findall(r'translate\(([\d.]+) ([\d.]+)\)|cx="([\d.]+)" cy="([\d.]+)"', svg)
        return np.array([[float(number) for number in match if number] for match in found])

    now, then = points(drawn("persona-map")), points(kept("persona-map"))
    assert now.shape == then.shape == (2 * 108 + 6, 2)
    assert np.abs(now - then).max() < 2


def test_each_group_of_people_is_a_cloud_of_its_own_as_the_persona_map_says():
    marks = re.findall(r'translate\(([\d.]+) ([\d.]+)\)|cx="([\d.]+)" cy="([\d.]+)"', kept("persona-map"))
    places = np.array([[float(number) for number in mark if number] for mark in marks])[:108]  # the left one
    group = np.repeat(np.arange(6), 18)  # six people, three personas each
    centres = np.stack([places[group == number].mean(0) for number in range(6)])
    assert np.array_equal(np.linalg.norm(places[:, None] - centres, axis=2).argmin(1), group)


def test_nothing_else_lies_beside_the_pictures():
    assert {path.name for path in IMAGES.iterdir()} == {f"{name}.svg" for name in (*QUICK, *SLOW)}


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_a_picture_says_what_it_shows_to_those_who_cannot_see_it(name):
    root = ET.fromstring(kept(name))
    title, description = root.findtext(f"{SVG}title"), root.findtext(f"{SVG}desc")
    assert title
    assert description
    assert len(description) > 100
    assert root.attrib["role"] == "img"


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_no_text_leaves_the_picture_or_is_too_small_for_a_phone(name):
    root = ET.fromstring(kept(name))
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    assert width == drawing.WIDTH
    for text in root.iter(f"{SVG}text"):
        styles = text.attrib.get("class", "").split()
        size = 15 if "small" in styles else 16
        font = fonts("DejaVuSans-Bold.ttf" if "label" in styles else "DejaVuSans.ttf", size)  # as wide as letters come
        length = sum(font.getlength(piece) for piece in text.itertext())
        start = {"middle": length / 2, "end": length}.get(text.attrib.get("text-anchor", ""), 0.0)
        left = float(text.attrib["x"]) - start
        assert left >= 0, "".join(text.itertext())
        assert left + length <= width, "".join(text.itertext())
        assert size <= float(text.attrib["y"]) <= height


def fonts(name: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_box_and_from_the_page(theme):
    """At least 4.5 to 1 (WCAG 2, AA), on every kind of box and on the page."""
    page = drawing._PAGE[theme]
    for kind, themes in drawing._KINDS.items():
        fill, line, ink = themes[theme]
        assert contrast(ink, page if fill == "none" else fill) >= 4.5, kind
        assert contrast(line, page) >= 3, kind
    for ink in (drawing._INK[theme], drawing._QUIET[theme]):
        assert contrast(ink, page) >= 4.5


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_command_draws_what_is_named(tmp_path, monkeypatch):
    from docs.figures import __main__ as command

    monkeypatch.setattr(command, "IMAGES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures", "data-flow"])
    command.main()
    assert (tmp_path / "data-flow.svg").read_text(encoding="utf-8") == kept("data-flow")
    monkeypatch.setattr(sys, "argv", ["figures", "data-flaw"])
    with pytest.raises(SystemExit):
        command.main()


# --- the house


def test_every_module_is_in_one_room():
    homes = {
        path.relative_to(ROOT).as_posix(): house.room_of(path.relative_to(ROOT).as_posix(), PLAN)
        for path in FILES.values()
    }
    strays = {path: found for path, found in homes.items() if len(found) != 1}
    assert not strays, "each belongs into one room of the tables in docs/design.md"


def test_every_file_that_a_room_names_is_there():
    assert all(PLAN.values())
    assert not [name for names in PLAN.values() for name in names if not (ROOT / name).exists()]


def test_imports_between_rooms_run_downwards():
    levels = house.storeys(PLAN, house.between_rooms(EDGES, FILES, PLAN))
    assert levels["pydeper/foundation"] == 0
    order = list(house.PACKAGES)
    for one, other in EDGES - house.UPWARDS:
        assert order.index(one.split(".")[0]) <= order.index(other.split(".")[0]), f"{one} imports {other}"


def test_the_sdk_imports_light_libraries_only():
    foreign = {(name, top) for name, top in house.outside(FILES) if name.split(".")[0] == "pydeper"}
    assert {top for _, top in foreign} - sys.stdlib_module_names <= LIGHT_LIBRARIES
    assert not [pair for pair in foreign if pair[1] in TRAINING_ALONE]


@pytest.mark.parametrize(("importer", "imported"), sorted(house.UPWARDS))
def test_what_goes_up_is_imported_when_it_is_called(importer, imported):
    assert (importer, imported) in EDGES
    at_once = [node for node in ast.parse(FILES[importer].read_text("utf-8")).body if isinstance(node, ast.ImportFrom)]
    assert imported not in {name for node in at_once for name in (node.module, f"{node.module}.{node.names[0].name}")}


def test_nothing_imports_an_entry_point():
    assert {pair for pair in EDGES if pair[1].endswith(("__main__", ".cli.main"))} == {
        ("pydeper.__main__", "pydeper.cli.main")
    }


def test_imports_are_found_wherever_they_stand(tmp_path):
    package = tmp_path / "pydeper"
    package.mkdir()
    (package / "__init__.py").write_text('_HOMES = {"Model": "pydeper.model"}\n')
    (package / "model.py").write_text("import numpy\n")
    (package / "other.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from pydeper import Model\n"
        "if TYPE_CHECKING:\n    from pydeper import typed\n"
        "def f():\n    from pydeper import late, __version__\n    import torch.nn\n"
        "class A:\n    def g(self):\n        import pydeper.later\n"
    )
    for name in ("late", "later", "typed"):
        (package / f"{name}.py").write_text("")
    files = house.modules(tmp_path)
    other = "pydeper.other"
    assert house.imports(files) == {(other, "pydeper.model"), (other, "pydeper.late"), (other, "pydeper.later")}
    assert house.outside(files) == {("pydeper.model", "numpy"), (other, "typing"), (other, "torch")}


def test_circles_are_refused_and_longer_ways_left_out():
    with pytest.raises(ValueError, match="in a circle are among: a, b"):
        house.storeys("abc", {("a", "b"), ("b", "a")})
    edges = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")}
    assert house.shortest(edges) == {("a", "b"), ("b", "c"), ("c", "d")}
    assert house.storeys("abcd", edges) == {"a": 3, "b": 2, "c": 1, "d": 0}
