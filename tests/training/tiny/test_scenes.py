"""The tiny world's scenes: what is in them, and where it is drawn."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.tiny.scenes import COLOURS, SCENE_PIXELS, sample_scene


@given(st.integers(0, 2**32 - 1))
def test_a_scene_has_4_or_5_objects_of_different_shapes_in_different_cells_inside_the_image(seed):
    scene = sample_scene(np.random.default_rng(seed))
    assert len(scene.objects) in (4, 5)
    assert (
        len({thing.shape for thing in scene.objects})
        == len({thing.cell for thing in scene.objects})
        == len(scene.objects)
    )
    for thing in scene.objects:
        x1, y1, x2, y2 = thing.box
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1


def test_an_object_is_drawn_in_its_colour_where_its_box_says():
    rng = np.random.default_rng(3)
    for _ in range(20):
        scene = sample_scene(rng)
        pixels = np.asarray(scene.draw()).astype(int)
        assert pixels.shape == (SCENE_PIXELS, SCENE_PIXELS, 3)
        for thing in scene.objects:
            own = np.abs(pixels - COLOURS[thing.colour]).sum(-1) < 30
            x1, y1, x2, y2 = (round(value * SCENE_PIXELS) for value in thing.box)
            box = own[y1:y2, x1:x2]
            assert box.any(), thing
            # The drawing reaches the box's borders and does not leave it.
            assert 0.5 < np.ptp(np.nonzero(box)[1]) / (x2 - x1) <= 1
