"""Drawing a picture for the built-in model."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydeper import DrawnObject, InvalidArgumentError, draw_scene
from pydeper.drawing.colours import COLOURS
from pydeper.drawing.shapes import SHAPES


@given(st.sampled_from(sorted(SHAPES)), st.floats(0, 1), st.floats(-180, 180))
def test_the_longer_side_of_an_outline_runs_from_minus_1_to_1(name: str, part: float, angle: float) -> None:
    low, high = SHAPES[name].proportion
    outer, *holes = SHAPES[name].polygons(low + part * (high - low), angle)
    assert np.abs(outer).max() == pytest.approx(1)
    assert np.ptp(outer, axis=0).max() == pytest.approx(2)
    assert outer.min(axis=0) + outer.max(axis=0) == pytest.approx(0, abs=1e-9)
    assert all(np.abs(hole).max() < 1 for hole in holes)


@given(
    shape=st.sampled_from(sorted(SHAPES)),
    colour=st.sampled_from(sorted(set(COLOURS) - {"white"})),
    centre=st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7)),
    size=st.floats(0.1, 0.5),
    outlined=st.booleans(),
)
def test_an_object_is_drawn_in_its_colour_where_it_is_to_be(
    shape: str, colour: str, centre: tuple[float, float], size: float, outlined: bool
) -> None:
    thing = DrawnObject(shape=shape, colour=colour, centre=centre, size=size, outlined=outlined)
    pixels = np.asarray(draw_scene([thing], size=(300, 200)))
    assert pixels.shape == (200, 300, 3)
    drawn = (pixels < 250).any(axis=-1)
    rows, columns = np.nonzero(drawn)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(size * 200, abs=0.1 * size * 200 + 3)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(centre[0] * 300, abs=3)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(centre[1] * 200, abs=3)
    assert (pixels == COLOURS[colour]).all(axis=-1).any()


def test_a_later_object_covers_an_earlier_one_and_colours_may_be_those_of_pillow() -> None:
    square = DrawnObject(shape="square", colour="#123456", centre=(0.5, 0.5), size=0.5)
    circle = DrawnObject(shape="circle", colour="tomato", centre=(0.5, 0.5), size=0.3)
    image = draw_scene([square, circle], background="rgb(1, 2, 3)")
    assert image.getpixel((168, 168)) == (255, 99, 71)
    assert image.getpixel((100, 100)) == (0x12, 0x34, 0x56)
    assert image.getpixel((5, 5)) == (1, 2, 3)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"shape": "blob"}, {}, r"objects\[0\].shape: must be one of circle, .*, got 'blob'"),
        ({"colour": "blurple"}, {}, r"objects\[0\].colour: 'blurple' is no colour: give one of red, "),
        ({"size": 0.0}, {}, r"objects\[0\].size: must be above 0, got 0"),
        ({"size": float("nan")}, {}, r"objects\[0\].size: must be above 0, got nan"),
        ({}, {"background": "paper"}, "background: 'paper' is no colour"),
        ({}, {"size": (0, 10)}, "size: 0×10 pixels: both must be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], options: dict[str, Any], message: str) -> None:
    thing = DrawnObject(**{"shape": "circle", "colour": "red", "centre": (0.5, 0.5)} | changes)
    with pytest.raises(InvalidArgumentError, match=message):
        draw_scene([thing], **options)
