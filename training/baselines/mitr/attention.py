"""Multi-head attention of MITR, over whole texts in training and one position at a time in decoding."""

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KeyValueCache: TypeAlias = dict[nn.Module, tuple[Tensor, Tensor]]
"""Keys and values (B, heads, length, d / heads) that an attention has computed so far, by that attention."""


class Attention(nn.Module):
    """Pre-norm multi-head attention with its residual: x + Dropout(Attention(LayerNorm(x), context)).

    Args:
        size: d, a multiple of `num_heads`.
        num_heads: Attention heads.
        dropout: Of the attention weights and of the output.
        causal: Position i sees the context's positions up to i, which are as many as the queries'; else all of them.
    """

    def __init__(self, size: int, num_heads: int, dropout: float, *, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.norm = nn.LayerNorm(size)
        self.query, self.key, self.value, self.output = (nn.Linear(size, size) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, context: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """Attends from tokens to a context.

        Args:
            tokens: (B, T, d)
            context: (B, S, d); None: LayerNorm(tokens), for self-attention.
            cache: Of a text that is being decoded. `tokens` is then its newest position alone (T = 1). A causal
                attention takes the context's newest position too and remembers the earlier ones; any other attention
                has the same context at every step, and reads it in the first alone.

        Returns:
            (B, T, d)
        """
        normed = self.norm(tokens)
        queries = self._split(self.query(normed))
        keys, values = self._keys_and_values(normed if context is None else context, cache)
        attended = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            is_causal=self.causal and cache is None,  # the newest position sees all that is in the cache
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        mixed: Tensor = tokens + self.dropout(self.output(attended.transpose(1, 2).flatten(-2)))
        return mixed

    def _keys_and_values(self, context: Tensor, cache: KeyValueCache | None) -> tuple[Tensor, Tensor]:
        if cache is not None and self in cache and not self.causal:
            return cache[self]
        keys, values = self._split(self.key(context)), self._split(self.value(context))
        if cache is not None:
            if self in cache:
                keys, values = (torch.cat(pair, dim=2) for pair in zip(cache[self], (keys, values), strict=True))
            cache[self] = keys, values
        return keys, values

    def _split(self, tokens: Tensor) -> Tensor:
        batch, length, size = tokens.shape
        return tokens.view(batch, length, self.num_heads, size // self.num_heads).transpose(1, 2)


class FeedForward(nn.Module):
    """Pre-norm feed-forward with its residual: x + Dropout(Linear(Dropout(ReLU(Linear(LayerNorm(x))))))."""

    def __init__(self, size: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(size),
            nn.Linear(size, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, size),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        mixed: Tensor = tokens + self.layers(tokens)
        return mixed
