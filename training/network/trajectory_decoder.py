"""The trajectory decoder: how a subject looks at an image, drawn from z_s and the image's own latent z_traj."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.network.blocks import AttentionBlock, FeedForwardBlock, QueryReadout
from training.network.config import NetworkConfig
from training.network.film import FiLM
from training.network.persona_encoder import Context


class DecodedTrajectories(NamedTuple):
    """Trajectories as the decoder draws them.

    Attributes:
        boxes: (B, M, 4) corners x1 ≤ x2, y1 ≤ y2 in [0, 1].
        validity_logits: (B, M); above 0 where the slot holds a fixation.
    """

    boxes: Tensor
    validity_logits: Tensor


class TrajectoryDecoderLayer(nn.Module):
    """Q ← Cross(Self(Q), z_traj);  Q ← Cross(Q, [V; L_0]);  Q ← FFN(FiLM(Q, z_s)), without `film` FFN(Q)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.self_attention = AttentionBlock(config)
        self.latent_attention = AttentionBlock(config)
        self.context_attention = AttentionBlock(config)
        self.film = FiLM(config) if config.film else None
        self.feed_forward = FeedForwardBlock(config)

    def forward(
        self, queries: Tensor, latent: Tensor, context: Tensor, context_mask: Tensor, subject_embedding: Tensor
    ) -> Tensor:
        """(B, M, D) Q, (B, 1, D) z_traj, (B, K, D) [V; L_0] with its bool mask, (B, S) z_s -> (B, M, D) Q."""
        queries = self.latent_attention(self.self_attention(queries, queries), latent)
        queries = self.context_attention(queries, context, context_mask)
        if self.film is not None:
            queries = self.film(queries, subject_embedding)
        decoded: Tensor = self.feed_forward(queries)
        return decoded


class TrajectoryDecoder(nn.Module):
    """z_traj is read out of Z_dual; M box queries become boxes and validity logits.

    Without `trajectory_latent` a linear map of z_s, which need not be D wide, stands for z_traj.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.latent = QueryReadout(config, config.hidden_size) if config.trajectory_latent else None
        if not config.trajectory_latent:
            self.from_subject = nn.Linear(config.subject_embedding_size, config.hidden_size)
        # Unit variance sets the slots apart from the start: z_traj, added to all of them, is the same for each.
        self.box_queries = nn.Parameter(torch.randn(1, config.max_fixations, config.hidden_size))
        self.layers = nn.ModuleList(TrajectoryDecoderLayer(config) for _ in range(config.decoder_layers))
        self.head = nn.Linear(config.hidden_size, 5)

    def forward(self, subject_embedding: Tensor, context: Context) -> DecodedTrajectories:
        """Draws the trajectory of the subject on the context's image.

        Args:
            subject_embedding: (B, subject_embedding_size) z_s; another sample's or a persona's works as well.
            context: What `PersonaEncoder.encode` returns.
        """
        latent = self._latent(subject_embedding, context).unsqueeze(1)
        every = context.text_mask.new_ones(context.image.shape[:2])
        memory = torch.cat((context.image, context.text), dim=1)
        memory_mask = torch.cat((every, context.text_mask), dim=1)
        queries = self.box_queries + latent
        for layer in self.layers:
            queries = layer(queries, latent, memory, memory_mask, subject_embedding)
        numbers = self.head(queries)
        corners = numbers[..., :4].sigmoid().unflatten(-1, (2, 2))  # (B, M, corner, xy)
        boxes = torch.cat((corners.amin(-2), corners.amax(-2)), dim=-1)
        return DecodedTrajectories(boxes, numbers[..., 4])

    def _latent(self, subject_embedding: Tensor, context: Context) -> Tensor:
        """(B, D) z_traj, or what stands for it."""
        latent: Tensor
        if self.latent is None:
            latent = self.from_subject(subject_embedding)
        else:
            latent = self.latent(context.dual, context.dual_mask)
        return latent
