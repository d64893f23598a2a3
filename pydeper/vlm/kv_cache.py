"""The decoder's keys and values: a prefix that any number of rows share, and the cache that rows write into."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import attrs
import numpy as np
import numpy.typing as npt

from pydeper.runtime.session import import_onnxruntime

Array = npt.NDArray[np.floating[Any]]


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

    def bind(self, binding: Any, past: Sequence[str], present: Sequence[str]) -> None:
        """Binds the decoder's inputs and outputs of keys and values."""

    def advance(self, binding: Any, tokens: int) -> None:
        """Takes over what a run wrote: so many tokens more in every row."""

    def rows_apart(self) -> Iterator["KVCache"]:
        """Yields a cache of one row for every row; what is written into them is this cache's once all have ended."""

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Drops the other rows."""

    def prefix(self, length: int, next_position: int) -> Prefix:
        """Returns a copy of the first tokens of the first row."""


class InPlaceCache:
    """Buffers with room for all that will come, into which the decoder writes: nothing is copied from step to step.

    For decoders that take one buffer as past and as present. Rows may differ in length.
    """

    def __init__(self, prefixes: Sequence[Prefix], room: int) -> None:
        """Makes a row of each prefix, with room for so many tokens more."""
        self.lengths = np.array([prefix.length for prefix in prefixes], np.int64)
        self.positions = np.array([prefix.next_position for prefix in prefixes], np.int64)
        capacity = int(self.lengths.max()) + room
        self._buffers = []
        for layers in zip(*(prefix.layers for prefix in prefixes), strict=True):
            _, heads, _, width = layers[0].shape
            # Memory that is never written to is never taken: room for a long description costs nothing by itself.
            buffer = np.empty((len(prefixes), heads, capacity, width), layers[0].dtype)
            for row, layer in zip(buffer, layers, strict=True):
                row[:, : layer.shape[2]] = layer[0]
            self._buffers.append(buffer)
        self._values = _on_cpu(self._buffers)

    @classmethod
    def _view(cls, whole: Self, row: int) -> Self:
        view = cls.__new__(cls)
        view.lengths, view.positions = whole.lengths[row : row + 1], whole.positions[row : row + 1]
        view._buffers = [buffer[row : row + 1] for buffer in whole._buffers]
        view._values = _on_cpu(view._buffers)
        return view

    @property
    def buffers(self) -> list[Array]:
        """Keys and values, layer by layer, each (rows, kv_heads, capacity, head_dim)."""
        return self._buffers

    def bind(self, binding: Any, past: Sequence[str], present: Sequence[str]) -> None:
        """See `KVCache`."""
        for name, value in zip(past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(present, self._values, strict=True):
            binding.bind_ortvalue_output(name, value)

    def advance(self, binding: Any, tokens: int) -> None:
        """See `KVCache`."""
        self.lengths += tokens
        self.positions += tokens

    def rows_apart(self) -> "Iterator[InPlaceCache]":
        """See `KVCache`."""
        for row in range(len(self.lengths)):
            yield self._view(self, row)

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """See `KVCache`; rows move to the front of their buffers, so that no second set of buffers is needed."""
        for place, row in enumerate(np.flatnonzero(rows)):
            if place != row:
                for buffer in self._buffers:
                    buffer[place, :, : self.lengths[row]] = buffer[row, :, : self.lengths[row]]
        self.lengths, self.positions = self.lengths[rows], self.positions[rows]
        self._buffers = [buffer[: len(self.lengths)] for buffer in self._buffers]
        self._values = _on_cpu(self._buffers)

    def prefix(self, length: int, next_position: int) -> Prefix:
        """See `KVCache`."""
        return Prefix(tuple(buffer[:1, :, :length].copy() for buffer in self._buffers), next_position)


class GrowingCache:
    """Keys and values that the decoder gives back, longer by what it was fed: they stay where it put them.

    For decoders of any kind, on any device. All rows must be of one length.
    """

    def __init__(self, prefixes: Sequence[Prefix], device: str = "cpu") -> None:
        """Makes a row of each prefix, on a device ("cpu" or "cuda")."""
        self.lengths = np.array([prefix.length for prefix in prefixes], np.int64)
        self.positions = np.array([prefix.next_position for prefix in prefixes], np.int64)
        self._device = device
        self._set([np.concatenate(layers) for layers in zip(*(prefix.layers for prefix in prefixes), strict=True)])

    def _set(self, arrays: Sequence[Array]) -> None:
        self._values = [_ort_value()(np.ascontiguousarray(array), self._device, 0) for array in arrays]

    def bind(self, binding: Any, past: Sequence[str], present: Sequence[str]) -> None:
        """See `KVCache`."""
        for name, value in zip(past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in present:
            binding.bind_output(name, self._device)

    def advance(self, binding: Any, tokens: int) -> None:
        """See `KVCache`; keys and values are the last of the outputs."""
        self._values = binding.get_outputs()[-len(self._values) :]
        self.lengths += tokens
        self.positions += tokens

    def rows_apart(self) -> "Iterator[GrowingCache]":
        """See `KVCache`."""
        if len(self.lengths) == 1:
            yield self
            return
        whole = [value.numpy() for value in self._values]
        rows = []
        for row in range(len(self.lengths)):
            layers = tuple(layer[row : row + 1] for layer in whole)
            rows.append(GrowingCache([Prefix(layers, int(self.positions[row]))], self._device))
            yield rows[-1]
        layers_of_rows = zip(*(row._values for row in rows), strict=True)
        self._set([np.concatenate([value.numpy() for value in layer]) for layer in layers_of_rows])
        self.lengths = np.concatenate([row.lengths for row in rows])
        self.positions = np.concatenate([row.positions for row in rows])

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """See `KVCache`."""
        self._set([value.numpy()[rows] for value in self._values])
        self.lengths, self.positions = self.lengths[rows], self.positions[rows]

    def prefix(self, length: int, next_position: int) -> Prefix:
        """See `KVCache`."""
        return Prefix(tuple(value.numpy()[:1, :, :length].copy() for value in self._values), next_position)


def _on_cpu(buffers: Sequence[Array]) -> list[Any]:
    # Of an array in the computer's memory ONNX Runtime makes a view, not a copy.
    return [_ort_value()(buffer) for buffer in buffers]


@functools.cache
def _ort_value() -> Any:
    return import_onnxruntime().OrtValue.ortvalue_from_numpy
