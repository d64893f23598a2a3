"""How `identify` chooses a training by the training photographs alone."""

from typing import Any

import attrs

from training.config.validators import ConfigError, positive


def _factors(_: Any, attribute: "attrs.Attribute[Any]", value: tuple[float, ...]) -> None:
    if not all(factor > 0 for factor in value):
        raise ConfigError(f"{attribute.name}: every factor must be > 0, got {list(value)!r}")


@attrs.frozen(kw_only=True)
class IdentificationConfig:
    """What `identify` may choose by cross-validation over the photographs of the training split.

    Attributes:
        passes: Passes through the training samples of the shortest training that is tried. Its length is doubled for as
            long as the held-out photographs are identified better.
        most_passes: No training is longer than this many passes,
        most_steps: nor, unless it is the shortest, than this many steps.
        rate_factors: Multiples of `stage1.learning_rate` that are tried beside it, at the chosen length.
        regularisation_factors: Multiples of the configured regularisation that are tried beside it, at the chosen
            length and rate: of `network.dropout`, `stage1.weight_decay` and `stage1.noise` together.
        decisions: Folds are held out until so many samples are identified; few samples need all folds, many only one.
        most_fixations: Trajectories are read up to the longest of the training split, but no further than this.
        most_tokens: Descriptions likewise.
    """

    passes: int = attrs.field(default=6, validator=positive)
    most_passes: int = attrs.field(default=96, validator=positive)
    most_steps: int = attrs.field(default=1500, validator=positive)
    rate_factors: tuple[float, ...] = attrs.field(default=(0.5, 2.0), validator=_factors)
    regularisation_factors: tuple[float, ...] = attrs.field(default=(0.5,), validator=_factors)
    decisions: int = attrs.field(default=500, validator=positive)
    most_fixations: int = attrs.field(default=64, validator=positive)
    most_tokens: int = attrs.field(default=128, validator=positive)

    def __attrs_post_init__(self) -> None:
        if self.passes > self.most_passes:
            raise ConfigError(f"passes: {self.passes} is more than most_passes = {self.most_passes}")
