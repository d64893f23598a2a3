"""The settings of the baselines that are trained."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import attrs

from training.config.optimisation import MAY_CHANGE, OptimisationConfig
from training.config.validators import ConfigError, fraction, not_negative, positive


@attrs.frozen(kw_only=True)
class LoRAConfig:
    """LoRA layers on the query and value projections of the VLM (Hu et al., ICLR 2022), for all people together.

    Attributes:
        rank: r, of the update W + α/r · B·A of each projection (released code: 8).
        alpha: α (released code: 16).
        learning_rate: Peak learning rate of A and B.
        checkpointing: Keep no activations but the layers' inputs, and compute them again in the backward pass, which
            goes through the whole prompt, image included: less memory, and about a third more time.
    """

    rank: int = attrs.field(default=8, validator=positive)
    alpha: float = attrs.field(default=16.0, validator=positive)
    learning_rate: float = attrs.field(default=2e-4, validator=positive)
    checkpointing: bool = attrs.field(default=True, metadata=MAY_CHANGE)


@attrs.frozen(kw_only=True)
class PromptTuningConfig(OptimisationConfig):
    """The baselines that learn one soft token a person: through the frozen VLM, and together with LoRA layers.

    Attributes:
        unseen_steps: Steps for unseen people, whose few support samples are learned from by themselves; `steps` are for
            the training samples of seen people.
        lora: The LoRA layers of the second baseline.
    """

    unseen_steps: int = attrs.field(default=100, validator=positive)
    # Of the second baseline alone: what the first has trained or written stays valid with other settings here.
    lora: LoRAConfig = attrs.field(factory=LoRAConfig, metadata=MAY_CHANGE)


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
        user_words: The most words that a person is known by, at least 5.
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


@attrs.frozen(kw_only=True)
class MITRConfig(OptimisationConfig):
    """The baseline MITR (Meng et al., CVPR 2021) and its fine-tuning per person; sizes and chances are its authors'.

    How MITR was fine-tuned per person for the paper's table is not published: those settings are ours.

    Attributes:
        steps: Optimiser steps of the base; the default is 30 epochs of some 19,000 texts, those of Flickr30k Localized
            Narratives.
        batch_size: Samples in one micro-batch.
        weight_decay: Of AdamW; the authors have none.
        evaluate_every: Steps between evaluations of the base on the split "val", whose loss chooses the step that is
            kept; 0, or no samples in that split: the last step is.
        hidden_size: d.
        feedforward_size: Width of the feed-forwards.
        num_heads: Attention heads.
        num_layers: Layers of the image encoder and of each branch (2 for COCO).
        dropout: Of attention, feed-forwards and words.
        input_dropout: Of image tokens and boxes where they enter.
        max_words: Longer texts are cut in training, and no longer one is written.
        min_count: Words that the training texts have less often are unknown.
        masked_boxes: Chance of each earlier box to be hidden in training.
        fine_tuning_rate: Learning rate of fine-tuning, constant.
        fine_tuning_epochs: Epochs of a seen person's training samples; the best by the loss on their own samples of
            "val" is kept.
        epochs_without_val: Epochs where there are no such samples; the last is kept.
        unseen_steps: Steps on an unseen person's support samples.
        base: Folder of a base that another run has trained, or is to train, such as "runs/flickr30k-ln/MITR/base";
            None: each run trains its own.
    """

    steps: int = attrs.field(default=19_000, validator=positive)
    batch_size: int = attrs.field(default=30, validator=positive)
    weight_decay: float = attrs.field(default=0.0, validator=not_negative)
    evaluate_every: int = attrs.field(default=630, validator=not_negative, metadata=MAY_CHANGE)
    hidden_size: int = attrs.field(default=512, validator=positive)
    feedforward_size: int = attrs.field(default=512, validator=positive)
    num_heads: int = attrs.field(default=8, validator=positive)
    num_layers: int = attrs.field(default=1, validator=positive)
    dropout: float = attrs.field(default=0.1, validator=fraction)
    input_dropout: float = attrs.field(default=0.5, validator=fraction)
    max_words: int = attrs.field(default=225, validator=positive)
    min_count: int = attrs.field(default=6, validator=positive)
    masked_boxes: float = attrs.field(default=0.5, validator=fraction)
    fine_tuning_rate: float = attrs.field(default=5e-5, validator=positive)
    fine_tuning_epochs: int = attrs.field(default=10, validator=positive)
    epochs_without_val: int = attrs.field(default=3, validator=positive)
    unseen_steps: int = attrs.field(default=50, validator=positive)
    base: str | None = attrs.field(default=None, metadata=MAY_CHANGE)
    selection: ClassVar[Mapping[str, float]] = MappingProxyType({"loss": -1.0})

    def __attrs_post_init__(self) -> None:
        if self.hidden_size % 2 or self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size: {self.hidden_size} must be even, and a multiple of num_heads = {self.num_heads}"
            )
