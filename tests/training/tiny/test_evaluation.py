"""The figures of descriptions, over people and over scenes."""

import numpy as np
import pytest

from training.tiny.evaluation import Descriptions, figures_of
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewers


def test_a_scene_that_everybody_gets_wrong_shows_in_the_intervals_over_scenes_alone():
    rng = np.random.default_rng(0)
    viewers = sample_viewers(rng, groups=2, orders_per_group=2, prefix="unseen")
    scenes = [sample_scene(rng) for _ in range(8)]
    references = [viewer.describe(scene) for viewer in viewers for scene in scenes]
    texts = ["Nothing." if row % 8 == 0 else reference for row, reference in enumerate(references)]
    descriptions = Descriptions(tuple(viewers), references, {"ceiling": texts})

    people, by_scene = (figures_of(found)["ceiling"] for found in (descriptions.statistics(), descriptions.by_scene()))
    assert people["OSS"].estimate == by_scene["OSS"].estimate == pytest.approx(7 / 8)
    assert people["OSS"].low == people["OSS"].high
    assert by_scene["OSS"].low < 0.8
    assert by_scene["OSS"].high > 0.9
    assert people.keys() - by_scene.keys() == {"CLS"}
