"""How long, how fast and how strongly regularised stage 1 is trained: a small search, decided by held-out samples."""

import math
from collections.abc import Callable

import attrs

from training.config import IdentificationConfig, TrainingConfig


@attrs.frozen
class Schedule:
    """A training, as far as the search decides on it.

    Attributes:
        passes: Passes through the training samples.
        rate: Multiple of the configured learning rate.
        regularisation: Multiple of the configured dropout, weight decay and noise.
    """

    passes: int
    rate: float = 1.0
    regularisation: float = 1.0

    def steps(self, config: TrainingConfig, samples: int) -> int:
        """Optimiser steps in so many passes through so many samples."""
        stage = config.stage1
        return math.ceil(self.passes * samples / (stage.batch_size * stage.accumulation))

    def applied(self, config: TrainingConfig, samples: int) -> TrainingConfig:
        """The configuration of this training on so many samples."""
        network, stage, factor = config.network, config.stage1, self.regularisation
        noise = attrs.evolve(
            stage.noise,
            words=min(factor * stage.noise.words, _HIGHEST_CHANCE),
            boxes=factor * stage.noise.boxes,
            durations=factor * stage.noise.durations,
        )
        stage = attrs.evolve(
            stage,
            steps=self.steps(config, samples),
            learning_rate=self.rate * stage.learning_rate,
            weight_decay=factor * stage.weight_decay,
            noise=noise,
        )
        network = attrs.evolve(network, dropout=min(factor * network.dropout, _HIGHEST_CHANCE))
        return attrs.evolve(config, network=network, stage1=stage)

    @property
    def slug(self) -> str:
        """The training as the name of a folder."""
        return f"{self.passes}-passes-rate-{self.rate:g}-regularisation-{self.regularisation:g}"

    def __str__(self) -> str:
        return f"{self.passes} passes, rate × {self.rate:g}, regularisation × {self.regularisation:g}"


_HIGHEST_CHANCE = 0.9


@attrs.frozen
class Trial:
    """A training that was tried, and how well held-out samples were identified.

    Attributes:
        schedule: What was tried.
        log_likelihood: Mean logarithm of the probability given to the right person; higher is better.
    """

    schedule: Schedule
    log_likelihood: float


def search(
    evaluate: Callable[[Schedule], float], limits: IdentificationConfig, steps: Callable[[Schedule], int]
) -> list[Trial]:
    """Tries lengths, then learning rates at the best length, then regularisation at the best of both.

    The length is doubled for as long as that is better, which is early stopping at whole schedules: each training that
    is tried has gone through its warm-up and decay.

    Args:
        evaluate: Trains, and returns the log-likelihood of held-out samples; see `Trial`.
        limits: What is tried.
        steps: How many optimiser steps a training takes, for `limits.most_steps`.

    Returns:
        All trials, in their order. The best of them, the first among equals, is the choice.
    """
    trials: list[Trial] = []

    def best() -> Trial:
        return max(trials, key=lambda trial: trial.log_likelihood)

    def attempt(schedule: Schedule) -> bool:
        """Whether this is better than all before."""
        trials.append(Trial(schedule, evaluate(schedule)))
        return best() is trials[-1]

    longer = Schedule(limits.passes)
    while attempt(longer):
        longer = attrs.evolve(longer, passes=2 * longer.passes)
        if longer.passes > limits.most_passes or steps(longer) > limits.most_steps:
            break
    for factor in limits.rate_factors:
        attempt(attrs.evolve(best().schedule, rate=factor))
    for factor in limits.regularisation_factors:
        attempt(attrs.evolve(best().schedule, regularisation=factor))
    return trials
