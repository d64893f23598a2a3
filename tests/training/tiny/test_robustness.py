"""Drawings by other programs, and how what is said of them is judged."""

import itertools

import numpy as np
import pytest

from training.tiny.robustness.drawings import sample_drawings
from training.tiny.robustness.foreign_drawings import RENDERERS
from training.tiny.robustness.hand_drawings import STYLES
from training.tiny.robustness.naming import compare, score

THERE = [("red", "circle"), ("red", "circle"), ("blue", "star")]


@pytest.mark.parametrize("seed", [7, *range(5)])
def test_shapes_lie_apart_within_their_drawing(seed: int) -> None:
    """With seed 7, the first shapes of one drawing leave no room for the others."""
    for drawing in sample_drawings(RENDERERS, 300, np.random.default_rng(seed)):
        assert 1 <= len(drawing.shapes) <= 5
        for shape in drawing.shapes:
            assert shape.left > 0
            assert shape.left + shape.side < drawing.size[0]
            assert shape.top > 0
            assert shape.top + shape.side < drawing.size[1]
        for one, other in itertools.combinations(drawing.shapes, 2):
            side = max(one.side, other.side)
            assert abs(one.left - other.left) >= side or abs(one.top - other.top) >= side


def test_every_renderer_draws_a_shape_where_it_lies() -> None:
    seen = set()
    for drawing in sample_drawings(RENDERERS, 12, np.random.default_rng(0), objects=(1, 1)):
        pixels = np.asarray(drawing.render().convert("RGB"), int)
        assert pixels.shape[:2] == drawing.size[::-1]
        (shape,) = drawing.shapes
        drawn = (np.abs(pixels - shape.rgb).sum(axis=-1) < 30).nonzero()
        assert len(drawn[0]) > 0.02 * shape.side**2, drawing
        assert drawn[1].min() >= shape.left - 2
        assert drawn[1].max() <= shape.left + shape.side + 2
        assert drawn[0].min() >= shape.top - 2
        assert drawn[0].max() <= shape.top + shape.side + 2
        seen.add(drawing.renderer)
    assert len(seen) == 3


def test_every_style_puts_its_colour_where_the_shape_lies_and_draws_the_same_again() -> None:
    for drawing in sample_drawings(STYLES, 20, np.random.default_rng(1), objects=(1, 1)):
        picture = drawing.render()
        assert picture.size == drawing.size
        assert picture.tobytes() == drawing.render().tobytes()
        pixels = np.asarray(picture, int)
        (shape,) = drawing.shapes
        # Papers are grey or pale; what is coloured as the shape is lies where the shape does.
        drawn = (np.abs(pixels - shape.rgb).sum(axis=-1) < 60).nonzero()
        assert len(drawn[0]) > 0.02 * shape.side**2, drawing
        margin = 0.2 * shape.side
        assert np.median(drawn[1]) == pytest.approx(shape.left + shape.side / 2, abs=shape.side / 2), drawing
        assert np.quantile(drawn[1], 0.02) >= shape.left - margin, drawing
        assert np.quantile(drawn[1], 0.98) <= shape.left + shape.side + margin, drawing
        assert np.quantile(drawn[0], 0.02) >= shape.top - margin, drawing
        assert np.quantile(drawn[0], 0.98) <= shape.top + shape.side + margin, drawing


@pytest.mark.parametrize(
    ("said", "f1", "invented"),
    [
        ("I can see a red circle, a red circle and a blue star.", 1.0, 0.0),
        ("I can see a red circle and a blue star.", 2 * 2 / 5, 0.0),
        ("I can see a red circle, a red circle, a blue star and a blue star.", 2 * 3 / 7, 1.0),
        ("I can see a green circle.", 0.0, 1.0),
        ("", 0.0, 0.0),
    ],
)
def test_two_of_a_kind_have_to_be_named_twice(said: str, f1: float, invented: float) -> None:
    figures = score([compare(said, THERE)] * 2, ["one", "other"])
    assert figures["F1"].estimate == pytest.approx(f1)
    assert figures["with an invention"].estimate == invented
