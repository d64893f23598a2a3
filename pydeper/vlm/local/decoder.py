"""What a decoder is to the rest of the VLM, whichever runtime computes it: tokens extend a cache of keys and values."""

from pathlib import Path
from typing import Any, Protocol, Self

import attrs
import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.runtime.graph import Session, check_names, check_shape

Array = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float32]


@attrs.frozen(eq=False)
class Prefix:
    """Keys and values of the first tokens of a row, ready to be continued by any number of rows.

    Attributes:
        layers: Keys and values, layer by layer, each (1, kv_heads, length, head_dim).
        next_position: Number of the next token on all three rotary axes.
    """

    layers: tuple[Array, ...]
    next_position: int

    @property
    def length(self) -> int:
        """Tokens so far."""
        return int(self.layers[0].shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(layer.nbytes for layer in self.layers)

    def cut(self, length: int, next_position: int) -> "Prefix":
        """Returns the state after the first `length` tokens; it shares memory with this one."""
        return Prefix(tuple(layer[:, :, :length] for layer in self.layers), next_position)


class KVCache(Protocol):
    """Keys and values of some rows, that grow from step to step.

    Attributes:
        lengths: (rows,) tokens of each row so far.
        positions: (rows,) number of each row's next token on all three rotary axes.
    """

    lengths: npt.NDArray[np.int64]
    positions: npt.NDArray[np.int64]

    def joins(self, other: Self) -> bool:
        """Whether the rows of another cache of this kind can be added."""

    def join(self, other: Self) -> None:
        """Adds the rows of another cache, which is not used any more."""

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Drops the other rows."""

    def prefix(self, length: int, next_position: int) -> Prefix:
        """Returns a copy of the first tokens of the first row."""


class Decoder(Protocol):
    """The VLM's decoder: embeddings in, logits of the next token out, keys and values kept between; thread-safe."""

    @property
    def empty(self) -> Prefix:
        """The state before the first token."""

    def start(self, prefix: Prefix, room: int) -> KVCache:
        """Makes a cache with one row that begins with a prefix.

        Args:
            prefix: What the row begins with.
            room: Tokens that will be added to it at most.
        """

    def extend(self, cache: Any, embeddings: Floats, positions: npt.NDArray[np.int64] | None = None) -> Floats:
        """Adds tokens to every row.

        Args:
            cache: What `start` of this decoder made.
            embeddings: (rows, S, hidden); S is 1 where there are several rows.
            positions: (3, S + 1) rotary positions of the tokens, and the number of the one that will follow; None
                counts on from each row's last.

        Returns:
            (rows, V) logits of the token after the last.
        """

    def report(self) -> dict[str, str]:
        """Facts about how it computes, for people: name -> value."""


def token_positions(
    cache: KVCache, embeddings: Floats, positions: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64]:
    """Returns the rotary positions of tokens that `Decoder.extend` adds: (3, rows, S), contiguous."""
    rows, length, _ = embeddings.shape
    numbers = cache.positions[:, None] + np.arange(length) if positions is None else positions[:, None, :length]
    return np.ascontiguousarray(np.broadcast_to(numbers, (3, rows, length)))


def cache_names(layers: int) -> tuple[list[str], list[str]]:
    """Returns what graphs call the keys and values of so many layers: those that go in, and those that come out."""
    names = [f"{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    return [f"past_key_values.{name}" for name in names], [f"present.{name}" for name in names]


def check_decoder(path: Path, session: Session, config: VLMConfig) -> None:
    """Refuses a graph that is not a decoder of the sizes in `config`.

    Raises:
        BundleError: An input or output is missing, unknown, or of another shape.
    """
    past, present = cache_names(config.num_layers)
    check_names(path, session, ["inputs_embeds", "attention_mask", "position_ids", *past], ["logits", *present])
    cache_shape = (None, config.num_key_value_heads, None, config.head_dim)
    check_shape(path, session, "inputs_embeds", (None, None, config.hidden_size), "vlm.hidden_size")
    check_shape(path, session, past[0], cache_shape, "vlm.num_key_value_heads, vlm.head_dim")


def empty_prefix(config: VLMConfig, element: type[np.floating[Any]]) -> Prefix:
    """Returns the state before the first token."""
    shape = (1, config.num_key_value_heads, 0, config.head_dim)
    return Prefix(tuple(np.empty(shape, element) for _ in range(2 * config.num_layers)), 0)
