"""The learning-rate schedule of every training."""

import math

from training.config import OptimisationConfig


def learning_rate_factor(step: int, config: OptimisationConfig) -> float:
    """Learning rate of a step as a fraction of the peak: linear warm-up, then a cosine down to `final_rate`."""
    warmup_steps = max(1, round(config.warmup * config.steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, config.steps - warmup_steps)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
