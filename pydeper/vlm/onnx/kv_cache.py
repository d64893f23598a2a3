"""The decoder's keys and values in memory that ONNX Runtime reads and writes."""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pydeper.runtime.session import import_onnxruntime
from pydeper.vlm.local.decoder import Array, KVCache, Prefix


class BoundCache(KVCache, Protocol):
    """A cache that lends its memory to a session of ONNX Runtime."""

    def bind(self, binding: Any, past: Sequence[str], present: Sequence[str]) -> None:
        """Binds the decoder's inputs and outputs of keys and values."""

    def advance(self, binding: Any, tokens: int) -> None:
        """Takes over what a run wrote: so many tokens more in every row."""


class InPlaceCache:
    """Buffers with room for all that will come, into which the decoder writes: nothing is copied from step to step.

    For decoders that take one buffer as past and as present. Rows may differ in length.
    """

    def __init__(self, prefix: Prefix, room: int) -> None:
        """Makes one row that begins with a prefix, with room for so many tokens more."""
        self.lengths = np.array([prefix.length], np.int64)
        self.positions = np.array([prefix.next_position], np.int64)
        self._allocated = [
            # Memory that is never written to is never taken: room for a long description costs nothing by itself.
            np.empty((1, layer.shape[1], prefix.length + room, layer.shape[3]), layer.dtype)
            for layer in prefix.layers
        ]
        for buffer, layer in zip(self._allocated, prefix.layers, strict=True):
            buffer[:, :, : prefix.length] = layer
        self._use(1)

    def _use(self, rows: int) -> None:
        self._buffers = [buffer[:rows] for buffer in self._allocated]
        self._values = _on_cpu(self._buffers)

    @property
    def buffers(self) -> list[Array]:
        """Keys and values, layer by layer, each (rows, kv_heads, capacity, head_dim)."""
        return self._buffers

    def bind(self, binding: Any, past: Sequence[str], present: Sequence[str]) -> None:
        """See `BoundCache`."""
        for name, value in zip(past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name, value in zip(present, self._values, strict=True):
            binding.bind_ortvalue_output(name, value)

    def advance(self, binding: Any, tokens: int) -> None:
        """See `BoundCache`."""
        self.lengths += tokens
        self.positions += tokens

    def joins(self, other: "InPlaceCache") -> bool:
        """See `KVCache`; rows of any length can."""
        return True

    def join(self, other: "InPlaceCache") -> None:
        """See `KVCache`; the buffers grow by doubling, so a row is copied a few times at most."""
        kept, rows = len(self.lengths), len(self.lengths) + len(other.lengths)
        allocated, _, capacity, _ = self._allocated[0].shape
        needed = max(capacity, other._allocated[0].shape[2])
        if rows > allocated or needed > capacity:
            allocated = allocated if rows <= allocated else max(rows, 2 * allocated)
            for place, buffer in enumerate(self._allocated):  # one at a time: no second set of buffers is needed
                self._allocated[place] = np.empty((allocated, buffer.shape[1], needed, buffer.shape[3]), buffer.dtype)
                _copy_rows(buffer, self.lengths, self._allocated[place])
        for theirs, mine in zip(other._buffers, self._allocated, strict=True):
            _copy_rows(theirs, other.lengths, mine[kept:])
        self.lengths = np.concatenate([self.lengths, other.lengths])
        self.positions = np.concatenate([self.positions, other.positions])
        self._use(rows)

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """See `KVCache`; rows move to the front of their buffers, so that no second set of buffers is needed."""
        for place, row in enumerate(np.flatnonzero(rows)):
            if place != row:
                for buffer in self._buffers:
                    buffer[place, :, : self.lengths[row]] = buffer[row, :, : self.lengths[row]]
        self.lengths, self.positions = self.lengths[rows], self.positions[rows]
        self._use(len(self.lengths))

    def prefix(self, length: int, next_position: int) -> Prefix:
        """See `KVCache`."""
        return Prefix(tuple(buffer[:1, :, :length].copy() for buffer in self._buffers), next_position)


class GrowingCache:
    """Keys and values that the decoder gives back, longer by what it was fed: they stay where it put them.

    For decoders of any kind, on any device. All rows must be of one length.
    """

    def __init__(self, prefix: Prefix, device: str = "cpu") -> None:
        """Makes one row that begins with a prefix, on a device ("cpu" or "cuda")."""
        self.lengths = np.array([prefix.length], np.int64)
        self.positions = np.array([prefix.next_position], np.int64)
        self._device = device
        self._set(prefix.layers)

    def _set(self, arrays: Sequence[Array]) -> None:
        self._values = [_ort_value()(np.ascontiguousarray(array), self._device, 0) for array in arrays]

    def bind(self, binding: Any, past: Sequence[str], present: Sequence[str]) -> None:
        """See `BoundCache`."""
        for name, value in zip(past, self._values, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in present:
            binding.bind_output(name, self._device)

    def advance(self, binding: Any, tokens: int) -> None:
        """See `BoundCache`; keys and values are the last of the outputs."""
        self._values = binding.get_outputs()[-len(self._values) :]
        self.lengths += tokens
        self.positions += tokens

    def joins(self, other: "GrowingCache") -> bool:
        """See `KVCache`; rows of the same length can."""
        return bool(self.lengths[0] == other.lengths[0])

    def join(self, other: "GrowingCache") -> None:
        """See `KVCache`."""
        pairs = zip(self._values, other._values, strict=True)
        self._set([np.concatenate([mine.numpy(), theirs.numpy()]) for mine, theirs in pairs])
        self.lengths = np.concatenate([self.lengths, other.lengths])
        self.positions = np.concatenate([self.positions, other.positions])

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """See `KVCache`."""
        self._set([value.numpy()[rows] for value in self._values])
        self.lengths, self.positions = self.lengths[rows], self.positions[rows]

    def prefix(self, length: int, next_position: int) -> Prefix:
        """See `KVCache`."""
        return Prefix(tuple(value.numpy()[:1, :, :length].copy() for value in self._values), next_position)


def _copy_rows(rows: Array, lengths: npt.NDArray[np.int64], into: Array) -> None:
    """Copies the tokens that there are of each row."""
    for row, length in enumerate(lengths):
        into[row, :, :length] = rows[row, :, :length]


def _on_cpu(buffers: Sequence[Array]) -> list[Any]:
    # Of an array in the computer's memory ONNX Runtime makes a view, not a copy.
    return [_ort_value()(buffer) for buffer in buffers]


@functools.cache
def _ort_value() -> Any:
    return import_onnxruntime().OrtValue.ortvalue_from_numpy
