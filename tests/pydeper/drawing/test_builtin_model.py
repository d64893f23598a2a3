"""What the built-in model says of pictures that people make and bring: drawings, and everything that is none."""

import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pydeper import DeperModel, DrawnObject, draw_scene
from pydeper.drawing.colours import COLOURS
from pydeper.drawing.shapes import SHAPES
from tests.support.paths import ROOT
from training.tiny.world.viewers import NOTHING, mentioned_objects


@pytest.fixture(scope="module")
def model() -> DeperModel:
    return DeperModel.from_pretrained("tiny", threads=1)


def named(model: DeperModel, picture: Image.Image) -> Counter[tuple[str | None, str]]:
    return Counter(mentioned_objects(model.describe(picture)))


# --- drawings


def test_a_drawing_of_ones_own_is_described_right(model):
    drawn = [
        DrawnObject(shape="square", colour="orange", centre=(0.2, 0.3)),
        DrawnObject(shape="star", colour="blue", centre=(0.7, 0.25), size=0.3),
        DrawnObject(shape="circle", colour="red", centre=(0.5, 0.75), size=0.2),
    ]
    assert named(model, draw_scene(drawn)) == Counter((thing.colour, thing.shape) for thing in drawn)


def test_pillow_draws_as_well(model):
    picture = Image.new("RGB", (400, 300), "white")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((40, 60, 130, 150), fill="orange")
    pen.ellipse((250, 120, 340, 210), fill=(255, 0, 0))
    assert named(model, picture) == Counter({("orange", "square"): 1, ("red", "circle"): 1})


def test_every_shape_is_known_in_every_colour(model):
    wrong = []
    for shape, colour in itertools.product(SHAPES, COLOURS):
        thing = DrawnObject(shape=shape, colour=colour, centre=(0.4, 0.55), size=0.3)
        picture = draw_scene([thing], background="#606870" if colour in ("white", "yellow") else "white")
        if named(model, picture) != Counter([(colour, shape)]):
            wrong.append((colour, shape, model.describe(picture)))
    assert not wrong


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (100, 200), (336, 336), (1600, 900), (1500, 3000)])
def test_any_size_and_shape_of_picture_will_do(model, size):
    things = [
        DrawnObject(shape="heart", colour="red", centre=(0.3, 0.3), size=0.35),
        DrawnObject(shape="cross", colour="blue", centre=(0.7, 0.7), size=0.35),
    ]
    assert named(model, draw_scene(things, size=size)) == Counter({("red", "heart"): 1, ("blue", "cross"): 1})


# --- no drawings


def photograph(seed: int) -> Image.Image:
    """Light and texture at every scale, as a photograph out of focus has them."""
    rng = np.random.default_rng(seed)
    total = np.zeros((240, 320, 3))
    for side in (3, 6, 12, 24, 48, 96):
        layer = Image.fromarray((rng.random((side, side, 3)) * 255).astype(np.uint8))
        total += np.asarray(layer.resize((320, 240), Image.Resampling.BICUBIC)) / side**0.5
    return Image.fromarray((total / total.max() * 255).astype(np.uint8))


def page_of_text() -> Image.Image:
    picture = Image.new("RGB", (420, 300), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(18)
    for line in range(12):
        pen.text((20, 14 + 23 * line), "It was a bright cold day, and the clocks.", fill="black", font=font)
    return picture


def blank(colour: str) -> Image.Image:
    return Image.new("RGB", (320, 240), colour)


@pytest.mark.parametrize(
    "picture",
    [
        *(pytest.param(blank(colour), id=f"{colour} page") for colour in ("white", "black", "grey", "navy", "salmon")),
        *(pytest.param(photograph(seed), id=f"photograph {seed}") for seed in range(4)),
        pytest.param(page_of_text(), id="text"),
        pytest.param(Image.new("RGB", (1, 1), "red"), id="one pixel"),
        pytest.param(Image.linear_gradient("L").convert("RGB"), id="gradient"),
    ],
)
def test_where_there_is_no_shape_none_is_invented(model, picture):
    assert model.describe(picture) == NOTHING


def test_a_screenshot_is_no_error(model):
    assert model.describe(ROOT / "docs/images/capture-desktop.png")


def test_of_thirty_shapes_six_are_named_and_the_rest_mentioned(model):
    shapes, colours = itertools.cycle(SHAPES), itertools.cycle(name for name in COLOURS if name != "white")
    things = [
        DrawnObject(shape=next(shapes), colour=next(colours), centre=((x + 0.5) / 6, (y + 0.5) / 5), size=0.11)
        for y in range(5)
        for x in range(6)
    ]
    text = model.describe(draw_scene(things, size=(480, 400)))
    assert len(mentioned_objects(text)) == 6
    assert text.rstrip(".").endswith("more")


def test_shapes_that_overlap_are_still_only_those_that_are_there(model):
    things = [
        DrawnObject(shape="square", colour="blue", centre=(0.4, 0.4), size=0.4),
        DrawnObject(shape="circle", colour="yellow", centre=(0.6, 0.6), size=0.4),
    ]
    found = named(model, draw_scene(things))
    assert found
    assert {colour for colour, _ in found} <= {"blue", "yellow"}
