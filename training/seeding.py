"""Random numbers that are a function of the seed and the place alone, never of what was drawn before."""

import numpy as np


def step_generator(seed: int, *where: int) -> np.random.Generator:
    """Returns a generator for one place in a training.

    Args:
        seed: Seed of the training.
        where: The place: stage, step, micro-batch, sample, ...; equal places get equal generators.
    """
    return np.random.default_rng([seed, *where])
