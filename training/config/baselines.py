"""The settings of the baselines that are trained."""

import attrs

from training.config.optimisation import OptimisationConfig
from training.config.validators import positive


@attrs.frozen(kw_only=True)
class PromptTuningConfig(OptimisationConfig):
    """The baseline that learns one soft token a person through the frozen VLM.

    Attributes:
        unseen_steps: Steps for unseen people, whose few support samples are learned from by themselves; `steps` are for
            the training samples of seen people.
    """

    unseen_steps: int = attrs.field(default=100, validator=positive)
