"""Configurations: attrs classes, read from TOML, changed by `--set key=value`; an unknown key is an error."""

from training.config.baselines import CSMNConfig, LoRAConfig, MITRConfig, PromptTuningConfig
from training.config.identification import IdentificationConfig
from training.config.optimisation import MAY_CHANGE, OptimisationConfig
from training.config.reading import (
    config_text,
    load_config,
    shaping_settings,
    shaping_settings_at,
    structure_config,
)
from training.config.stages import METEOR, NoiseConfig, Stage1Config, Stage2Config, VirtualPeopleConfig
from training.config.training import TrainingConfig
from training.config.validators import ConfigError, positive

__all__ = [
    "MAY_CHANGE",
    "METEOR",
    "CSMNConfig",
    "ConfigError",
    "IdentificationConfig",
    "LoRAConfig",
    "MITRConfig",
    "NoiseConfig",
    "OptimisationConfig",
    "PromptTuningConfig",
    "Stage1Config",
    "Stage2Config",
    "TrainingConfig",
    "VirtualPeopleConfig",
    "config_text",
    "load_config",
    "positive",
    "shaping_settings",
    "shaping_settings_at",
    "structure_config",
]
