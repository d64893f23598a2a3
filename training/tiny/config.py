"""Settings of the tiny world and of everything that is trained in it."""

import attrs

from training.config import CSMNConfig, MITRConfig, PromptTuningConfig, Stage1Config, Stage2Config, positive
from training.network.config import NetworkConfig


@attrs.frozen(kw_only=True)
class VLMSizes:
    """Sizes of the tiny Qwen2-VL."""

    hidden_size: int = 256
    intermediate_size: int = 640
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    vision_width: int = 128
    vision_depth: int = 3
    vision_heads: int = 4
    image_size: int = 84
    vocab_size: int = 700


@attrs.frozen(kw_only=True)
class ImageEncoderSizes:
    """Sizes of the tiny DINOv3 ConvNeXt; 96×96 pixels become a grid of 3×3 tokens, one a cell."""

    hidden_sizes: tuple[int, int, int, int] = (24, 48, 96, 128)
    depths: tuple[int, int, int, int] = (1, 1, 2, 1)
    image_size: int = 96


@attrs.frozen(kw_only=True)
class PretrainingConfig:
    """One pre-training: how many drawn scenes, steps, scenes in a step, peak learning rate."""

    scenes: int = attrs.field(validator=positive)
    steps: int = attrs.field(validator=positive)
    batch_size: int = attrs.field(default=64, validator=positive)
    learning_rate: float = attrs.field(default=1e-3, validator=positive)


@attrs.frozen(kw_only=True)
class ViewersConfig:
    """The simulated people.

    Attributes:
        groups: Groups of people for training; people of a group differ in their scanning order alone.
        orders_per_group: People in such a group.
        samples: Samples of each.
        unseen_groups: Groups of people kept out of training.
        unseen_orders_per_group: People in each of those.
        support: Samples from which a persona is made.
        support_draws: Independent support sets of each unseen person.
        test_scenes: Held-out scenes that everybody describes in the evaluation.
    """

    groups: int = 40
    orders_per_group: int = 4
    samples: int = 20
    unseen_groups: int = 6
    unseen_orders_per_group: int = 6
    support: int = 5
    support_draws: int = 3
    test_scenes: int = 16


@attrs.frozen(kw_only=True)
class TinyConfig:
    """All settings of `python -m training tiny`, and those of the baselines that are trained, for the table."""

    seed: int = 0
    vlm: VLMSizes
    image_encoder: ImageEncoderSizes
    vision: PretrainingConfig
    language: PretrainingConfig
    encoder: PretrainingConfig
    viewers: ViewersConfig
    network: NetworkConfig
    stage1: Stage1Config
    stage2: Stage2Config
    prompt_tuning: PromptTuningConfig
    csmn: CSMNConfig = attrs.Factory(CSMNConfig)
    mitr: MITRConfig = attrs.Factory(MITRConfig)
