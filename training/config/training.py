"""The settings of one training: frozen parts, samples, network, stages, baselines."""

import attrs

from training.config.baselines import CSMNConfig, MITRConfig, PromptTuningConfig
from training.config.identification import IdentificationConfig
from training.config.optimisation import MAY_CHANGE
from training.config.stages import Stage1Config, Stage2Config
from training.config.validators import ConfigError, not_negative, positive
from training.network.config import NetworkConfig


@attrs.frozen(kw_only=True)
class TrainingConfig:
    """One training: where the frozen parts and the samples are, the network's sizes, the stages.

    Attributes:
        name: Name of the run and of the model.
        seed: Seed of weights, batches and dropout.
        samples: JSON Lines file of samples (see `pydeper.read_samples`), or a folder or an address of shards, as
            `python -m training shard` writes them.
        check_durations: Refuse samples whose median fixation lasts less than 0.01 s or more than 10 s, which are in
            another unit; false where they are meant, as in a folder that was made with `prepare --no-check-durations`.
        image_encoder: Frozen image encoder: name or folder that transformers' AutoModel loads.
        image_size: Side of the square images for the image encoder, in pixels.
        vlm: Frozen VLM: name or folder. Stage 1 reads only its tokenizer and input-embedding table.
        system_prompt: What the VLM is told before the image and the request. It goes into the bundle.
        max_description_tokens: Longer descriptions are cut.
        feature_cache: Folder that keeps the frozen encoders' image features for all epochs, people and runs: 0.6 MB an
            image in stage 1, 0.8 MB in stage 2. Without one they are computed in every run and kept in memory.
        skip_broken_images: So many images may be unreadable; their samples are left out, and warnings name them.
        network: Sizes of DEPER.
        stage1: Settings of stage 1.
        stage2: Settings of stage 2.
        identification: What `identify` chooses among.
        prompt_tuning: Settings of that baseline.
        csmn: Settings of that baseline.
        mitr: Settings of that baseline.
    """

    name: str
    seed: int = 0
    samples: str
    check_durations: bool = attrs.field(default=True, metadata=MAY_CHANGE)
    image_encoder: str = "facebook/dinov3-convnext-tiny-pretrain-lvd1689m"
    image_size: int = attrs.field(default=448, validator=positive)
    vlm: str = "Qwen/Qwen2-VL-2B-Instruct"
    system_prompt: str = "You are a helpful assistant."
    max_description_tokens: int = attrs.field(default=256, validator=positive)
    feature_cache: str | None = None
    skip_broken_images: int = attrs.field(default=0, validator=not_negative)
    network: NetworkConfig = attrs.Factory(NetworkConfig)
    stage1: Stage1Config
    stage2: Stage2Config | None = None
    identification: IdentificationConfig = attrs.Factory(IdentificationConfig)
    prompt_tuning: PromptTuningConfig | None = None
    csmn: CSMNConfig = attrs.Factory(CSMNConfig)
    mitr: MITRConfig = attrs.Factory(MITRConfig)

    def __attrs_post_init__(self) -> None:
        stages = {"stage1": self.stage1, "stage2": self.stage2}
        working = [name for name, stage in stages.items() if stage is not None and stage.workers]
        if working and self.feature_cache is None:
            raise ConfigError(f"{working[0]}.workers: need a feature_cache, which they read; name a folder")
