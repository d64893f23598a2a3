"""The tiny world: scenes, viewers, and what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.tiny import simulated
from training.tiny.simulated import (
    COUNTS,
    DWELLS,
    ORDERS,
    TRAITS,
    Viewer,
    mentioned_shapes,
    sample_scene,
    sample_viewers,
)

seeds = st.integers(0, 2**32 - 1)


def viewer_and_scene(seed: int) -> tuple[Viewer, simulated.Scene, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return simulated.sample_viewer(rng, "someone"), sample_scene(rng), rng


@given(seeds)
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
        assert pixels.shape == (simulated.SCENE_PIXELS, simulated.SCENE_PIXELS, 3)
        for thing in scene.objects:
            own = np.abs(pixels - simulated.COLOURS[thing.colour]).sum(-1) < 30
            x1, y1, x2, y2 = (round(value * simulated.SCENE_PIXELS) for value in thing.box)
            box = own[y1:y2, x1:x2]
            assert box.any(), thing
            # The drawing reaches the box's borders and does not leave it.
            assert 0.5 < np.ptp(np.nonzero(box)[1]) / (x2 - x1) <= 1


@given(seeds)
def test_a_description_names_the_visited_objects_in_the_visited_order(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    assert mentioned_shapes(viewer.describe(scene)) == [thing.shape for thing in viewer.visit(scene)]


@given(seeds)
def test_viewers_visit_as_many_objects_as_they_care_for_in_their_order(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    visited = viewer.visit(scene)
    assert len(visited) == min(COUNTS[viewer.count], len(scene.objects))
    keys = [ORDERS[viewer.order](thing) for thing in visited]
    assert keys == sorted(keys)
    assert all(key >= keys[-1] for key in map(ORDERS[viewer.order], set(scene.objects) - set(visited)))


@given(seeds)
def test_the_longer_somebody_looks_the_more_they_say(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    words = [
        len(Viewer(**{**{t: getattr(viewer, t) for t in ("name", *TRAITS)}, "dwell": dwell}).describe(scene).split())
        for dwell in DWELLS
    ]
    assert words[0] < words[1] < words[2]


def test_dwell_and_order_show_in_the_trajectory():
    rng = np.random.default_rng(0)
    medians = {}
    for dwell in DWELLS:
        viewer = Viewer("a", "rightward", "everything", dwell, "guide", "lister", "common")
        trajectories = [viewer.look(sample_scene(rng), rng) for _ in range(200)]
        medians[dwell] = np.median(np.concatenate([trajectory.durations for trajectory in trajectories]))
        steps = np.concatenate([np.diff(trajectory.boxes[:, [0, 2]].mean(1)) for trajectory in trajectories])
        assert (steps > -0.1).mean() > 0.8, "a rightward viewer moves to the right"
    assert medians["glance"] < medians["look"] < medians["study"]


def test_groups_of_viewers_differ_in_order_alone_and_unseen_groups_are_new():
    rng = np.random.default_rng(1)
    seen = sample_viewers(rng, 10, 4, "seen")
    unseen = sample_viewers(rng, 5, 6, "unseen", avoid=seen)
    assert len({viewer.name for viewer in seen + unseen}) == 70
    for viewers, size in ((seen, 4), (unseen, 6)):
        for start in range(0, len(viewers), size):
            group = viewers[start : start + size]
            assert len({viewer.order for viewer in group}) == size
            assert len({viewer.words()[1:] for viewer in group}) == 1
    assert not {viewer.words()[1:] for viewer in seen} & {viewer.words()[1:] for viewer in unseen}


def test_more_viewers_than_orders_cannot_differ_in_order():
    with pytest.raises(ValueError, match="orders"):
        sample_viewers(np.random.default_rng(0), 1, len(ORDERS) + 1, "x")
