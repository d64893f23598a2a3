"""Settings of the tiny world and of everything that is trained in it."""

import attrs

from training.config import CSMNConfig, MITRConfig, PromptTuningConfig, Stage1Config, Stage2Config, positive
from training.config.validators import at_least, not_negative
from training.network.config import NetworkConfig


@attrs.frozen(kw_only=True)
class VLMSizes:
    """Sizes of the tiny Qwen2-VL.

    `image_side` is the side in pixels of the square that has as many pixels as any picture is scaled to, whatever its
    shape; `first_image_side` is the same while the first pre-trainings run, and `close_up_side` is the side of the
    small pictures at which the vision tower begins.
    """

    hidden_size: int = 256
    intermediate_size: int = 640
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    vision_width: int = 128
    vision_depth: int = 6
    vision_heads: int = 4
    patch_size: int = 12
    image_side: int = 216
    first_image_side: int = 168
    close_up_side: int = 96
    vocab_size: int = 700


@attrs.frozen(kw_only=True)
class ImageEncoderSizes:
    """Sizes of the tiny DINOv3 ConvNeXt; 192×192 pixels become a grid of 6×6 tokens."""

    hidden_sizes: tuple[int, int, int, int] = (24, 48, 96, 128)
    depths: tuple[int, int, int, int] = (1, 1, 2, 2)
    image_size: int = 192


@attrs.frozen(kw_only=True)
class Pretraining:
    """What the pre-trainings have in common.

    Attributes:
        steps: Steps in all.
        batch_size: Scenes or descriptions in a step.
        learning_rate: Peak rate of AdamW.
        muon_learning_rate: Peak rate of Muon, which trains the matrices of hidden layers.
        heads_warmup: So many steps, the first ones, in which gradients stop at the heads that read what is learned.
            These heads are new in every pre-training, and their first gradients would undo what an earlier one has
            taught (cf. Kumar et al. 2022, "Fine-tuning can distort pretrained features").
        bfloat16: Whether matrices are multiplied in bfloat16 on a processor with AVX-512, which is faster where it has
            AVX-512 BF16 or AMX as well. On others they are multiplied in float32.
    """

    steps: int = attrs.field(validator=positive)
    batch_size: int = attrs.field(default=32, validator=positive)
    learning_rate: float = attrs.field(default=2e-3, validator=positive)
    muon_learning_rate: float = attrs.field(default=6e-3, validator=not_negative)
    heads_warmup: int = attrs.field(default=0, validator=not_negative)
    bfloat16: bool = False


@attrs.frozen(kw_only=True)
class VisionPretraining(Pretraining):
    """The pre-training of an image encoder on scenes that are drawn for every step.

    Attributes:
        close_ups: So many steps, the first ones, and then every fourth one look at small pictures of one or two
            objects. These cost less, so a batch has four times as many of them. 0: no step does.
    """

    close_ups: int = attrs.field(default=0, validator=not_negative)


@attrs.frozen(kw_only=True)
class LanguagePretraining(Pretraining):
    """The pre-training of the language side.

    Attributes:
        scenes: Drawn scenes.
        batch_size: Descriptions in a step.
    """

    scenes: int = attrs.field(validator=positive)
    batch_size: int = attrs.field(default=64, validator=positive)


@attrs.frozen(kw_only=True)
class SketchPretraining(Pretraining):
    """The training of the vision tower on sketched scenes, which are drawn for every step.

    Attributes:
        batch_size: Scenes in a step; half of them are sketched.
        learning_rate: Peak rate of AdamW.
        muon_learning_rate: Peak rate of Muon; 0: AdamW trains everything.
    """

    batch_size: int = attrs.field(default=24, validator=at_least(2))
    learning_rate: float = attrs.field(default=5e-4, validator=positive)
    muon_learning_rate: float = attrs.field(default=0.0, validator=not_negative)


@attrs.frozen(kw_only=True)
class ViewersConfig:
    """The simulated people.

    Attributes:
        groups: Groups of people for training; people of a group differ in their scanning order alone.
        orders_per_group: People in such a group.
        samples: Samples of each.
        scenes: Scenes that people in training look at; each looks at a choice of its own.
        unseen_groups: Groups of people kept out of training.
        unseen_orders_per_group: People in each of those.
        support: Samples from which a persona is made.
        support_draws: Independent support sets of each unseen person.
        test_scenes: Held-out scenes that everybody describes in the evaluation.
    """

    groups: int = 150
    orders_per_group: int = 8
    samples: int = 8
    scenes: int = 4000
    unseen_groups: int = 6
    unseen_orders_per_group: int = 8
    support: int = 5
    support_draws: int = 3
    test_scenes: int = 16


@attrs.frozen(kw_only=True)
class TinyConfig:
    """All settings of `python -m training tiny`, and those of the baselines that are trained, for the table.

    `drawings` is how many drawings by other programs the evaluation describes, how many as hands make them, how many
    pairs of changed ones, and how many scenes in the table whose intervals are over scenes: at least 20, because hands
    draw in ten styles, and an interval takes two of each.
    """

    seed: int = 0
    drawings: int = attrs.field(default=200, validator=at_least(20))
    vlm: VLMSizes
    image_encoder: ImageEncoderSizes
    vision: VisionPretraining
    language: LanguagePretraining
    larger_vision: VisionPretraining
    sketches: SketchPretraining
    larger_language: LanguagePretraining
    encoder: VisionPretraining
    viewers: ViewersConfig
    network: NetworkConfig
    stage1: Stage1Config
    stage2: Stage2Config
    prompt_tuning: PromptTuningConfig
    csmn: CSMNConfig = attrs.Factory(CSMNConfig)
    mitr: MITRConfig = attrs.Factory(MITRConfig)
