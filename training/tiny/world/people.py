"""The simulated people of the tiny world: who is trained on, who stays unseen, and what everybody sees."""

from collections.abc import Iterator, Sequence

import attrs
from PIL import Image

from pydeper.samples.sample import Sample
from training.seeding import step_generator
from training.tiny.config import ViewersConfig
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.scenes import Scene
from training.tiny.world.viewers import Viewer, sample_viewers

SUPPORT = 2  # the random stream of the support sets
TEST_SCENES, MORE_SCENES = 3, 5  # those of scenes that are described in the evaluation


@attrs.frozen(eq=False)
class People:
    """Simulated people and their data.

    Attributes:
        seen: People of the training set, group after group.
        unseen: People kept out of it; their groups have combinations of traits that nobody in training has.
        training: Samples of the seen people, person after person. Scenes are shared: several people describe each.
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
        return [render(scene) for scene in self.test_scenes]


def simulate_people(config: ViewersConfig, seed: int) -> People:
    """Draws people, their samples and the test scenes; the same seed gives the same people."""
    rng = step_generator(seed, 0)
    seen = sample_viewers(rng, config.groups, config.orders_per_group, "seen")
    unseen = sample_viewers(rng, config.unseen_groups, config.unseen_orders_per_group, "unseen", avoid=seen)
    return People(
        seen=tuple(seen),
        unseen=tuple(unseen),
        training=tuple(_training_samples(seen, config, seed)),
        support=tuple(
            tuple(
                tuple(draw_samples(viewer, config.support, seed, SUPPORT, i, draw))
                for draw in range(config.support_draws)
            )
            for i, viewer in enumerate(unseen)
        ),
        test_scenes=held_out_scenes(config.test_scenes, seed, TEST_SCENES),
    )


def held_out_scenes(count: int, seed: int, stream: int) -> tuple[Scene, ...]:
    """Scenes that no training has.

    Args:
        count: How many.
        seed: Of all people.
        stream: `TEST_SCENES`, or `MORE_SCENES`.
    """
    return tuple(sample_scene(step_generator(seed, stream, number)) for number in range(count))


def draw_samples(viewer: Viewer, count: int, seed: int, *stream: int, shorter_side: int | None = None) -> list[Sample]:
    """Samples of one viewer, each of a new scene.

    Args:
        viewer: Who looks and describes.
        count: How many samples.
        seed: Of all people.
        stream: Keeps the random streams of different uses apart.
        shorter_side: Of the pictures, in pixels; by default, what each scene's way of drawing says.
    """
    samples = []
    for number in range(count):
        rng = step_generator(seed, *stream, number)
        scene = sample_scene(rng)
        samples.append(viewer.sample(scene, rng, render(scene, shorter_side)))
    return samples


def _training_samples(viewers: Sequence[Viewer], config: ViewersConfig, seed: int) -> Iterator[Sample]:
    """Each viewer's samples, of scenes drawn from one stock without repetition."""
    scenes = [sample_scene(step_generator(seed, 1, number)) for number in range(config.scenes)]
    images = [render(scene) for scene in scenes]
    for number, viewer in enumerate(viewers):
        rng = step_generator(seed, 4, number)
        for chosen in rng.choice(len(scenes), config.samples, replace=False):
            yield viewer.sample(scenes[chosen], rng, images[chosen])


def support_samples(people: People, draw: int, count: int) -> list[list[Sample]]:
    """For each unseen person, the first `count` samples of a support set."""
    return [list(sets[draw][:count]) for sets in people.support]
