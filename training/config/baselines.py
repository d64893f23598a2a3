"""The settings of the baselines that are trained."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import attrs

from training.config.optimisation import MAY_CHANGE, OptimisationConfig
from training.config.validators import not_negative, positive


@attrs.frozen(kw_only=True)
class PromptTuningConfig(OptimisationConfig):
    """The baseline that learns one soft token a person through the frozen VLM.

    Attributes:
        unseen_steps: Steps for unseen people, whose few support samples are learned from by themselves; `steps` are for
            the training samples of seen people.
    """

    unseen_steps: int = attrs.field(default=100, validator=positive)


@attrs.frozen(kw_only=True)
class CSMNConfig(OptimisationConfig):
    """The baseline CSMN (Park et al., CVPR 2017), one network for everybody; the sizes are its authors'.

    Attributes:
        steps: Optimiser steps; the default is 30 epochs of some 19,000 texts, those of Flickr30k Localized Narratives.
        batch_size: Samples in one micro-batch.
        learning_rate: Peak learning rate.
        weight_decay: Of AdamW; the authors have none.
        evaluate_every: Steps between evaluations on the split "val", whose loss chooses the step that is kept; 0, or no
            samples in that split: the last step is.
        word_size: Size of word vectors.
        memory_size: Size of the memory's slots.
        channels: Of each of the three convolutions that read the slots of a person's words, and of each of the three
            that read those of the words written so far.
        user_words: The most words that a person is known by.
        vocabulary_size: The most words that can be written, four special ones included.
        max_words: The most words of a text, with its end: longer ones are cut in training, and none is written; the
            authors' is 16. 0: as many as 95 of 100 training texts have at most.
    """

    steps: int = attrs.field(default=4500, validator=positive)
    batch_size: int = attrs.field(default=128, validator=positive)
    learning_rate: float = attrs.field(default=1e-3, validator=positive)
    weight_decay: float = attrs.field(default=0.0, validator=not_negative)
    evaluate_every: int = attrs.field(default=150, validator=not_negative, metadata=MAY_CHANGE)
    word_size: int = attrs.field(default=512, validator=positive)
    memory_size: int = attrs.field(default=1024, validator=positive)
    channels: int = attrs.field(default=300, validator=positive)
    user_words: int = attrs.field(default=60, validator=positive)
    vocabulary_size: int = attrs.field(default=40_000, validator=positive)
    max_words: int = attrs.field(default=0, validator=not_negative)
    selection: ClassVar[Mapping[str, float]] = MappingProxyType({"loss": -1.0})
