"""The settings of DEPER's two stages."""

import attrs

from training.config.optimisation import MAY_CHANGE, OptimisationConfig
from training.config.validators import ConfigError, fraction, known_figures, not_negative, positive

METEOR = "meteor"
CAPTION_METRICS = ("bleu1", "bleu4", "cider", "rouge_l", METEOR)


@attrs.frozen(kw_only=True)
class NoiseConfig:
    """Noise on training samples, drawn anew whenever one is shown, so that few of them are not learned by heart.

    Attributes:
        words: Chance of each of a description's tokens to be left out; the first stays.
        boxes: Standard deviation by which each fixation box moves, in widths and heights of the image.
        durations: Standard deviation of the logarithm of the factor that each duration is multiplied by.
    """

    words: float = attrs.field(default=0.0, validator=fraction)
    boxes: float = attrs.field(default=0.0, validator=not_negative)
    durations: float = attrs.field(default=0.0, validator=not_negative)


@attrs.frozen(kw_only=True)
class VirtualPeopleConfig:
    """Virtual people: a person's trajectories, all changed alike, are somebody else's, to be told apart by gaze alone.

    Attributes:
        weight: Of the supervised contrastive loss between their samples in a forward pass; 0: there are none.
        people: In a forward pass.
        samples: Of each.
        strength: How far they are from those whose trajectories are changed; 1: about as far as real people are apart.
    """

    weight: float = attrs.field(default=0.0, validator=not_negative)
    people: int = attrs.field(default=32, validator=positive)
    samples: int = attrs.field(default=8, validator=positive)
    strength: float = attrs.field(default=1.0, validator=positive)


@attrs.frozen(kw_only=True)
class Stage1Config(OptimisationConfig):
    """Stage 1: L = λ·L_con + L_traj + L_cls over the whole of DEPER.

    Attributes:
        trajectory_weight: Weight of L_traj (paper: 1).
        subject_weight: Weight of L_cls (paper: 1).
        every_view: Show each sample of a batch three times: whole, without its trajectory, and without its description,
            instead of dropping modalities at random.
        noise: Noise on the samples.
        virtual_people: People made of the training samples' trajectories, for gaze alone.
        selection: What an evaluation is worth: the weighted sum of these of its figures; the best step's weights are
            kept. Losses want negative weights.
    """

    trajectory_weight: float = attrs.field(default=1.0, validator=not_negative)
    subject_weight: float = attrs.field(default=1.0, validator=not_negative)
    every_view: bool = False
    noise: NoiseConfig = attrs.Factory(NoiseConfig)
    virtual_people: VirtualPeopleConfig = attrs.Factory(VirtualPeopleConfig)
    selection: dict[str, float] = attrs.field(
        factory=lambda: {"accuracy": 1.0},
        validator=known_figures("accuracy", "loss", "contrast", "trajectory", "subject"),
        metadata=MAY_CHANGE,
    )

    def __attrs_post_init__(self) -> None:
        if self.every_view and self.modality_dropout:
            raise ConfigError("every_view: shows what modality_dropout would drop; set modality_dropout = 0")


@attrs.frozen(kw_only=True)
class Stage2Config(OptimisationConfig):
    """Stage 2: L = L_des + λ·L_con + L_cls over the extractor, its subject head and the adapter.

    Attributes:
        adapter_learning_rate: Peak learning rate of the adapter; `learning_rate` is the extractor's.
        subject_weight: Weight of L_cls (paper: 1).
        bf16: Run the frozen VLM in bfloat16, on a device that is fast at it: a GPU, or a CPU with AVX-512. Elsewhere it
            runs in float32, which is faster there.
        style: The prompt's style: "description", or "caption" for short texts such as those of Kollenda and He.
        prefix_cache_gib: The most memory, in GiB, of prefixes (keys and values of image and prompt) that are kept from
            step to step; an image's are 8 MB with Qwen2-VL-2B.
        checkpointing: Compute the VLM's activations again in the backward pass instead of holding them.
        shard_vlm: Shard the layers of a VLM that fits no single device over all processes (FSDP2); each layer is
            gathered while it runs. Its image encoder and its tables stay whole in every process.
        caption_samples: In an evaluation, how many samples of "val" are described, greedily, and scored; 0: none.
        caption_tokens: The most tokens of such a description.
        selection: What an evaluation is worth: the weighted sum of these of its figures; the best step's weights are
            kept. The paper selects by a weighted sum of caption metrics, METEOR among them, which needs Java here;
            losses want negative weights.
    """

    adapter_learning_rate: float = attrs.field(default=5e-4, validator=positive)
    subject_weight: float = attrs.field(default=1.0, validator=not_negative)
    bf16: bool = True
    style: str = "description"
    prefix_cache_gib: float = attrs.field(default=1.0, validator=not_negative, metadata=MAY_CHANGE)
    checkpointing: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    shard_vlm: bool = attrs.field(default=False, metadata=MAY_CHANGE)
    caption_samples: int = attrs.field(default=64, validator=not_negative, metadata=MAY_CHANGE)
    caption_tokens: int = attrs.field(default=128, validator=positive, metadata=MAY_CHANGE)
    selection: dict[str, float] = attrs.field(
        factory=lambda: dict.fromkeys(("bleu4", "cider", "rouge_l"), 1.0),
        validator=known_figures(*CAPTION_METRICS, "accuracy", "loss", "contrast", "description", "subject"),
        metadata=MAY_CHANGE,
    )

    def __attrs_post_init__(self) -> None:
        captions = sorted(set(self.selection) & set(CAPTION_METRICS))
        if self.evaluate_every and captions and not self.caption_samples:
            raise ConfigError(
                f"selection: {', '.join(captions)} needs caption_samples > 0; or select by losses, "
                "as in selection = {description = -1.0}"
            )
        if self.shard_vlm and self.compile:
            raise ConfigError("shard_vlm: sharded layers are not compiled; set compile = false")
