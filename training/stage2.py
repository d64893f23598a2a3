"""Stage 2: steering the frozen VLM. L = L_des + λ·L_con + L_cls over the extractor, its subject head and the adapter.

z_s comes from one sample of a person; the description to be produced is that of *another* sample of the same person, so
nothing about the picture can leak through the soft token.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Stage2Config
from training.data.encoded import EncodedDataset, batch_rows, dropped_modalities
from training.loop import TrainingError, step_generator
from training.losses import ContrastiveLoss
from training.network.adapter import Adapter
from training.network.deper import Deper
from training.network.text_table import TextTable
from training.vlm import SteeredVLM


class Stage2Task:
    """What the training loop needs to know of stage 2.

    Args:
        deper: DEPER after stage 1; its dual-context encoder is frozen here.
        config: Settings of the stage.
        data: The training samples; those without a description serve as sources of z_s alone.
        text_table: The VLM's frozen input-embedding table.
        vlm: The frozen VLM.
        seed: Seed of the adapter's weights and of batches.
        style: The prompt's style.
    """

    name = "stage 2"

    def __init__(
        self,
        deper: Deper,
        config: Stage2Config,
        data: EncodedDataset,
        text_table: TextTable,
        vlm: SteeredVLM,
        seed: int,
        style: str = "description",
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.data, self.text_table, self.vlm, self.seed = config, data, text_table, vlm, seed
        self.encoder, self.head = deper.persona_encoder.freeze_context(), deper.subject_head
        size = deper.persona_encoder.config.subject_embedding_size
        self.adapter = Adapter(size, vlm.config.hidden_size)
        self.contrastive = ContrastiveLoss(len(data.subjects), size, config.bank_size, config.temperature)
        self.state = nn.ModuleDict(
            {"encoder": self.encoder, "head": self.head, "adapter": self.adapter, "contrastive": self.contrastive}
        )
        self._prompt = vlm.steered_prompt(style)
        # Frozen, so computed once: what every picture is to the VLM.
        self._image_features = vlm.image_features(data.images)
        self._grids = vlm.grids(data.images)
        self._targets = _targets_by_subject(data)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.Task`."""
        trained = [*self.encoder.extractor.parameters(), *self.head.parameters()]
        return [
            {"params": trained, "lr": self.config.learning_rate},
            {"params": list(self.adapter.parameters()), "lr": self.config.adapter_learning_rate},
        ]

    def losses(self, step: int, part: int) -> dict[str, Tensor]:
        """See `training.loop.Task`."""
        self.state.train()
        number = step * self.config.accumulation + part
        rows = batch_rows(len(self.data), self.config.batch_size, self.seed, number)
        rng = step_generator(self.seed, number, 1)
        targets = [self._target(int(row), rng) for row in rows]
        dropped = dropped_modalities([self.data.samples[row] for row in rows], self.config.modality_dropout, rng)
        inputs = self.data.inputs(rows, dropped)
        with torch.no_grad():
            context = self.encoder.encode(inputs.image_tokens, self.text_table(inputs.input_ids), *inputs[2:])
        subject_embedding = self.encoder.extract(context)
        subjects = torch.from_numpy(self.data.subject_of[rows])
        contrast = self.contrastive(subject_embedding, subjects, torch.from_numpy(rows))
        logits = self.head(subject_embedding)
        subject = F.cross_entropy(logits, subjects)
        description = self._description_loss(self.adapter(subject_embedding), targets)
        return {
            "loss": description + self.config.contrastive_weight * contrast + self.config.subject_weight * subject,
            "description": description,
            "contrast": contrast,
            "subject": subject,
            "accuracy": (logits.argmax(-1) == subjects).float().mean(),
        }

    def _description_loss(self, soft_tokens: Tensor, targets: Sequence[int]) -> Tensor:
        images = [int(self.data.image_of[row]) for row in targets]
        descriptions = [str(self.data.descriptions[row]) for row in targets]
        batch = self.vlm.prompt_batch([self._prompt] * len(targets), descriptions, self._grids[images])
        with torch.autocast(self.vlm.model.device.type, torch.bfloat16, enabled=self.config.bf16):
            return self.vlm.description_loss([self._image_features[i] for i in images], soft_tokens, batch)

    def _target(self, row: int, rng: np.random.Generator) -> int:
        """Another described sample of the same person; the sample itself only where there is no other."""
        own = self._targets[int(self.data.subject_of[row])]
        others = own[own != row]
        return int(rng.choice(others if len(others) else own))


def _targets_by_subject(data: EncodedDataset) -> list[np.ndarray]:
    described = np.array([text is not None for text in data.descriptions])
    targets = [np.flatnonzero(described & (data.subject_of == subject)) for subject in range(len(data.subjects))]
    if silent := [data.subjects[i] for i, rows in enumerate(targets) if len(rows) == 0]:
        raise TrainingError(f"stage 2 needs a description of everybody; without one: {', '.join(silent[:5])}")
    return targets
