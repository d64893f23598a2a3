"""Samples to subject embeddings: the persona encoder (DEPER without its trajectory decoder) on ONNX Runtime."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pydeper.bundle.config import PersonaEncoderConfig
from pydeper.errors import InvalidArgumentError, InvalidImageError, InvalidSampleError
from pydeper.persona.preprocess import EncodedSample, collate, encode_sample
from pydeper.runtime.session import CPU, check_names, check_shape, open_session
from pydeper.samples.sample import Sample

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INPUTS = ("pixel_values", "input_ids", "attention_mask", "boxes", "durations", "fixation_mask")
OUTPUT = "subject_embedding"

_MOST_AT_ONCE = 16
# Of images on a CPU. More than fit its caches take longer, not shorter: five of 448×448 at once 10 % longer than one
# after the other, and 450 MB more memory.
_PIXELS_AT_ONCE = 1 << 18
_MOST_READERS = 4  # each holds a whole photograph, decoded


class PersonaEncoder:
    """The persona encoder of one bundle; immutable and thread-safe."""

    def __init__(
        self,
        path: Path,
        config: PersonaEncoderConfig,
        tokenizer: "Tokenizer",
        *,
        providers: list[str],
        threads: int | None = None,
    ) -> None:
        """Opens the encoder.

        Raises:
            BundleError: The file cannot be opened, or is not the graph of a persona encoder.
        """
        self.config = config
        self._tokenizer = tokenizer
        self._readers = min(threads or os.cpu_count() or 1, _MOST_READERS)
        self._session: Any = open_session(path, providers=providers, threads=threads)
        check_names(path, self._session, INPUTS, [OUTPUT])
        size = config.subject_embedding_size
        check_shape(path, self._session, OUTPUT, (None, size), "persona_encoder.subject_embedding_size")

    @property
    def providers(self) -> list[str]:
        """The execution providers that the session uses, the preferred one first."""
        return list(self._session.get_providers())

    def embed(self, samples: Sequence[Sample], *, batch_size: int | None = None) -> npt.NDArray[np.float32]:
        """Returns z_s of every sample: (n, 384) float32, in the order of `samples`.

        A sample's vector does not depend on the samples beside it: padding is masked throughout. Images are read in
        several threads.

        Args:
            samples: The samples; they may be of different people.
            batch_size: How many go through the network at once; None for what is fastest.

        Raises:
            InvalidArgumentError: `batch_size` is below 1.
            InvalidSampleError: The encoder was not trained to accept a sample of that kind; names the sample.
            InvalidImageError: A sample's image cannot be read; names the sample.
        """
        at_once = self._best_batch_size() if batch_size is None else batch_size
        if at_once < 1:
            raise InvalidArgumentError(f"batch_size: must be 1 or more, or None for what is fastest, got {at_once!r}")
        # Two samples may hold the same PIL image, which decodes itself when it is first used: not in two threads.
        readers = 1 if any(isinstance(sample.image, Image.Image) for sample in samples) else self._readers
        vectors = [np.empty((0, self.config.subject_embedding_size), np.float32)]
        with ThreadPoolExecutor(readers) as pool:
            for start in range(0, len(samples), max(at_once, _MOST_AT_ONCE)):
                part = samples[start : start + max(at_once, _MOST_AT_ONCE)]
                numbers = range(start + 1, start + 1 + len(part))
                encoded = list(pool.map(self._encode, part, numbers, repeat(len(samples))))
                vectors += [self._run(encoded[i : i + at_once]) for i in range(0, len(encoded), at_once)]
        return np.concatenate(vectors)

    def _best_batch_size(self) -> int:
        if self.providers[0] != CPU[0]:
            return _MOST_AT_ONCE
        return min(max(_PIXELS_AT_ONCE // self.config.image_size**2, 1), _MOST_AT_ONCE)

    def _run(self, batch: Sequence[EncodedSample]) -> npt.NDArray[np.float32]:
        (vectors,) = self._session.run([OUTPUT], dict(collate(batch)))
        return np.asarray(vectors, np.float32)

    def _encode(self, sample: Sample, number: int, count: int) -> EncodedSample:
        try:
            return encode_sample(sample, self._tokenizer, self.config)
        except (InvalidSampleError, InvalidImageError) as error:
            raise type(error)(f"sample {number} of {count}: {error}") from error.__cause__
