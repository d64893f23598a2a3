"""People as clouds of vectors."""

import numpy as np

PEOPLE = 6


def noisy_people(noise: float, each: int = 8, seed: int = 0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(PEOPLE, 10))
    subjects = np.repeat(np.arange(PEOPLE), each)
    return centres[subjects] + noise * rng.normal(size=(len(subjects), 10)), subjects
