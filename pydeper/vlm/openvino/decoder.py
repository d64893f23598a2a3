"""The VLM's decoder on OpenVINO: keys and values go in and out of the graph as arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.bundle.vlm_files import VLMFiles
from pydeper.errors import BundleError
from pydeper.runtime.graph import element_type
from pydeper.runtime.openvino.session import open_openvino_session
from pydeper.vlm.local.decoder import Floats, Prefix, cache_names, check_decoder, empty_prefix, token_positions
from pydeper.vlm.openvino.kv_cache import PaddedCache


class OpenVINODecoder:
    """A `pydeper.vlm.local.decoder.Decoder` on OpenVINO; immutable and thread-safe.

    It reads the files that ONNX Runtime reads, but for those for long prompts, and the language model that Optimum
    exports.
    """

    def __init__(self, files: VLMFiles, config: VLMConfig, *, device: str, threads: int | None) -> None:
        """Opens the decoder.

        Raises:
            BundleError: The file is missing, damaged, not a decoder of the sizes in `config`, or not one that OpenVINO
                can run, or of another precision than `files` says.
        """
        self._config = config
        self._session = open_openvino_session(
            files.decoder, device=device, threads=threads, prepare=compute_last_logits_alone
        )
        if self._session.precision not in (None, files.precision):
            raise BundleError(
                f"{files.decoder}: its weights are in {self._session.precision}, not in {files.precision}: ask for "
                f"that precision, say so in config.json (vlm.precision), or export the VLM in {files.precision}"
            )
        check_decoder(files.decoder, self._session, config)
        self._past, self._present = cache_names(config.num_layers)
        self._embeds_type = element_type(self._session, "inputs_embeds")
        self._cache_type = element_type(self._session, self._past[0])

    def report(self) -> dict[str, str]:
        """Facts about how it computes, for people: name -> value."""
        return {"long prompts": "by the decoder", "key/value cache": "grows step by step"}

    @property
    def empty(self) -> Prefix:
        """The state before the first token."""
        return empty_prefix(self._config, self._cache_type)

    def start(self, prefix: Prefix, room: int) -> PaddedCache:
        """See `Decoder`; memory is taken step by step, whatever the room."""
        return PaddedCache(prefix)

    def extend(self, cache: PaddedCache, embeddings: Floats, positions: npt.NDArray[np.int64] | None = None) -> Floats:
        """See `Decoder`; here S may be any number for several rows, too."""
        rows, length, _ = embeddings.shape
        total = cache.longest + length
        present = [np.empty((rows, *layer.shape[1:2], total, layer.shape[3]), layer.dtype) for layer in cache.layers]
        feeds = {
            "inputs_embeds": np.asarray(embeddings, self._embeds_type),
            "attention_mask": attention_mask(cache.lengths + length),
            "position_ids": token_positions(cache, embeddings, positions),
            **dict(zip(self._past, cache.layers, strict=True)),
        }
        (logits,) = self._session.run(["logits"], feeds, into=dict(zip(self._present, present, strict=True)))
        cache.advance(present, length)
        if positions is not None:
            cache.positions[:] = positions[0, -1]
        return np.asarray(logits[:, -1], np.float32)


def attention_mask(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(rows, longest) int64: zeros, then ones for a row's tokens."""
    longest = int(lengths.max())
    return (np.arange(longest) >= longest - lengths[:, None]).astype(np.int64)


def compute_last_logits_alone(model: Any) -> None:
    """Has an `openvino.Model` compute the logits of the last token of each row alone.

    Published decoders and Optimum's compute those of every token of a prompt. A model whose logits are not the product
    of a matrix and hidden states (B, S, hidden) stays as it is.
    """
    from openvino import opset15 as op

    logits = next((output.get_node() for output in model.outputs if "logits" in output.get_names()), None)
    product = logits.input_value(0).get_node() if logits else None
    if product is None or product.get_type_name() != "MatMul":
        return
    hidden = product.input_value(0)
    if hidden.get_partial_shape().rank.is_dynamic or hidden.get_partial_shape().rank.get_length() != 3:
        return
    one = np.array([1], np.int64)
    last = op.slice(hidden, -one, one * np.iinfo(np.int64).max, one, one)
    product.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()
