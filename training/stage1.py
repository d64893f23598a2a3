"""Stage 1: what a person's samples have in common. L = λ·L_con + L_traj + L_cls over the whole of DEPER."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Stage1Config
from training.data.encoded import EncodedDataset, dropped_modalities
from training.distributed import ALONE, Mean, Share, add_counts, device_of, overall, step_means
from training.loop import step_generator
from training.losses import ContrastiveLoss, box_loss, validity_loss
from training.network.config import NetworkConfig
from training.network.deper import Deper
from training.network.text_table import TextTable

T = TypeVar("T", Tensor, float)

MEANS = ("contrast", "boxes", "validity", "subject", "accuracy")


class Draw(NamedTuple):
    """The samples of a forward pass.

    Attributes:
        rows: (B,) which samples.
        dropped: The modality that each of them loses.
    """

    rows: np.ndarray
    dropped: Sequence[str | None]


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
        self.deper = Deper(network, len(data.subjects))
        self.contrastive = ContrastiveLoss(
            len(data.subjects), network.subject_embedding_size, config.bank_size, config.temperature
        )
        self.state = nn.ModuleDict({"deper": self.deper, "contrastive": self.contrastive})
        self._forward = torch.compile(self.deper, dynamic=True) if config.compile else self.deper

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.Task`."""
        return [{"params": list(self.deper.parameters()), "lr": self.config.learning_rate}]

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        """See `training.loop.Task`."""
        self.state.train()
        draws = self._draws(step)
        means = self._means(*(self.share.of(items) for items in draws[part]))
        totals = add_counts([_counts(self.data, *draw) for draw in draws])
        return self._weigh(step_means(means, totals, len(draws) * self.share.processes))

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Losses and subject accuracy over all samples for validation; nothing is withheld from them."""
        self.state.eval()
        passes = (
            self._means(rows, [None] * len(rows))
            for rows in self.share.batches(range(self.count, len(self.data)), self.config.batch_size)
        )
        means = overall(passes, MEANS, device_of(self.deper))
        return self._weigh(means)

    def rows(self, step: int) -> list[int]:
        """The training samples of a step, those of all its parts and processes."""
        return [int(row) for draw in self._draws(step) for row in draw.rows]

    def _draws(self, step: int) -> list[Draw]:
        """What every part of a step is made of, in all processes together."""
        return [self._draw(step * self.config.accumulation + part) for part in range(self.config.accumulation)]

    def _draw(self, number: int) -> Draw:
        size = self.config.batch_size * self.share.processes
        rows = self.data.batch_rows(self.count, size, self.seed, number, self.config.bucket)
        rng = step_generator(self.seed, number, 1)
        return Draw(
            rows, dropped_modalities([self.data.samples[row] for row in rows], self.config.modality_dropout, rng)
        )

    def _means(self, rows: np.ndarray, dropped: Sequence[str | None]) -> dict[str, Mean]:
        device = device_of(self.deper)
        inputs = network_inputs(self.data, rows, dropped, self.text_table, device)
        output = self._forward(*inputs)
        *_, boxes, _, fixation_mask = inputs
        subjects = torch.from_numpy(self.data.subject_of[rows]).to(device)
        values = {
            "contrast": self.contrastive(output.subject_embedding, subjects, torch.from_numpy(rows).to(device)),
            "boxes": box_loss(output.boxes, boxes, fixation_mask),
            "validity": validity_loss(output.validity_logits, fixation_mask),
            "subject": F.cross_entropy(output.subject_logits, subjects),
            "accuracy": (output.subject_logits.argmax(-1) == subjects).float().mean(),
        }
        counts = _counts(self.data, rows, dropped)
        return {name: Mean(value, counts[name]) for name, value in values.items()}

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


def _counts(data: EncodedDataset, rows: np.ndarray, dropped: Sequence[str | None]) -> dict[str, int]:
    """How many things each mean over these samples is over."""
    fixations = [
        0 if modality == "trajectory" else len(data.samples[row].durations)
        for row, modality in zip(rows, dropped, strict=True)
    ]
    samples = dict.fromkeys(("contrast", "subject", "accuracy"), len(rows))
    return {**samples, "boxes": sum(fixations), "validity": sum(count > 0 for count in fixations)}


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
    """A padded batch on a device, its token ids looked up: the arguments of `PersonaEncoder.encode`."""
    inputs = data.inputs(rows, dropped)
    text = text_table(inputs.input_ids.to(device_of(text_table))).to(device)
    image, _, text_mask, boxes, durations, fixation_mask = (tensor.to(device, non_blocking=True) for tensor in inputs)
    return image, text, text_mask, boxes, durations, fixation_mask
