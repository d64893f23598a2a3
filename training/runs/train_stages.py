"""Trains either stage from a configuration, or goes on where an interrupted training left off."""

import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from pydeper.files.atomic import atomic_path
from training.config import (
    ConfigError,
    OptimisationConfig,
    TrainingConfig,
    config_text,
    shaping_settings,
    structure_config,
)
from training.data.digest import samples_digest
from training.data.encoded import EncodedDataset
from training.distributed.process_group import ProcessGroup, main_process_first, open_accelerator
from training.distributed.sharding import shard_layers
from training.errors import TrainingError
from training.loop.checkpoints import CHECKPOINT, SAMPLES, is_finished, load_state
from training.loop.train import check_folder, train
from training.network.deper import Deper
from training.outputs import exists, output_folder, refuse
from training.runs.folders import CONFIG, stage1_folder, stage2_folder
from training.runs.frozen_parts import FrozenParts, load_vlm
from training.runs.samples import encode_samples, training_samples
from training.stages.checkpoint_selection import check_requirements
from training.stages.stage1 import Stage1Task
from training.stages.stage2 import Stage2Task


def train_stage1(config: TrainingConfig, folder: Path) -> None:
    """Trains stage 1 on the configuration's samples, or goes on where an interrupted run left off.

    Args:
        config: The training.
        folder: Gets `stage-1/` with checkpoints, logs and the configuration.

    Raises:
        InvalidSampleError: The samples cannot be read, or name no subjects.
        ConfigError: The network's sizes are not those of the frozen parts.
        TrainingError: A frozen part cannot be loaded, or the folder holds another training.
        OutputError: The folder holds files of the same names that are no training's.
    """
    _check_output(stage1_folder(folder))
    accelerator = open_accelerator()
    parts = FrozenParts.load(config).to(accelerator.device)
    data, held_out, digest = encode_samples(config, config.stage1, parts, accelerator)
    _announce(accelerator, "stage 1", data, held_out)
    task = Stage1Task(
        config.network,
        config.stage1,
        data,
        parts.text_table,
        config.seed,
        group=ProcessGroup.of(accelerator),
        held_out=held_out,
    )
    _train(task, config, config.stage1, stage1_folder(folder), accelerator, digest)


def train_stage2(config: TrainingConfig, folder: Path) -> None:
    """Trains stage 2 on top of the folder's stage 1, or goes on where an interrupted run left off.

    Args:
        config: The training, the same as in stage 1.
        folder: Holds `stage-1/`; gets `stage-2/` likewise.

    Raises:
        InvalidSampleError: The samples cannot be read, or name no subjects.
        ConfigError: There are no settings of stage 2, or sizes that are not those of the frozen parts.
        TrainingError: Stage 1 is missing or unfinished, or a frozen part cannot be loaded, or the VLM is to be
            sharded in one process.
        MissingRequirementError: METEOR is to choose the step, and it cannot run here.
    """
    settings = config.stage2
    if settings is None:
        raise ConfigError("stage2: missing; add a table [stage2] with its settings, at least steps")
    if not is_trained(config, config.stage1, stage1_folder(folder)):
        raise TrainingError(
            f"{stage1_folder(folder)}: holds no finished stage 1 of {config.stage1.steps} steps; run "
            "`python -m training stage1` with the same --config and --out first"
        )
    _check_output(stage2_folder(folder))
    if settings.evaluate_every:
        check_requirements(settings.selection)
    accelerator = open_accelerator()
    parts = FrozenParts.load(config).to(accelerator.device)
    data, held_out, digest = encode_samples(config, settings, parts, accelerator)
    deper = Deper(config.network, len(data.subjects))
    load_state(stage1_folder(folder), deper, "deper")
    vlm = load_vlm(config, parts.tokenizer, accelerator.device)
    if settings.shard_vlm:
        shard_layers(vlm.decoder_layers, accelerator.device)
    vlm.to(accelerator.device)
    _announce(accelerator, "stage 2", data, held_out)
    with main_process_first(accelerator, config.feature_cache):
        task = Stage2Task(
            deper.to(accelerator.device),
            settings,
            data,
            parts.text_table,
            vlm,
            config.seed,
            config.feature_cache,
            group=ProcessGroup.of(accelerator),
            held_out=held_out,
        )
    _train(task, config, settings, stage2_folder(folder), accelerator, digest)


def is_trained(config: TrainingConfig, settings: OptimisationConfig, folder: Path) -> bool:
    """Whether a stage was trained to its end, with these settings on these samples.

    Args:
        config: The training.
        settings: Those of the stage.
        folder: The stage's.

    Raises:
        InvalidSampleError: The samples cannot be read.
        TrainingError: It was trained, or begun, with other settings or on other samples.
    """
    if not exists(folder / CHECKPOINT):
        return False
    shaping = shaping_settings(settings)
    del shaping["batch_size"]  # of all processes, and how many there were is not known
    samples = training_samples(config.samples, check_durations=config.check_durations)
    return is_finished(folder, settings.steps, shaping | {"seed": config.seed, SAMPLES: samples_digest(samples)})


def _check_output(folder: Path) -> None:
    check_folder(folder)
    path = folder / CONFIG
    if exists(path) and not (folder / CHECKPOINT).exists():
        try:
            structure_config(TrainingConfig, json.loads(path.read_text(encoding="utf-8")), str(path))
        except (OSError, ValueError, ConfigError):
            refuse(folder, [CONFIG])


def _train(
    task: Stage1Task | Stage2Task,
    config: TrainingConfig,
    settings: OptimisationConfig,
    folder: Path,
    accelerator: Accelerator,
    digest: str,
) -> None:
    def samples_of(step: int) -> list[dict[str, Any]]:
        origins = [task.data.origins[row] for row in task.rows(step)]
        return [
            {
                "source": sample.source,
                "subject": sample.subject,
                "image": str(sample.image) if isinstance(sample.image, str | Path) else None,
            }
            for sample in origins
        ]

    with output_folder(folder):
        # A run that goes on keeps what it says of itself: a configuration that does not fit is about to be refused.
        if accelerator.is_main_process and not (folder / CHECKPOINT).exists():
            with atomic_path(folder / CONFIG) as temporary:
                temporary.write_text(config_text(config) + "\n", encoding="utf-8")
        train(
            task,
            settings,
            config.seed,
            folder,
            accelerator=accelerator,
            evaluate=task.evaluate,
            samples_of=samples_of,
            samples=digest,
        )


def _announce(accelerator: Accelerator, stage: str, data: EncodedDataset, held_out: int) -> None:
    accelerator.print(
        f"{stage}: {len(data) - held_out} samples of {len(data.images)} images by {len(data.subjects)} people"
        + (f"; {held_out} for validation" if held_out else "")
    )
