"""Stage 2: steering the frozen VLM. L = L_des + λ·L_con + L_cls over the extractor, its subject head and the adapter.

z_s comes from one sample of a person; the description to be produced is that of *another* sample of the same person, so
nothing about the picture can leak through the soft token.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import Stage2Config
from training.data.encoded import EncodedDataset, batch_rows, by_length, dropped_modalities
from training.data.feature_cache import ImageFeatures, open_store
from training.loop import TrainingError, step_generator
from training.losses import ContrastiveLoss
from training.network.adapter import Adapter
from training.network.deper import Deper
from training.network.text_table import TextTable
from training.prefix import DescriptionLoss
from training.vlm import SteeredVLM

_IMAGES_AT_A_TIME = 16  # the vision tower's activations of one 448×448 image are tens of MB


class Draw(NamedTuple):
    """The samples of a forward pass.

    Attributes:
        rows: (B,) the samples that z_s comes from.
        targets: (B,) the samples whose descriptions are to be produced.
        dropped: The modality that each of `rows` loses.
    """

    rows: np.ndarray
    targets: np.ndarray
    dropped: list[str | None]


class Stage2Task:
    """What the training loop needs to know of stage 2.

    Args:
        deper: DEPER after stage 1; its dual-context encoder is frozen here.
        config: Settings of the stage.
        data: The training samples; those without a description serve as sources of z_s alone.
        text_table: The VLM's frozen input-embedding table.
        vlm: The frozen VLM.
        seed: Seed of the adapter's weights and of batches.
        feature_cache: Folder that keeps the VLM's image features for all runs; None keeps them in memory.
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
        feature_cache: str | Path | None = None,
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
        store = open_store(feature_cache, vlm.model.model.visual, attrs.asdict(vlm.config.vision))
        features = ImageFeatures(data.images, vlm.image_maps, store, _IMAGES_AT_A_TIME)
        features.fill(name="VLM image features")
        self.description_loss = DescriptionLoss(
            vlm,
            features.of,
            config.style,
            bf16=config.bf16,
            cache_bytes=int(config.prefix_cache_gib * 2**30),
            checkpointing=config.checkpointing,
            compile=config.compile,
        )
        self._targets = _targets_by_subject(data)
        self._lengths = np.array([len(sample.input_ids) for sample in data.samples])
        self._draws = lru_cache(maxsize=2)(self._draw_together)

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
        rows, targets, dropped = self._draw(step * self.config.accumulation + part)
        inputs = self.data.inputs(rows, dropped)
        with torch.no_grad():
            context = self.encoder.encode(inputs.image_tokens, self.text_table(inputs.input_ids), *inputs[2:])
        subject_embedding = self.encoder.extract(context)
        subjects = torch.from_numpy(self.data.subject_of[rows])
        contrast = self.contrastive(subject_embedding, subjects, torch.from_numpy(rows))
        logits = self.head(subject_embedding)
        subject = F.cross_entropy(logits, subjects)
        texts = [str(self.data.descriptions[target]) for target in targets]
        description = self.description_loss(self.data.image_of[targets], self.adapter(subject_embedding), texts)
        return {
            "loss": description + self.config.contrastive_weight * contrast + self.config.subject_weight * subject,
            "description": description,
            "contrast": contrast,
            "subject": subject,
            "accuracy": (logits.argmax(-1) == subjects).float().mean(),
        }

    def _draw(self, number: int) -> Draw:
        """What the forward pass with this running number is made of."""
        first = number - number % self.config.bucket
        return self._draws(first)[number - first]

    def _draw_together(self, first: int) -> list[Draw]:
        """As many consecutive forward passes as share out their targets by length."""
        count, size, bucket = len(self.data), self.config.batch_size, self.config.bucket
        rows = np.concatenate([batch_rows(count, size, self.seed, number) for number in range(first, first + bucket)])
        rng = step_generator(self.seed, first, 1)
        targets = np.array([self._target(int(row), rng) for row in rows])
        dropped = dropped_modalities([self.data.samples[row] for row in rows], self.config.modality_dropout, rng)
        return [
            Draw(rows[places], targets[places], [dropped[place] for place in places])
            for places in by_length(self._lengths[targets], bucket, self.seed, first)
        ]

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
