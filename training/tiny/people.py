"""The simulated people of the tiny world: who is trained on, who stays unseen, and what everybody sees."""

import attrs
from PIL import Image

from pydeper.samples.sample import Sample
from training.seeding import step_generator
from training.tiny.config import ViewersConfig
from training.tiny.scenes import Scene, sample_scene
from training.tiny.viewers import Viewer, sample_viewers


@attrs.frozen(eq=False)
class People:
    """Simulated people and their data.

    Attributes:
        seen: People of the training set, group after group.
        unseen: People kept out of it; their groups have combinations of traits that nobody in training has.
        training: Samples of the seen people, each of a scene of its own.
        support: For each unseen person, several sets of samples to make a persona from.
        test_scenes: Held-out scenes that everybody describes.
    """

    seen: tuple[Viewer, ...]
    unseen: tuple[Viewer, ...]
    training: tuple[Sample, ...]
    support: tuple[tuple[tuple[Sample, ...], ...], ...]
    test_scenes: tuple[Scene, ...]

    def test_images(self) -> list[Image.Image]:
        """The held-out scenes, drawn."""
        return [scene.draw() for scene in self.test_scenes]


def simulate_people(config: ViewersConfig, seed: int) -> People:
    """Draws people, their samples and the test scenes; the same seed gives the same people."""
    rng = step_generator(seed, 0)
    seen = sample_viewers(rng, config.groups, config.orders_per_group, "seen")
    unseen = sample_viewers(rng, config.unseen_groups, config.unseen_orders_per_group, "unseen", avoid=seen)
    return People(
        seen=tuple(seen),
        unseen=tuple(unseen),
        training=tuple(
            sample for i, viewer in enumerate(seen) for sample in draw_samples(viewer, config.samples, seed, 1, i)
        ),
        support=tuple(
            tuple(tuple(draw_samples(viewer, config.support, seed, 2, i, draw)) for draw in range(config.support_draws))
            for i, viewer in enumerate(unseen)
        ),
        test_scenes=tuple(sample_scene(step_generator(seed, 3, i)) for i in range(config.test_scenes)),
    )


def draw_samples(viewer: Viewer, count: int, seed: int, *stream: int) -> list[Sample]:
    """Samples of one viewer, each of a new scene; `stream` keeps the random streams of different uses apart."""
    rngs = [step_generator(seed, *stream, number) for number in range(count)]
    return [viewer.sample(sample_scene(rng), rng) for rng in rngs]


def support_samples(people: People, draw: int, count: int) -> list[list[Sample]]:
    """For each unseen person, the first `count` samples of a support set."""
    return [list(sets[draw][:count]) for sets in people.support]
