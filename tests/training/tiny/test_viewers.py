"""The tiny world's viewers: how they look at scenes, and what they say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.tiny.world.sampling import Layout, sample_scene
from training.tiny.world.scenes import ORDERS, Scene
from training.tiny.world.viewers import (
    COUNTS,
    DWELLS,
    NOTHING,
    TRAITS,
    Viewer,
    mentioned_objects,
    mentioned_shapes,
    said_words,
    sample_viewer,
    sample_viewers,
)

seeds = st.integers(0, 2**32 - 1)


def viewer_and_scene(seed: int) -> tuple[Viewer, Scene, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return sample_viewer(rng, "someone"), sample_scene(rng), rng


@settings(max_examples=40)
@given(seeds)
def test_a_description_names_the_visited_objects_in_the_visited_order(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    assert mentioned_shapes(viewer.describe(scene)) == [thing.shape for thing in viewer.visit(scene)]


@settings(max_examples=40)
@given(seeds)
def test_viewers_visit_as_many_objects_as_they_care_for_in_their_order(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    visited = viewer.visit(scene)
    assert len(visited) == min(COUNTS[viewer.count], len(scene.objects))
    keys = [ORDERS[viewer.order](thing) for thing in visited]
    assert keys == sorted(keys)
    assert all(key >= keys[-1] for key in map(ORDERS[viewer.order], set(scene.objects) - set(visited)))


@settings(max_examples=40)
@given(seeds)
def test_the_longer_somebody_looks_the_more_they_say(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    words = [
        len(Viewer(**{**{t: getattr(viewer, t) for t in ("name", *TRAITS)}, "dwell": dwell}).describe(scene).split())
        for dwell in DWELLS
    ]
    assert words[0] < words[1] <= words[2]


@settings(max_examples=40)
@given(seeds)
def test_colours_are_named_by_all_who_do_more_than_glance(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    named = [(None if viewer.dwell == "glance" else thing.colour, thing.shape) for thing in viewer.visit(scene)]
    assert mentioned_objects(viewer.describe(scene)) == named


def test_nothing_and_more_than_can_be_named_are_said():
    rng = np.random.default_rng(0)
    viewer = Viewer("a", "downward", "everything", "study", "guide", "lister", "technical")
    assert viewer.describe(sample_scene(rng, Layout((0, 0)))) == NOTHING
    crowd = sample_scene(rng, Layout((8, 8)))
    assert viewer.describe(crowd).endswith(" and more.")
    assert len(mentioned_objects(viewer.describe(crowd))) == 6


@settings(max_examples=40)
@given(seeds)
def test_all_that_is_said_is_made_of_the_words_that_a_tokenizer_learns(seed):
    viewer, scene, _ = viewer_and_scene(seed)
    known = {word.strip(" .,") for text in said_words() for word in text.split()}
    assert {word.strip(".,") for word in viewer.describe(scene).split()} <= known


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
