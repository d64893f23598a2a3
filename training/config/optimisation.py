"""The settings of any training, of DEPER's stages and of baselines."""

import attrs

from training.config.validators import below_half, fraction, not_negative, positive

# Settings that do not shape the loss curve: a run may resume with others.
MAY_CHANGE = {"may_change": True}


@attrs.frozen(kw_only=True)
class OptimisationConfig:
    """What all trainings have in common: AdamW or Muon, warm-up and cosine decay, accumulation, logs, checkpoints.

    Attributes:
        steps: Optimiser steps.
        batch_size: Samples in one micro-batch: one forward pass of one process.
        accumulation: Micro-batches in one optimiser step of one process.
        learning_rate: Peak learning rate of AdamW (paper: 5e-4).
        muon_learning_rate: Peak learning rate of Muon, which then trains the matrices of linear and attention layers;
            0: AdamW trains everything (paper).
        weight_decay: Of AdamW and Muon.
        warmup: Fraction of the steps in which the learning rate climbs to its peak; a cosine then takes it down to
            `final_rate`.
        final_rate: Learning rate of the last step, as a fraction of the peak.
        clip: Largest gradient norm (paper: 1.0).
        contrastive_weight: λ of the losses (paper: 0.1).
        temperature: Of the contrastive loss (paper: 0.07).
        bank_size: Vectors in the contrastive memory bank's queue (paper: 4096).
        modality_dropout: Chance, below 0.5, that a training sample loses its trajectory, and the same chance that it
            loses its description; never both. It makes a persona from text alone or gaze alone useful.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: How many of the newest checkpoints stay; the best one stays beside them.
        log_every: Steps between lines of the JSONL log.
        evaluate_every: Steps between evaluations on the split "val", and one after the last step; 0: none.
        tensorboard: Also log for TensorBoard, into the stage's folder.
        bucket: So many consecutive batches sort their samples by length among themselves, so that little is padding;
            1: none do.
        compile: Run what is computed in every step through `torch.compile`: minutes at first, faster after.
        workers: Processes beside each training process that make the batches of both stages ahead; they read
            `feature_cache`. 0: each batch is made when its step needs it.
        prefetch: Batches that each worker makes ahead.
    """

    steps: int = attrs.field(validator=positive)
    batch_size: int = attrs.field(default=64, validator=positive)
    accumulation: int = attrs.field(default=1, validator=positive)
    learning_rate: float = attrs.field(default=5e-4, validator=positive)
    muon_learning_rate: float = attrs.field(default=0.0, validator=not_negative)
    weight_decay: float = attrs.field(default=0.01, validator=not_negative)
    warmup: float = attrs.field(default=0.05, validator=fraction)
    final_rate: float = attrs.field(default=0.05, validator=not_negative)
    clip: float = attrs.field(default=1.0, validator=positive)
    contrastive_weight: float = attrs.field(default=0.1, validator=not_negative)
    temperature: float = attrs.field(default=0.07, validator=positive)
    bank_size: int = attrs.field(default=4096, validator=positive)
    modality_dropout: float = attrs.field(default=0.0, validator=below_half)
    checkpoint_every: int = attrs.field(default=100, validator=positive, metadata=MAY_CHANGE)
    keep_checkpoints: int = attrs.field(default=1, validator=positive, metadata=MAY_CHANGE)
    log_every: int = attrs.field(default=10, validator=positive, metadata=MAY_CHANGE)
    evaluate_every: int = attrs.field(default=0, validator=not_negative, metadata=MAY_CHANGE)
    tensorboard: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    bucket: int = attrs.field(default=1, validator=positive)
    compile: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    workers: int = attrs.field(default=0, validator=not_negative, metadata=MAY_CHANGE)
    prefetch: int = attrs.field(default=2, validator=positive, metadata=MAY_CHANGE)
