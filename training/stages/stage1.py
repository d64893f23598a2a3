"""Stage 1: what a person's samples have in common. L = λ·L_con + L_traj + L_cls over the whole of DEPER."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Stage1Config
from training.data.batches import Batch, Draw, Stage1Batches, VirtualBatch
from training.data.encoded import EncodedDataset
from training.data.loader import BatchLoader
from training.distributed.device import device_of
from training.distributed.means import Mean, all_reduce_means, rescale_to_step
from training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from training.losses.contrastive import ContrastiveLoss, batch_contrastive_loss
from training.losses.trajectory import box_loss, validity_loss
from training.network.config import NetworkConfig
from training.network.deper import Deper
from training.network.text_table import TextTable
from training.stages.embedding import to_device

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
        group: The ranks that a step is split over, and which is this process's.
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
        group: ProcessGroup = SINGLE_PROCESS,
        held_out: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.data, self.text_table, self.seed = config, data, text_table, seed
        self.group, self.count = group, len(data) - held_out
        self.batches = Stage1Batches(data=data, config=config, seed=seed, group=group, count=self.count)
        self.loader = BatchLoader(self.batches, config)
        self.deper = Deper(network, len(data.subjects))
        self.contrastive = ContrastiveLoss(
            len(data.subjects), network.subject_embedding_size, config.bank_size, config.temperature
        )
        self.state = nn.ModuleDict({"deper": self.deper, "contrastive": self.contrastive})
        self._forward = torch.compile(self.deper, dynamic=True) if config.compile else self.deper

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.deper.parameters()), "lr": self.config.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        self.state.train()
        count = self.config.accumulation
        batch = self.loader.take(step * count + micro_batch, device_of(self.deper))
        losses = self._weigh(rescale_to_step(self._means(batch), batch.totals, count * self.group.world_size))
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
            for rows in self.group.batches_of(range(self.count, len(self.data)), self.config.batch_size)
        )
        means = all_reduce_means(passes, MEANS, device_of(self.deper))
        return self._weigh(means)

    def rows(self, step: int) -> list[int]:
        """The training samples of a step, those of all its micro-batches and ranks."""
        return [int(row) for draw in self.batches.draws(step) for row in draw.rows]

    def _means(self, batch: Batch) -> dict[str, Mean]:
        device = device_of(self.deper)
        inputs = to_device(batch.inputs, self.text_table, device)
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
        inputs = to_device(batch.inputs, self.text_table, device_of(self.deper))
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
