"""A long prompt through the decoder, layer after layer, with weights that stay in their file.

The decoder that writes a description has weights in blocks of 4 or 8 bits: a token reads all of them, so the fewer
bytes the better, and the arithmetic behind them is slow. A prompt with an image has hundreds of tokens at once, and
there it is the arithmetic that takes the time: products of 8-bit integers are several times as fast on processors with
instructions for them (x86 with VNNI or AMX, ARM with I8MM). Both sets of weights do not fit into the memory that small
devices have, and need not: a prompt is computed once per image. So the integers are mapped from their file, used layer
by layer, and given back to the system after each.
"""

import math
import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.errors import BundleError
from pydeper.runtime.graph import check_names
from pydeper.runtime.mapped_arrays import map_array
from pydeper.runtime.session import import_onnxruntime, open_session
from pydeper.vlm.onnx.kv_cache import InPlaceCache

_INPUTS = ("hidden", "attention_mask", "position_ids", "past_key", "past_value")
_OUTPUTS = ("hidden_out", "key", "value")


class StreamedLayers:
    """The decoder's layers as one graph whose weights are inputs, and a file of those; immutable and thread-safe."""

    def __init__(self, path: Path, config: VLMConfig, *, threads: int | None = None) -> None:
        """Opens `decoder_layers_int8.onnx`, and the array of the same name beside it.

        Raises:
            BundleError: A file is missing, damaged, or does not fit the other or `config`.
        """
        weights = path.with_suffix(".npy")
        layers = map_array(weights)
        names = layers.dtype.names or ()
        self._session = open_session(path, threads=threads)
        check_names(path, self._session, [*_INPUTS, *names], _OUTPUTS)
        if layers.shape != (config.num_layers,) or _size(layers, "input_norm") != config.hidden_size:
            raise BundleError(
                f"{weights}: must hold {config.num_layers} layers of width {config.hidden_size}, as config.json says; "
                "it is of another model"
            )
        self._layers: npt.NDArray[np.void] = layers

    def run(self, cache: InPlaceCache, embeddings: npt.NDArray[np.float32], positions: npt.NDArray[np.int64]) -> None:
        """Computes keys and values of (1, S, hidden) embeddings at (3, 1, S) positions into a cache of one row."""
        value = import_onnxruntime().OrtValue.ortvalue_from_numpy
        mask = np.ones((1, int(cache.lengths[0]) + embeddings.shape[1]), np.int64)
        hidden = value(np.ascontiguousarray(embeddings))
        fixed = {"attention_mask": value(mask), "position_ids": value(positions)}
        for i in range(len(self._layers)):
            key, values = (value(buffer) for buffer in cache.buffers[2 * i : 2 * i + 2])
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("hidden", hidden)
            for name, array in fixed.items():
                binding.bind_ortvalue_input(name, array)
            binding.bind_ortvalue_input("past_key", key)
            binding.bind_ortvalue_input("past_value", values)
            for name in self._layers.dtype.names or ():
                # Field by field: a single record would be copied out of the file.
                binding.bind_ortvalue_input(name, value(np.asarray(self._layers[name][i])))
            binding.bind_output("hidden_out", "cpu")
            binding.bind_ortvalue_output("key", key)
            binding.bind_ortvalue_output("value", values)
            self._session.run_with_iobinding(binding)
            hidden = binding.get_outputs()[0]
            self._give_back(i)

    def _give_back(self, layer: int) -> None:
        """Lets the system have the layer's memory again; the file is still there."""
        file = self._layers.base
        if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            size = self._layers.dtype.itemsize
            start = self._layers.ctypes.data - np.frombuffer(file, np.uint8).ctypes.data + layer * size
            page = start // mmap.PAGESIZE * mmap.PAGESIZE
            file.madvise(mmap.MADV_DONTNEED, page, start + size - page)


def _size(layers: npt.NDArray[np.void], name: str) -> int:
    """How many numbers a layer has by this name; 0 where there are none."""
    return math.prod(layers.dtype[name].shape) if name in (layers.dtype.names or ()) else 0
