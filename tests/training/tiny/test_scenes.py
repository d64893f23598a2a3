"""The tiny world's scenes: what is in them, and how they are drawn."""

import itertools

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.drawing.colours import COLOURS, colour_name
from pydeper.drawing.shapes import SHAPES
from training.tiny.world.colours import contrast
from training.tiny.world.rendering import render
from training.tiny.world.sampling import CLEAR, Layout, sample_scene
from training.tiny.world.scenes import ORDERS, WARMTH, Scene

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=40)
@given(seeds, st.booleans())
def test_objects_lie_apart_inside_the_picture_and_stand_out(seed: int, clear: bool) -> None:
    scene = sample_scene(np.random.default_rng(seed), CLEAR if clear else Layout((0, 8)))
    assert (4 if clear else 0) <= len(scene.objects) <= (6 if clear else 8)
    assert min(scene.canvas) == 1
    assert max(scene.canvas) <= 2
    boxes = [thing.box for thing in scene.objects]
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1
        for a1, b1, a2, b2 in boxes[:number]:
            assert x2 < a1 or a2 < x1 or y2 < b1 or b2 < y1
    for thing in scene.objects:
        assert thing.shape in SHAPES
        assert thing.colour == colour_name(thing.rgb)
        assert all(contrast(thing.rgb, paper) > 0.2 for paper in scene.background)


@settings(max_examples=40)
@given(seeds)
def test_in_a_clear_scene_no_order_is_in_doubt(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed))
    assert len({thing.shape for thing in scene.objects}) == len(scene.objects)
    for order, key in ORDERS.items():
        keys = [key(thing) for thing in scene.ranked(order)]
        assert all(first < second for first, second in itertools.pairwise(keys)), order
    for first, second in itertools.pairwise(scene.ranked("smallest")):
        assert second.extent > 1.19 * first.extent
    for first, second in itertools.pairwise(scene.ranked("rightward")):
        assert second.centre[0] > 0.079 + first.centre[0]
    for thing in scene.objects:
        assert not 0.165 < thing.extent < 0.175
        assert not 0.252 < thing.extent < 0.268


def test_orders_are_what_their_names_say() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        scene = sample_scene(rng)
        centres = {order: np.array([thing.centre for thing in scene.ranked(order)]) for order in ORDERS}
        assert (np.diff(centres["rightward"][:, 0]) > 0).all()
        assert (np.diff(centres["upward"][:, 1]) < 0).all()
        extents = [thing.extent for thing in scene.ranked("largest")]
        assert extents == sorted(extents, reverse=True)
        for order, reverse in (("rightward", "leftward"), ("largest", "smallest"), ("warmest", "coolest")):
            assert scene.ranked(reverse) == scene.ranked(order)[::-1]
        warmth = [WARMTH.index(thing.colour) for thing in scene.ranked("warmest")]
        assert warmth == sorted(warmth)


@pytest.mark.parametrize("layout", [CLEAR, Layout((0, 0)), Layout((1, 3), plain=True)])
def test_the_same_scene_is_always_drawn_alike_and_others_otherwise(layout: Layout) -> None:
    scenes = [sample_scene(np.random.default_rng(seed), layout) for seed in (1, 1, 2)]
    first, again, other = (render(scene) for scene in scenes)
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes() or first.size != other.size


def test_an_object_of_an_evenly_drawn_scene_has_its_colour_where_its_box_says() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scene = sample_scene(rng, Layout((1, 4), plain=True))
        pixels = np.asarray(render(scene)).astype(int)
        height, width = pixels.shape[:2]
        for thing in scene.objects:
            own = (pixels == thing.rgb).all(axis=-1)
            x1, y1, x2, y2 = np.array(thing.box) * (width, height, width, height)
            box = own[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1]
            assert np.ptp(np.nonzero(box)[0]) >= 0.7 * (y2 - y1) - 3
            assert np.ptp(np.nonzero(box)[1]) >= 0.7 * (x2 - x1) - 3  # tips are paler


def test_every_colour_shape_and_background_occurs() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, Layout((1, 6))) for _ in range(300)]
    things = [thing for scene in scenes for thing in scene.objects]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.size for thing in things} == {"small", "medium", "large"}
    assert 0.1 < np.mean([thing.outlined for thing in things]) < 0.4
    shades = np.array([max(scene.background[0]) for scene in scenes])
    assert (shades < 70).any()
    assert (shades == 255).any()


def test_pictures_without_objects_differ_too() -> None:
    """Writing, lines and textures lie about, so that a model learns what is no shape."""
    rng = np.random.default_rng(1)
    empty: list[Scene] = [sample_scene(rng, Layout((0, 0))) for _ in range(30)]
    spreads = [np.asarray(render(scene)).std() for scene in empty]
    assert max(spreads) > 40
    assert (
        render(attrs.evolve(empty[0], canvas=(2.0, 1.0))).size[0]
        == 2 * render(attrs.evolve(empty[0], canvas=(2.0, 1.0))).size[1]
    )


@settings(max_examples=30)
@given(seeds)
def test_a_sketched_scene_differs_nowhere_but_in_its_fills(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed), Layout((1, 5), plain=True))
    even, sketched = (np.asarray(render(drawn, 200), int) for drawn in (scene, attrs.evolve(scene, sketched=True)))
    changed = (even != sketched).any(axis=2)
    height, width = changed.shape
    margin = 0.06 * max(thing.extent for thing in scene.objects) + 0.01  # half of the thickest outline
    for thing in scene.objects:
        x1, y1, x2, y2 = np.array(thing.box) * np.tile(scene.canvas, 2)
        rows = slice(max(int((y1 - margin) * min(height, width)), 0), int((y2 + margin) * min(height, width)) + 1)
        columns = slice(max(int((x1 - margin) * min(height, width)), 0), int((x2 + margin) * min(height, width)) + 1)
        changed[rows, columns] = False
    assert not changed.any()


def test_sketched_fills_differ_from_even_ones() -> None:
    layout = Layout((3, 5), plain=True)  # a single object may keep its even fill
    for seed in range(20):
        scene = sample_scene(np.random.default_rng(seed), layout)
        assert render(scene).tobytes() != render(attrs.evolve(scene, sketched=True)).tobytes()


@settings(max_examples=20)
@given(seeds)
def test_what_is_only_outlined_has_no_fill_to_sketch(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed), Layout((1, 5), outlined=1.0))
    scene = attrs.evolve(scene, objects=tuple(thing for thing in scene.objects if thing.outlined))
    assert render(scene).tobytes() == render(attrs.evolve(scene, sketched=True)).tobytes()
