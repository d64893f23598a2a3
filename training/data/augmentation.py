"""More than was recorded: noise on training samples, and virtual people, who look as others do, but changed.

Small data sets are learned by heart, and gaze more than text: the few people of a gaze data set leave the network every
freedom in how to tell them apart. Speaker recognition makes new speakers by changing the speed of recordings; likewise,
one person's trajectories, all slowed down or shifted alike, are those of somebody who was never recorded.
"""

from collections.abc import Callable
from typing import NamedTuple

import attrs
import numpy as np

from pydeper.persona.preprocess import EncodedSample
from training.config import NoiseConfig
from training.seeding import step_generator

Change = Callable[[int, EncodedSample], EncodedSample]
"""What becomes of the sample at a place of a batch."""


def noise(config: NoiseConfig, seed: int, number: int, first: int = 0) -> Change:
    """Random changes of the samples of a forward pass: words left out, boxes moved, durations stretched.

    Args:
        config: How much of each.
        seed: Seed of the training.
        number: Running number of the micro-batch.
        first: The batch's first place in that of all ranks.
    """

    def change(place: int, sample: EncodedSample) -> EncodedSample:
        rng = step_generator(seed, number, 4, first + place)
        kept = rng.random(len(sample.input_ids)) >= config.words
        kept[:1] = True  # without words it would be another view of the sample
        shifts = rng.normal(scale=config.boxes, size=(len(sample.boxes), 2))
        factors = np.exp(rng.normal(scale=config.durations, size=len(sample.durations)))
        return attrs.evolve(
            sample,
            input_ids=sample.input_ids[kept],
            boxes=_in_image(sample.boxes + np.tile(shifts, 2)),
            durations=(sample.durations * factors).astype(np.float32),
        )

    return change


class VirtualPerson(NamedTuple):
    """How somebody who was never recorded looks, beside the person whose trajectories are changed.

    Attributes:
        pace: Factor of all durations.
        first: Factor of the first fixation's duration, beside `pace`.
        patience: Fraction of the time looked, at most 1, after which no fixation begins any more.
        reach: (2,) factors of the distances of box centres from the image's centre, along x and y.
        shift: (2,) by which boxes then move, in widths and heights of the image.
    """

    pace: float
    first: float
    patience: float
    reach: np.ndarray
    shift: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float) -> "VirtualPerson":
        """Draws somebody; at strength 0 nothing is changed.

        The spreads at strength 1 are of the order of those between real people, or somewhat above: factors of e^±0.3
        for durations and e^±0.25 for distances, shifts of ±6 % of the image.
        """
        pace, first, patience = np.exp(strength * 0.3 * rng.normal(size=3))
        reach = np.exp(strength * 0.25 * rng.normal(size=2))
        return cls(pace, first, min(patience, 1.0), reach, strength * 0.06 * rng.normal(size=2))

    def looks(self, sample: EncodedSample) -> EncodedSample:
        """The sample's trajectory as this person's; a sample without one stays as it is."""
        if not len(sample.durations):
            return sample
        durations = self.pace * sample.durations.astype(np.float64)
        durations[0] *= self.first
        begins = np.cumsum(durations) - durations
        kept = begins < self.patience * sample.durations.sum()  # the first begins at 0
        boxes = sample.boxes[kept]
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        moved = 0.5 + (centres - 0.5) * self.reach + self.shift - centres
        return attrs.evolve(
            sample, boxes=_in_image(boxes + np.tile(moved, 2)), durations=durations[kept].astype(np.float32)
        )


@attrs.frozen(eq=False)
class VirtualPeople:
    """The virtual people of a forward pass.

    Attributes:
        rows: (people · samples,) the samples that theirs are made of.
        people: (people · samples,) whose each is, 0 … people - 1.
        change: Makes theirs of them.
    """

    rows: np.ndarray
    people: np.ndarray
    change: Change

    @classmethod
    def draw(
        cls, rows_of: list[np.ndarray], people: int, samples: int, strength: float, rng: np.random.Generator
    ) -> "VirtualPeople":
        """Draws them.

        Args:
            rows_of: For each real person who has any: the samples with a trajectory.
            people: How many; several may be made of one person.
            samples: Samples of each; repeated where the real person has fewer.
            strength: See `VirtualPerson.draw`.
            rng: What is drawn from.
        """
        sources = [rows_of[int(source)] for source in rng.integers(len(rows_of), size=people)]
        rows = np.concatenate([rng.choice(own, samples, replace=len(own) < samples) for own in sources])
        who = np.repeat(np.arange(people), samples)
        drawn = [VirtualPerson.draw(rng, strength) for _ in range(people)]
        return cls(rows, who, lambda place, sample: drawn[who[place]].looks(sample))


def _in_image(boxes: np.ndarray) -> np.ndarray:
    return boxes.clip(0, 1).astype(np.float32)
