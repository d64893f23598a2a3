"""The VLM's decoder on ONNX Runtime: embeddings in, logits of the next token out, keys and values kept between."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.bundle.vlm_files import VLMFiles
from pydeper.runtime.graph import element_type
from pydeper.runtime.session import open_session
from pydeper.vlm.local.decoder import Floats, Prefix, cache_names, check_decoder, empty_prefix, token_positions
from pydeper.vlm.onnx.kv_cache import BoundCache, GrowingCache, InPlaceCache
from pydeper.vlm.onnx.prefill import StreamedLayers

KV_CACHE, IN_PLACE = "pydeper.kv_cache", "in place"
"""Key and value in a decoder file's metadata: one buffer may be given as past and as present."""

# From so many tokens on the streamed layers win over 4-bit weights, whose time grows with every token.
_STREAM_FROM = 24


class Decoder:
    """A decoder in any of the forms that `pydeper.bundle.vlm_files` finds; immutable and thread-safe.

    What the file takes and gives is read from the file: the type of embeddings, cache and logits, whether logits are
    of the last position or of all, and whether the cache is written in place.
    """

    def __init__(self, files: VLMFiles, config: VLMConfig, *, providers: Sequence[str], threads: int | None) -> None:
        """Opens the decoder, and the layers for long prompts where there are any.

        Raises:
            BundleError: A file is missing, damaged, or not a decoder of the sizes in `config`.
        """
        self._config = config
        self._session = open_session(files.decoder, providers=providers, threads=threads)
        check_decoder(files.decoder, self._session, config)
        self._past, self._present = cache_names(config.num_layers)
        self._embeds_type = element_type(self._session, "inputs_embeds")
        self._cache_type = element_type(self._session, self._past[0])
        self._on_cuda = "CUDAExecutionProvider" in self._session.get_providers()
        properties = self._session.get_modelmeta().custom_metadata_map
        self.in_place = properties.get(KV_CACHE) == IN_PLACE and not self._on_cuda
        self._layers, self._long_prompts = None, "by the decoder"
        if files.prefill is not None and self.in_place and self._cache_type == np.float32:
            self._layers = StreamedLayers(files.prefill, config, threads=threads)
            self._long_prompts = files.prefill.name

    @property
    def streams(self) -> bool:
        """Whether long prompts go through layers of their own."""
        return self._layers is not None

    def report(self) -> dict[str, str]:
        """Facts about how it computes, for people: name -> value."""
        return {
            "long prompts": self._long_prompts,
            "key/value cache": "written in place" if self.in_place else "grows step by step",
        }

    @property
    def empty(self) -> Prefix:
        """The state before the first token."""
        return empty_prefix(self._config, self._cache_type)

    def start(self, prefix: Prefix, room: int) -> BoundCache:
        """Makes a cache with one row that begins with a prefix.

        Args:
            prefix: What the row begins with.
            room: Tokens that will be added to it at most.
        """
        if self.in_place:
            return InPlaceCache(prefix, room)
        return GrowingCache(prefix, "cuda" if self._on_cuda else "cpu")

    def extend(self, cache: BoundCache, embeddings: Floats, positions: npt.NDArray[np.int64] | None = None) -> Floats:
        """Adds tokens to every row.

        Args:
            cache: What `start` made.
            embeddings: (rows, S, hidden); S is 1 where there are several rows, since attention over several rows
                takes one token at a time (GroupQueryAttention).
            positions: (3, S + 1) rotary positions of the tokens, and the number of the one that will follow; None
                counts on from each row's last.

        Returns:
            (rows, V) logits of the token after the last.
        """
        if self._layers is not None and embeddings.shape[1] >= _STREAM_FROM:
            assert isinstance(cache, InPlaceCache)
            split = embeddings.shape[1] - 1
            self._layers.run(cache, embeddings[:, :split], token_positions(cache, embeddings[:, :split], positions))
            cache.advance(None, split)
            if positions is not None:
                cache.positions[:] = positions[0, split]
            embeddings, positions = embeddings[:, split:], None
        return self._run(cache, embeddings, positions)

    def _run(self, cache: BoundCache, embeddings: Floats, positions: npt.NDArray[np.int64] | None) -> Floats:
        length = embeddings.shape[1]
        binding = self._session.io_binding()
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(embeddings, self._embeds_type))
        binding.bind_cpu_input("attention_mask", attention_mask(cache.lengths + length))
        binding.bind_cpu_input("position_ids", token_positions(cache, embeddings, positions))
        binding.bind_output("logits", "cpu")
        cache.bind(binding, self._past, self._present)
        self._session.run_with_iobinding(binding)
        cache.advance(binding, length)
        if positions is not None:
            cache.positions[:] = positions[0, -1]
        return np.asarray(binding.get_outputs()[0].numpy()[:, -1], np.float32)


def attention_mask(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(rows, longest) int64: ones for a row's tokens, then zeros."""
    return (np.arange(int(lengths.max())) < lengths[:, None]).astype(np.int64)
