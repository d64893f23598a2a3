"""Stage 1: what a person's samples have in common. L = λ·L_con + L_traj + L_cls over the whole of DEPER."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Stage1Config
from training.data.batches import Batch, BatchLoader, Draw, Stage1Batches, VirtualBatch
from training.data.encoded import EncodedDataset, NetworkInputs
from training.distributed.process_group import ALONE, Mean, Share, device_of, overall, step_means
from training.losses.losses import ContrastiveLoss, batch_contrastive_loss, box_loss, validity_loss
from training.network.config import NetworkConfig
from training.network.deper import Deper
from training.network.text_table import TextTable

T = TypeVar("T", Tensor, float)

MEANS = ("contrast", "boxes", "validity", "subject", "accuracy")


class Stage1Task:
    """What the training loop needs to know of stage 1.

    Args:
        network: Sizes of DEPER.
        config: Settings of the stage.
        data: The training samples, and behind them those for validation, of the same people.
        text_table: The VLM's frozen input-embedding table.
        seed: Seed of weights and batches.
        share: Which share of every step is this process's.
        held_out: How many samples at the end of `data` are for validation alone.
    """

    name = "stage 1"

    def __init__(
        self,
        network: NetworkConfig,
        config: Stage1Config,
        data: EncodedDataset,
        text_table: TextTable,
        seed: int,
        *,
        share: Share = ALONE,
        held_out: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.data, self.text_table, self.seed = config, data, text_table, seed
        self.share, self.count = share, len(data) - held_out
        self.batches = Stage1Batches(data=data, config=config, seed=seed, share=share, count=self.count)
        self.loader = BatchLoader(self.batches, config)
        self.deper = Deper(network, len(data.subjects))
        self.contrastive = ContrastiveLoss(
            len(data.subjects), network.subject_embedding_size, config.bank_size, config.temperature
        )
        self.state = nn.ModuleDict({"deper": self.deper, "contrastive": self.contrastive})
        self._forward = torch.compile(self.deper, dynamic=True) if config.compile else self.deper

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.loop.Task`."""
        return [{"params": list(self.deper.parameters()), "lr": self.config.learning_rate}]

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        """See `training.loop.loop.Task`."""
        self.state.train()
        parts = self.config.accumulation
        batch = self.loader.take(step * parts + part, device_of(self.deper))
        losses = self._weigh(step_means(self._means(batch), batch.totals, parts * self.share.processes))
        if batch.virtual is not None:
            virtual = self._virtual_loss(batch.virtual)
            losses |= {"loss": losses["loss"] + self.config.virtual_people.weight * virtual, "virtual": virtual}
        return losses

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Losses and subject accuracy over all samples for validation; nothing is withheld from them."""
        self.state.eval()
        passes = (
            self._means(self.batches.collate(Draw(rows, [None] * len(rows), rows)))
            for rows in self.share.batches(range(self.count, len(self.data)), self.config.batch_size)
        )
        means = overall(passes, MEANS, device_of(self.deper))
        return self._weigh(means)

    def rows(self, step: int) -> list[int]:
        """The training samples of a step, those of all its parts and processes."""
        return [int(row) for draw in self.batches.draws(step) for row in draw.rows]

    def _means(self, batch: Batch) -> dict[str, Mean]:
        device = device_of(self.deper)
        inputs = on_device(batch.inputs, self.text_table, device)
        output = self._forward(*inputs)
        *_, boxes, _, fixation_mask = inputs
        rows, subjects = (torch.from_numpy(own).to(device) for own in (batch.rows, self.data.subject_of[batch.rows]))
        values = {
            "contrast": self.contrastive(output.subject_embedding, subjects, rows),
            "boxes": box_loss(output.boxes, boxes, fixation_mask),
            "validity": validity_loss(output.validity_logits, fixation_mask),
            "subject": F.cross_entropy(output.subject_logits, subjects),
            "accuracy": (output.subject_logits.argmax(-1) == subjects).float().mean(),
        }
        return {name: Mean(value, batch.counts[name]) for name, value in values.items()}

    def _virtual_loss(self, batch: VirtualBatch) -> Tensor:
        inputs = on_device(batch.inputs, self.text_table, device_of(self.deper))
        vectors = self.deper.persona_encoder(*inputs).subject_embedding
        people = torch.from_numpy(batch.people).to(vectors.device)
        return batch_contrastive_loss(vectors, people, self.config.temperature)

    def _weigh(self, means: dict[str, T]) -> dict[str, T]:
        config, trajectory = self.config, means["boxes"] + means["validity"]
        return {
            "loss": config.contrastive_weight * means["contrast"]
            + config.trajectory_weight * trajectory
            + config.subject_weight * means["subject"],
            "contrast": means["contrast"],
            "trajectory": trajectory,
            "subject": means["subject"],
            "accuracy": means["accuracy"],
        }


@torch.no_grad()
def embed(
    deper: Deper, text_table: TextTable, data: EncodedDataset, without: str | None = None, batch_size: int = 128
) -> np.ndarray:
    """Subject embeddings of all samples, (n, subject_embedding_size) float32.

    Args:
        deper: The trained network.
        text_table: The frozen text table.
        data: The samples.
        without: A modality to withhold: "text" or "trajectory".
        batch_size: Samples at a time.
    """
    deper.eval()
    vectors = []
    for start in range(0, len(data), batch_size):
        rows = np.arange(start, min(start + batch_size, len(data)))
        inputs = network_inputs(data, rows, [without] * len(rows), text_table, device_of(deper))
        vectors.append(deper.persona_encoder(*inputs).subject_embedding.cpu())
    return torch.cat(vectors).numpy()


def network_inputs(
    data: EncodedDataset,
    rows: np.ndarray,
    dropped: Sequence[str | None],
    text_table: TextTable,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Samples as a padded batch on a device; see `on_device`."""
    return on_device(data.inputs(rows, dropped), text_table, device)


def on_device(
    inputs: NetworkInputs, text_table: TextTable, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A padded batch on a device, its token ids looked up: the arguments of `PersonaEncoder.encode`."""
    text = text_table(inputs.input_ids.to(device_of(text_table), non_blocking=True)).to(device)
    image, _, text_mask, boxes, durations, fixation_mask = (tensor.to(device, non_blocking=True) for tensor in inputs)
    return image, text, text_mask, boxes, durations, fixation_mask
