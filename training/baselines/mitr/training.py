"""MITR's training, of the base and of one person's network: the next word and where its speaker looks.

Learning-rate schedule and clipping are those of `training.loop`: MITR's own code multiplies the rate by 0.8 every three
epochs and clips every number of a gradient by itself.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.baselines.mitr.examples import Examples
from training.baselines.mitr.losses import hide_boxes, mitr_losses
from training.baselines.mitr.network import MITR
from training.config import MITRConfig
from training.data.sampling import batch_rows
from training.distributed.device import device_of
from training.distributed.means import Mean, all_reduce_means
from training.distributed.process_group import accelerator_at
from training.loop.checkpoints import load_state
from training.loop.train import train


class MITRTask:
    """What the training loop needs to know of MITR: L = L_caption + L_trace over all its weights.

    Args:
        name: What is trained, for logs and messages.
        network: Is trained.
        config: Settings of the optimiser.
        training: At least one example.
        validation: Examples to choose the step by.
        seed: Seed of the batches.
    """

    def __init__(
        self, name: str, network: MITR, config: MITRConfig, training: Examples, validation: Examples, seed: int
    ) -> None:
        self.name = name
        self.state: nn.Module = network
        self._network, self._config, self._seed = network, config, seed
        self._training, self._validation = training, validation

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.state.parameters()), "lr": self._config.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        self.state.train()
        number = step * self._config.accumulation + micro_batch
        rows = batch_rows(len(self._training), self._config.batch_size, self._seed, number)
        means = self._means(self._training, rows.tolist(), self._config.masked_boxes)
        caption, trace = means["caption"].value, means["trace"].value
        return {"loss": caption + trace, "caption": caption, "trace": trace}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The same losses over all examples for validation, with no box hidden."""
        self.state.eval()
        rows, size = range(len(self._validation)), self._config.batch_size
        passes = (self._means(self._validation, rows[start : start + size], 0.0) for start in rows[::size])
        means = all_reduce_means(passes, ("caption", "trace"), device_of(self.state))
        return {"loss": means["caption"] + means["trace"], **means}

    def _means(self, examples: Examples, rows: Sequence[int], masked_boxes: float) -> dict[str, Mean]:
        batch = examples.batch(rows).to(device_of(self.state))
        memory = self._network.image_encoder(batch.image_tokens)
        output = self._network(memory, batch.words, hide_boxes(batch.boxes, masked_boxes))
        return mitr_losses(output, batch.target_words, batch.target_boxes)


def fit(
    name: str,
    network: MITR,
    config: MITRConfig,
    training: Examples,
    validation: Examples,
    seed: int,
    folder: Path,
    samples: str | None = None,
) -> None:
    """Trains a network, or goes on where an interrupted run left off; it has the best step's weights in the end.

    Args:
        name: What is trained, for logs and messages.
        network: Is changed in place where it is, and left in eval mode.
        config: Settings of the optimiser.
        training: At least one example.
        validation: Examples to choose the step by; where there are none, the last step is kept.
        seed: Seed of batches and dropout.
        folder: Gets checkpoints and logs.
        samples: Says which samples the examples are of, as `training.data.digest` does; None: any may be.

    Raises:
        TrainingError: The folder holds another training, or the loss is not finite.
    """
    task = MITRTask(name, network, config, training, validation, seed)
    evaluate = task.evaluate if len(validation) else None
    accelerator = accelerator_at(device_of(network))
    train(task, config, seed, folder, accelerator=accelerator, evaluate=evaluate, samples=samples)
    load_state(folder, network)
    network.eval()
