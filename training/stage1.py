"""Stage 1: what a person's samples have in common. L = λ·L_con + L_traj + L_cls over the whole of DEPER."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Stage1Config
from training.data.encoded import EncodedDataset, batch_rows, dropped_modalities
from training.loop import step_generator
from training.losses import ContrastiveLoss, trajectory_loss
from training.network.config import NetworkConfig
from training.network.deper import Deper
from training.network.text_table import TextTable


class Stage1Task:
    """What the training loop needs to know of stage 1.

    Args:
        network: Sizes of DEPER.
        config: Settings of the stage.
        data: The training samples.
        text_table: The VLM's frozen input-embedding table.
        seed: Seed of weights and batches.
    """

    name = "stage 1"

    def __init__(
        self, network: NetworkConfig, config: Stage1Config, data: EncodedDataset, text_table: TextTable, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.data, self.text_table, self.seed = config, data, text_table, seed
        self.deper = Deper(network, len(data.subjects))
        self.contrastive = ContrastiveLoss(
            len(data.subjects), network.subject_embedding_size, config.bank_size, config.temperature
        )
        self.state = nn.ModuleDict({"deper": self.deper, "contrastive": self.contrastive})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.Task`."""
        return [{"params": list(self.deper.parameters()), "lr": self.config.learning_rate}]

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        """See `training.loop.Task`."""
        self.state.train()
        number = step * self.config.accumulation + part
        rows = batch_rows(len(self.data), self.config.batch_size, self.seed, number)
        rng = step_generator(self.seed, number, 1)
        dropped = dropped_modalities([self.data.samples[row] for row in rows], self.config.modality_dropout, rng)
        inputs = self.data.inputs(rows, dropped)
        output = self.deper(
            inputs.image_tokens,
            self.text_table(inputs.input_ids),
            inputs.attention_mask,
            inputs.boxes,
            inputs.durations,
            inputs.fixation_mask,
        )
        subjects = torch.from_numpy(self.data.subject_of[rows])
        contrast = self.contrastive(output.subject_embedding, subjects, torch.from_numpy(rows))
        trajectory = trajectory_loss(output.boxes, output.validity_logits, inputs.boxes, inputs.fixation_mask)
        subject = F.cross_entropy(output.subject_logits, subjects)
        config = self.config
        return {
            "loss": config.contrastive_weight * contrast
            + config.trajectory_weight * trajectory
            + config.subject_weight * subject,
            "contrast": contrast,
            "trajectory": trajectory,
            "subject": subject,
            "accuracy": (output.subject_logits.argmax(-1) == subjects).float().mean(),
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
        inputs = data.inputs(rows, [without] * len(rows))
        tensors = (inputs.image_tokens, text_table(inputs.input_ids), *inputs[2:])
        vectors.append(deper.persona_encoder(*tensors).subject_embedding)
    return torch.cat(vectors).numpy()
