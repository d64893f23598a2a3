"""Which names colours get."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageColor

from pydeper.drawing.colours import COLOURS, colour_name

channels = st.integers(0, 255)


@given(st.tuples(channels, channels, channels))
def test_every_colour_has_one_of_eleven_names(rgb: tuple[int, int, int]) -> None:
    assert colour_name(rgb) in COLOURS


@pytest.mark.parametrize("name", COLOURS)
def test_the_clearest_example_of_a_name_and_the_colour_of_css_have_it(name: str) -> None:
    assert colour_name(COLOURS[name]) == name
    assert colour_name(ImageColor.getrgb(name)[:3]) == name


@pytest.mark.parametrize(
    ("css", "name"),
    [
        *[("maroon", "red"), ("crimson", "red"), ("tomato", "red"), ("darkorange", "orange"), ("gold", "yellow")],
        *[("olive", "green"), ("lime", "green"), ("teal", "blue"), ("cyan", "blue"), ("navy", "blue")],
        *[("indigo", "purple"), ("violet", "pink"), ("magenta", "pink"), ("hotpink", "pink"), ("sienna", "brown")],
        *[("#111111", "black"), ("silver", "grey"), ("dimgrey", "grey"), ("ivory", "white"), ("whitesmoke", "white")],
    ],
)
def test_colours_are_called_what_people_call_them(css: str, name: str) -> None:
    assert colour_name(ImageColor.getrgb(css)[:3]) == name


@given(st.integers(0, 255))
def test_shades_of_grey_are_black_grey_or_white(shade: int) -> None:
    assert colour_name((shade, shade, shade)) == ("black" if shade < 69 else "white" if shade >= 225 else "grey")
