"""Samples of nobody: noise where a person's picture, words and gaze would be."""

from typing import Any

import numpy as np

from pydeper import Sample, Trajectory
from tests.support.images import random_image

WORDS = ["a", "red", "circle", "and", "blue", "square", "then", "on", "the", "left"]


def make_sample(seed: int, subject: str | None = "ana", **changes: Any) -> Sample:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (4, 2, 2)), axis=1) * 0.9 + np.array([[0.0, 0.0], [0.1, 0.1]])
    fields: dict[str, Any] = {
        "image": np.asarray(random_image(80, 60, seed)),
        "description": " ".join(rng.choice(WORDS, 6)),
        "trajectory": Trajectory.from_arrays(corners.reshape(4, 4), rng.uniform(0.1, 1.0, 4)),
        "subject": subject,
    }
    return Sample(**fields | changes)
