"""The decoder's keys and values where a graph takes all rows' in one array: shorter rows are padded on the left."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pydeper.vlm.local.decoder import Array, Prefix


class PaddedCache:
    """Keys and values of rows of any lengths, which end together: what a run adds comes at the end of every row.

    Attributes:
        lengths: (rows,) tokens of each row so far.
        positions: (rows,) number of each row's next token on all three rotary axes.
        layers: Keys and values, layer by layer, each (rows, kv_heads, longest, head_dim); zeros before a row's tokens.
    """

    def __init__(self, prefix: Prefix) -> None:
        """Makes one row that begins with a prefix."""
        self.lengths = np.array([prefix.length], np.int64)
        self.positions = np.array([prefix.next_position], np.int64)
        self.layers: Sequence[Array] = prefix.layers

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max())

    def advance(self, layers: Sequence[Array], tokens: int) -> None:
        """Takes over what a run gave back: so many tokens more in every row."""
        self.layers = layers
        self.lengths += tokens
        self.positions += tokens

    def joins(self, other: "PaddedCache") -> bool:
        """See `KVCache`; rows of any length can."""
        return True

    def join(self, other: "PaddedCache") -> None:
        """See `KVCache`."""
        longest = max(self.longest, other.longest)
        pairs = zip(self.layers, other.layers, strict=True)
        self.layers = [np.concatenate([_padded(mine, longest), _padded(theirs, longest)]) for mine, theirs in pairs]
        self.lengths = np.concatenate([self.lengths, other.lengths])
        self.positions = np.concatenate([self.positions, other.positions])

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """See `KVCache`; padding that no row needs any more goes as well."""
        before = self.longest
        self.lengths, self.positions = self.lengths[rows], self.positions[rows]
        self.layers = [layer[rows, :, before - self.longest :] for layer in self.layers]

    def prefix(self, length: int, next_position: int) -> Prefix:
        """See `KVCache`."""
        start = self.longest - int(self.lengths[0])
        return Prefix(tuple(layer[:1, :, start : start + length].copy() for layer in self.layers), next_position)


def _padded(layer: Array, length: int) -> Array:
    return np.pad(layer, ((0, 0), (0, 0), (length - layer.shape[2], 0), (0, 0)))
