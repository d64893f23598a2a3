"""The persona encoder: one sample's frozen features in, its subject embedding z_s out."""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from training.network.blocks import zero_padding
from training.network.config import NetworkConfig
from training.network.dual_context import DualContextEncoder
from training.network.fixations.box_pooling import pool_boxes
from training.network.fixations.kinematics import KinematicsEmbedding
from training.network.positions import encode_how_long, encode_order, encode_where
from training.network.subject_extractor import SubjectExtractor


class Context(NamedTuple):
    """What the samples look like after the dual-context encoder, and the tokens that it started from.

    Attributes:
        dual: (B, L+M, D) Z_dual = [L'; T'], padding zeroed; with `kinematics` (B, L+M+1, D), the scanpath's token last.
        dual_mask: (B, L+M) or (B, L+M+1) bool, True for real tokens.
        image: (B, N, D) V.
        text: (B, L, D) L_0, padding zeroed.
        text_mask: (B, L) bool.
    """

    dual: Tensor
    dual_mask: Tensor
    image: Tensor
    text: Tensor
    text_mask: Tensor


class PersonaEncoding(NamedTuple):
    """The subject embedding z_s (B, subject_embedding_size) and the context that it was read out of."""

    subject_embedding: Tensor
    context: Context


class TrajectoryEmbedding(nn.Module):
    """T_0: what each box covers, projected to D, plus where, when and how long (without `dynamics`: where alone).

    With `kinematics` these numbers say where, when and how long in place of the sinusoids, and one more token is of the
    whole scanpath.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.grid_size = config.grid_size
        self.hidden_size = config.hidden_size
        self.dynamics = config.dynamics
        self.box_pooling = config.box_pooling
        self.projection = nn.Linear(config.image_channels, config.hidden_size)
        self.kinematics = KinematicsEmbedding(config) if config.kinematics else None

    def forward(self, image_tokens: Tensor, boxes: Tensor, durations: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds fixations, and with `kinematics` scanpaths.

        Args:
            image_tokens: (B, G·G, C)
            boxes: (B, M, 4) corners x1, y1, x2, y2 in [0, 1].
            durations: (B, M) seconds.
            mask: (B, M) bool, True for real fixations.

        Returns:
            (B, M, D) or (B, M+1, D) T_0 with the scanpath's token last, padding zeroed, and its bool mask.
        """
        tokens: Tensor = self.projection(pool_boxes(image_tokens, boxes, self.grid_size, self.box_pooling))
        if self.kinematics is not None:
            fixations, scanpath = self.kinematics(boxes, durations, mask)
            tokens = torch.cat((tokens + fixations, scanpath), dim=1)
            mask = torch.cat((mask, mask.any(-1, keepdim=True)), dim=1)
            return zero_padding(tokens, mask), mask
        tokens = tokens + encode_where(boxes, self.grid_size, self.hidden_size)
        if self.dynamics:
            when, how_long = encode_order(boxes, self.hidden_size), encode_how_long(durations, self.hidden_size)
            tokens = tokens + when + how_long
        return zero_padding(tokens, mask), mask


class PersonaEncoder(nn.Module):
    """Dual-context encoder and subject extractor over already computed frozen features.

    A description or trajectory that is missing is a fully masked stream: the other one alone then makes z_s.

    A part that is switched off here has no weights of its own, so the weights alone would fit the whole network too. An
    empty buffer `without_…` marks them: loading refuses a checkpoint that was trained with other switches. So does one
    that marks the pooling of boxes. The weight of the words' order, where it has any, is a buffer too. Kinematics have
    weights of their own, so they need no mark.
    """

    word_order: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.image_projection = nn.Linear(config.image_channels, config.hidden_size)
        self.text_projection = nn.Linear(config.text_channels, config.hidden_size)
        # Embedding tables hold small numbers: a random bias of the usual size would drown the words.
        nn.init.zeros_(self.text_projection.bias)
        self.trajectory_embedding = TrajectoryEmbedding(config)
        self.dual_context = DualContextEncoder(config)
        self.extractor = SubjectExtractor(config)
        self._context_frozen = False
        for part in ("trajectory", "dynamics", "dual_context"):
            if not getattr(config, part):
                self.register_buffer(f"without_{part}", torch.empty(0))
        # None marks "centre": the checkpoints of earlier versions, which knew no other, have no such buffer.
        if config.box_pooling == "overlap":
            self.register_buffer("box_pooling_by_overlap", torch.empty(0))
        if config.word_order:
            self.register_buffer("word_order", torch.tensor(config.word_order))

    def encode(
        self,
        image_tokens: Tensor,
        text_embeddings: Tensor,
        attention_mask: Tensor,
        boxes: Tensor,
        durations: Tensor,
        fixation_mask: Tensor,
    ) -> Context:
        """Runs the projections and the dual-context encoder.

        Args:
            image_tokens: (B, G·G, C) from the frozen image encoder.
            text_embeddings: (B, L, E) from the frozen text table.
            attention_mask: (B, L) bool or int, non-zero for real tokens.
            boxes: (B, M, 4) corners x1, y1, x2, y2 in [0, 1].
            durations: (B, M) seconds.
            fixation_mask: (B, M) bool or int, non-zero for real fixations.
        """
        text_mask, trajectory_mask = attention_mask.bool(), fixation_mask.bool()
        if not self.config.trajectory:
            trajectory_mask = torch.zeros_like(trajectory_mask)
        image = self.image_projection(image_tokens)
        text = self.text_projection(text_embeddings)
        if self.config.word_order:
            text = text + self.word_order * encode_order(text, self.config.hidden_size)
        text = zero_padding(text, text_mask)
        trajectory, trajectory_mask = self.trajectory_embedding(image_tokens, boxes, durations, trajectory_mask)
        last_text, last_trajectory = self.dual_context(image, text, text_mask, trajectory, trajectory_mask)
        return Context(
            dual=torch.cat((last_text, last_trajectory), dim=1),
            dual_mask=torch.cat((text_mask, trajectory_mask), dim=1),
            image=image,
            text=text,
            text_mask=text_mask,
        )

    def extract(self, context: Context) -> Tensor:
        """Reads z_s (B, subject_embedding_size) out of Z_dual."""
        subject_embedding: Tensor = self.extractor(context.dual, context.dual_mask)
        return subject_embedding

    def forward(
        self,
        image_tokens: Tensor,
        text_embeddings: Tensor,
        attention_mask: Tensor,
        boxes: Tensor,
        durations: Tensor,
        fixation_mask: Tensor,
    ) -> PersonaEncoding:
        """Encodes and extracts; the arguments are those of `encode`."""
        context = self.encode(image_tokens, text_embeddings, attention_mask, boxes, durations, fixation_mask)
        return PersonaEncoding(self.extract(context), context)

    def freeze_context(self) -> Self:
        """Freezes all but the extractor for stage 2: no gradients, and eval mode also after `train()`."""
        self._context_frozen = True
        for name, module in self.named_children():
            if name != "extractor":
                module.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all that is not frozen."""
        super().train(mode)
        if self._context_frozen:
            for name, module in self.named_children():
                if name != "extractor":
                    module.eval()
        return self
