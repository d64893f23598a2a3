"""The post-norm blocks that every part of the network is made of."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.network.config import NetworkConfig


def zero_padding(tokens: Tensor, mask: Tensor) -> Tensor:
    """Sets padded tokens to zero.

    Args:
        tokens: (B, N, D)
        mask: (B, N) bool, True for real tokens.
    """
    return tokens.masked_fill(~mask.unsqueeze(-1), 0.0)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention with a mask over the keys."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.output = nn.Linear(size, size)

    def forward(self, queries: Tensor, keys: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Attends from queries to keys.

        Args:
            queries: (B, Q, D)
            keys: (B, K, D)
            key_mask: (B, K) bool, True for real keys; None where all are real.

        Returns:
            (B, Q, D); finite also where no key is real.
        """
        q, k, v = (self._split(x) for x in (self.query(queries), self.key(keys), self.value(keys)))
        bias = None
        if key_mask is not None:
            # A finite bias: were every key at minus infinity, softmax and its gradient would be NaN. Half of the
            # smallest number leaves room for the score that is added, and still rounds the weight of padding to 0.
            bias = q.new_zeros(key_mask.shape).masked_fill(~key_mask, torch.finfo(q.dtype).min / 2)[:, None, None, :]
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
        )
        mixed: Tensor = self.output(attended.transpose(1, 2).flatten(-2))
        return mixed

    def _split(self, tokens: Tensor) -> Tensor:
        batch, length, size = tokens.shape
        return tokens.view(batch, length, self.num_heads, size // self.num_heads).transpose(1, 2)


class AttentionBlock(nn.Module):
    """LayerNorm(x + Attention(x, context)): Self(x) where the context is x itself, Cross(x, context) otherwise."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, tokens: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """(B, Q, D) tokens, (B, K, D) context, (B, K) bool mask -> (B, Q, D)."""
        mixed: Tensor = self.norm(tokens + self.dropout(self.attention(tokens, context, context_mask)))
        return mixed


class FeedForwardBlock(nn.Module):
    """LayerNorm(x + Linear(GELU(Linear(x)))), D wide throughout.

    The paper names no activation for its blocks; GELU is the one it names for the heads, so it is used everywhere.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.layers = nn.Sequential(
            nn.Linear(size, size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(size, size),
            nn.Dropout(config.dropout),
        )
        self.norm = nn.LayerNorm(size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        mixed: Tensor = self.norm(tokens + self.layers(tokens))
        return mixed


class QueryReadout(nn.Module):
    """A learned query cross-attends to the context; LayerNorm–Linear–GELU–Linear turns the answer into one vector.

    Both z_s and z_traj are read out of Z_dual in this way.
    """

    def __init__(self, config: NetworkConfig, output_size: int) -> None:
        super().__init__()
        size = config.hidden_size
        # Small, so that what the query finds and not the query itself fills the vector from the first step on.
        self.query = nn.Parameter(torch.empty(1, 1, size).normal_(std=0.02))
        self.cross_attention = AttentionBlock(config)
        self.head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size), nn.GELU(), nn.Linear(size, output_size))

    def forward(self, context: Tensor, context_mask: Tensor) -> Tensor:
        """(B, K, D) context, (B, K) bool mask -> (B, output_size)."""
        query = self.query.expand(context.shape[0], -1, -1)
        vector: Tensor = self.head(self.cross_attention(query, context, context_mask)).squeeze(1)
        return vector
