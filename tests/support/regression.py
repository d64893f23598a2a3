"""A small noisy regression to be trained, interrupted and killed: only exact if all that is random is."""

import time
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from training.config import MAY_CHANGE, OptimisationConfig
from training.loop.train import train
from training.seeding import step_generator

SHORT = OptimisationConfig(steps=12, accumulation=2, checkpoint_every=4, log_every=1)
LONG = OptimisationConfig(
    steps=60, batch_size=8, accumulation=2, checkpoint_every=7, keep_checkpoints=3, log_every=1, learning_rate=1e-2
)


@attrs.frozen(kw_only=True)
class Selecting(OptimisationConfig):
    selection: dict[str, float] = attrs.field(factory=lambda: {"loss": -1.0, "accuracy": 0.5}, metadata=MAY_CHANGE)


SELECTING = Selecting(steps=12, evaluate_every=5, checkpoint_every=4)


class Regression:
    """A task with dropout.

    Attributes:
        pause: Seconds that each forward pass takes longer.
        stop_at: A step that is interrupted.
        broken_at: A step whose loss is not finite.
    """

    name = "regression"

    def __init__(self, seed: int = 0, pause: float = 0.0) -> None:
        torch.manual_seed(seed)
        self.state = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.pause = pause
        self.stop_at: int | None = None
        self.broken_at: int | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.state.parameters()), "lr": 1e-2}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        time.sleep(self.pause)
        x = torch.from_numpy(step_generator(5, step, micro_batch).normal(size=(8, 4))).float()
        loss = (self.state(x) - x.sum(-1, keepdim=True)).square().mean()
        return {"loss": loss * float("nan") if step == self.broken_at else loss}


def train_regression(folder: Path, pause: float = 0.0) -> None:
    """Trains the long way, in this process."""
    train(Regression(pause=pause), LONG, 0, folder)
