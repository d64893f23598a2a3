"""What the steps of `python -m training tiny` share: folders, random streams, and how a pre-training runs."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.config import OptimisationConfig
from training.loop.checkpoints import is_finished, load_state
from training.loop.train import Task, train
from training.tiny.config import Pretraining, TinyConfig

# The folders of the steps, in their order.
VISION, LANGUAGE, LARGER_VISION, SKETCHES = "1-vision", "2-language", "3-larger-vision", "4-sketches"
LARGER_LANGUAGE, IMAGE_ENCODER, STAGE1, STAGE2 = "5-larger-language", "6-image-encoder", "7-stage-1", "8-stage-2"

# The settings that the frozen VLM and the people come from: predictions made with others are another world's.
WORLD = ("seed", "vlm", "vision", "language", "larger_vision", "sketches", "larger_language", "viewers")


class Seeds:
    """Offsets that keep the random streams of the steps apart."""

    VISION_SCENES, LANGUAGE_SCENES, ENCODER_SCENES, VIEWERS, SAMPLES, TEST_SCENES, SUPPORT = range(1, 8)
    VISION, LANGUAGE, ENCODER, STAGE1, STAGE2 = range(11, 16)
    LARGER_VISION, LARGER_LANGUAGE, SKETCHES = 16, 17, 18
    LARGER_VISION_SCENES, LARGER_LANGUAGE_SCENES, SKETCH_SCENES = 21, 22, 23


def seed_of(config: TinyConfig, offset: int) -> int:
    """The seed of one random stream."""
    return config.seed * 1000 + offset


def pretrain(
    config: Pretraining,
    folder: Path,
    seed: int,
    module: torch.nn.Module,
    part: str,
    task: Callable[[], Task],
) -> None:
    """Runs a pre-training; if it is finished, loads `module`, which is this part of its state, and draws nothing."""
    if is_finished(folder, config.steps):
        load_state(folder, module, part)
        return
    optimisation = OptimisationConfig(
        steps=config.steps,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        muon_learning_rate=config.muon_learning_rate,
    )
    train(task(), optimisation, seed, folder)


def round_to_half(module: torch.nn.Module) -> None:
    """Rounds all weights to values that float16 holds exactly, so that storing them as float16 loses nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(parameter.half().float())


def stack(arrays: Iterable[np.ndarray]) -> Tensor:
    """Arrays of one shape as one tensor."""
    return torch.stack([torch.from_numpy(array) for array in arrays])
