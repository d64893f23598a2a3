"""A small regression to be trained in a process that gets killed."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.config import OptimisationConfig
from training.loop import loop

CONFIG = OptimisationConfig(
    steps=60, batch_size=8, accumulation=2, checkpoint_every=7, keep_checkpoints=3, log_every=1, learning_rate=1e-2
)


class Regression:
    """A noisy task with dropout: only exact if all that is random is."""

    name = "regression"

    def __init__(self, pause: float = 0.0) -> None:
        torch.manual_seed(0)
        self.state = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.pause = pause

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.state.parameters()), "lr": CONFIG.learning_rate}]

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        time.sleep(self.pause)
        x = torch.from_numpy(loop.step_generator(5, step, part).normal(size=(8, 4))).float()
        return {"loss": (self.state(x) - x.sum(-1, keepdim=True)).square().mean()}


def train(folder: Path, pause: float) -> None:
    """Trains with so many seconds' pause in each forward pass."""
    loop.run(Regression(pause), CONFIG, 0, folder)
