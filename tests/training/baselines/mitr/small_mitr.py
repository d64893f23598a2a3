"""A small MITR, and people who describe drawn images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pydeper import Fixation, Sample, Trajectory
from tests.support.images import random_image
from training.baselines.captioner import CaptionerInputs
from training.baselines.mitr.network import MITR
from training.baselines.targets import Person, Target
from training.config import MITRConfig
from training.data.feature_cache import MemoryStore
from training.data.image_features import ImageFeatures
from training.data.images import Images
from training.evaluation.predictions import Prediction
from training.preparation.splits import QUERY, SUPPORT, TEST, TRAIN, VAL

GRID, CHANNELS, VOCABULARY = 2, 3, 11

SMALL = MITRConfig(
    steps=4,
    batch_size=4,
    evaluate_every=2,
    log_every=1,
    hidden_size=16,
    feedforward_size=16,
    num_heads=2,
    num_layers=2,
    max_words=12,
    min_count=1,
    fine_tuning_epochs=2,
    unseen_steps=2,
)

WORDS = {
    "ana": ("a red star on the left.", "a blue star. then nothing."),
    "ben": ("we see a star", "we see a dark square, and a star!"),
    "cem": ("star?", "square, star"),
}


def small_network(seed: int = 0, config: MITRConfig = SMALL) -> MITR:
    torch.manual_seed(seed)
    return MITR(config, VOCABULARY, CHANNELS).eval()


def load_features(images: Images) -> ImageFeatures:
    """The colours of a 2 × 2 grid in the place of a frozen image encoder's tokens."""

    def encode(pictures: Sequence[Image.Image]) -> list[Tensor]:
        small = [np.asarray(picture.resize((GRID, GRID)), dtype=np.float32) / 255 for picture in pictures]
        return [torch.from_numpy(pixels.reshape(GRID * GRID, CHANNELS)) for pixels in small]

    return ImageFeatures(images, encode, MemoryStore())


def people_inputs(folder: Path, config: MITRConfig = SMALL, runs: str = "run") -> CaptionerInputs:
    """Ana and Ben are seen, Cem is not; Ben has no samples of "val"."""
    images = folder / "images"
    if not images.exists():
        images.mkdir(parents=True)
        for number in range(6):
            random_image(20, 20, number).save(images / f"{number}.png")

    def samples(name: str, split: str, numbers: Sequence[int]) -> tuple[Sample, ...]:
        look = Trajectory([Fixation((0.1, 0.1, 0.4, 0.5), 0.4), Fixation((0.5, 0.2, 0.9, 0.6), 0.2)])
        return tuple(
            Sample(images / f"{number}.png", WORDS[name][number % 2], look, subject=name, split=split)
            for number in numbers
        )

    def person(name: str, known: str, target: str) -> Person:
        targets = tuple(
            Target(sample, Prediction("drawn", "", f"{number}.png", name, "", str(sample.description)))
            for number, sample in zip((4, 5), samples(name, target, (4, 5)), strict=True)
        )
        return Person(name, samples(name, known, (0, 1, 2)), targets, seen=known == TRAIN)

    people = (person("ana", TRAIN, TEST), person("ben", TRAIN, TEST), person("cem", SUPPORT, QUERY))
    return CaptionerInputs(
        people=people,
        training=[sample for one in people if one.seen for sample in one.known],
        validation=samples("ana", VAL, (3,)),
        load_image_features=load_features,
        folder=folder / runs,
        mitr=config,
    )
