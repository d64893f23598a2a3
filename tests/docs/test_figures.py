"""The pictures of the docs are what the code says today, and can be read."""

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

from docs.figures import drawing, packages
from docs.figures.__main__ import IMAGES, QUICK, SLOW, drawn
from docs.figures.charts import bars

SVG = "{http://www.w3.org/2000/svg}"


def kept(name: str) -> str:
    return (IMAGES / f"{name}.svg").read_text(encoding="utf-8")


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
    assert now.shape == then.shape == (2 * 144 + 8, 2)
    assert np.abs(now - then).max() < 2


def test_people_of_a_group_lie_together_as_the_persona_map_says():
    marks = re.findall(r'translate\(([\d.]+) ([\d.]+)\)|cx="([\d.]+)" cy="([\d.]+)"', kept("persona-map"))
    places = np.array([[float(number) for number in mark if number] for mark in marks])[:144]  # the left one
    group = np.repeat(np.arange(6), 24)  # eight people, three personas each
    centres = np.stack([places[group == number].mean(0) for number in range(6)])
    apart = np.linalg.norm(places - centres[group], axis=1).mean()
    assert apart < 0.2 * np.linalg.norm(places - places.mean(0), axis=1).mean()


def test_nothing_else_lies_beside_the_pictures():
    drawn = {f"{name}.svg" for name in (*QUICK, *SLOW)}
    taken = {f"capture-{name}.png" for name in ("desktop", "dark", "phone", "review", "result")}  # see screenshots.py
    assert {path.name for path in IMAGES.iterdir()} == drawn | taken


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
        left, right, size = extent(text)
        assert left >= 0, "".join(text.itertext())
        assert right <= width, "".join(text.itertext())
        assert size <= float(text.attrib["y"]) <= height


@pytest.mark.parametrize("name", bars.CHARTS)
def test_no_label_reaches_into_its_bar(name):
    root = ET.fromstring(kept(name))
    begin = min(float(bar.attrib["x"]) for bar in root.iter(f"{SVG}rect") if "x" in bar.attrib)
    for text in root.iter(f"{SVG}text"):
        if float(text.attrib["x"]) < begin and "small" in text.attrib["class"].split():
            assert extent(text)[1] < begin, "".join(text.itertext())


def extent(text: ET.Element) -> tuple[float, float, int]:
    """Where a text begins and ends, in a font whose letters are as wide as any reader's; and its size."""
    styles = text.attrib.get("class", "").split()
    size = 15 if "small" in styles else 16
    font = fonts("DejaVuSans-Bold.ttf" if "label" in styles else "DejaVuSans.ttf", size)
    length = sum(font.getlength(piece) for piece in text.itertext())
    left = float(text.attrib["x"]) - {"middle": length / 2, "end": length}.get(text.attrib.get("text-anchor", ""), 0.0)
    return left, left + length, size


def fonts(name: str, size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_box_and_from_the_page(theme):
    """At least 4.5 to 1 (WCAG 2, AA), on every kind of box and on the page."""
    page = drawing.PAGE[theme]
    for kind, themes in drawing.KINDS.items():
        fill, line, ink = themes[theme]
        assert contrast(ink, page if fill == "none" else fill) >= 4.5, kind
        assert contrast(line, page) >= 3, kind
    for ink in (drawing.INK[theme], drawing.QUIET[theme]):
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


def test_levels_follow_the_longest_way_and_arrows_that_follow_from_others_are_left_out():
    edges = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")}
    assert packages.transitive_reduction(edges) == {("a", "b"), ("b", "c"), ("c", "d")}
    assert packages.levels("abcd", edges) == {"a": 3, "b": 2, "c": 1, "d": 0}
