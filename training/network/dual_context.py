"""The dual-context encoder: what was said and how it was looked at, each read in the light of the other."""

import torch
from torch import Tensor, nn

from training.network.blocks import AttentionBlock, FeedForwardBlock, zero_padding
from training.network.config import NetworkConfig


class StreamLayer(nn.Module):
    """One stream's half of a layer: FFN(Cross(Self(x), [V; other stream]))."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.self_attention = AttentionBlock(config)
        self.cross_attention = AttentionBlock(config)
        self.feed_forward = FeedForwardBlock(config)

    def forward(self, tokens: Tensor, mask: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """(B, N, D) tokens and (B, K, D) context with their bool masks -> (B, N, D), padding zeroed."""
        tokens = self.self_attention(tokens, tokens, mask)
        tokens = self.cross_attention(tokens, context, context_mask)
        return zero_padding(self.feed_forward(tokens), mask)


class DualContextLayer(nn.Module):
    """Both streams, in parallel: each sees the other as it was before the layer.

    T_{l+1} = FFN(Cross(Self(T_l), [V; L_l])),  L_{l+1} = FFN(Cross(Self(L_l), [V; T_l]))

    Without `dual_context` the context of both is V.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.dual_context = config.dual_context
        self.text = StreamLayer(config)
        self.trajectory = StreamLayer(config)

    def forward(
        self, image: Tensor, text: Tensor, text_mask: Tensor, trajectory: Tensor, trajectory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, N, D) V, (B, L, D) L_l, (B, M, D) T_l and the streams' bool masks -> L_{l+1}, T_{l+1}."""
        every = text_mask.new_ones(image.shape[:2])
        if not self.dual_context:
            return self.text(text, text_mask, image, every), self.trajectory(trajectory, trajectory_mask, image, every)
        with_text = torch.cat((image, text), dim=1), torch.cat((every, text_mask), dim=1)
        with_trajectory = torch.cat((image, trajectory), dim=1), torch.cat((every, trajectory_mask), dim=1)
        return (
            self.text(text, text_mask, *with_trajectory),
            self.trajectory(trajectory, trajectory_mask, *with_text),
        )


class DualContextEncoder(nn.Module):
    """All layers; returns the two streams after the last one, of which Z_dual = [L'; T'] is made."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DualContextLayer(config) for _ in range(config.encoder_layers))

    def forward(
        self, image: Tensor, text: Tensor, text_mask: Tensor, trajectory: Tensor, trajectory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, N, D) V, (B, L, D) L_0, (B, M, D) T_0 and the streams' bool masks -> (B, L, D) L', (B, M, D) T'."""
        for layer in self.layers:
            text, trajectory = layer(image, text, text_mask, trajectory, trajectory_mask)
        return text, trajectory
