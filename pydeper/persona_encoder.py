"""Samples to subject embeddings: the persona encoder (DEPER without its trajectory decoder) on ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pydeper.config import PersonaEncoderConfig
from pydeper.errors import BundleError, InvalidImageError, InvalidSampleError
from pydeper.preprocess import EncodedSample, collate, encode_sample
from pydeper.samples import Sample
from pydeper.vlm import open_session

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INPUTS = ("pixel_values", "input_ids", "attention_mask", "boxes", "durations", "fixation_mask")
OUTPUT = "subject_embedding"


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
        self._session: Any = open_session(path, providers=providers, threads=threads)
        inputs = tuple(sorted(value.name for value in self._session.get_inputs()))
        outputs = {value.name: value.shape for value in self._session.get_outputs()}
        if inputs != tuple(sorted(INPUTS)) or OUTPUT not in outputs:
            raise BundleError(
                f"{path}: must take {', '.join(INPUTS)} and give {OUTPUT}, but takes {', '.join(inputs)} and gives "
                f"{', '.join(outputs)}: export it again with `export/persona_encoder.py`"
            )
        if outputs[OUTPUT][-1] != config.subject_embedding_size:
            raise BundleError(
                f"{path}: gives {OUTPUT} of shape {outputs[OUTPUT]}, but config.json says "
                f"persona_encoder.subject_embedding_size = {config.subject_embedding_size}"
            )

    @property
    def providers(self) -> list[str]:
        """The execution providers that the session uses, the preferred one first."""
        return list(self._session.get_providers())

    def embed(self, samples: Sequence[Sample], *, batch_size: int = 16) -> npt.NDArray[np.float32]:
        """Returns z_s of every sample: (n, 384) float32, in the order of `samples`.

        A sample's vector does not depend on the samples beside it: padding is masked throughout.

        Args:
            samples: The samples; they may be of different people.
            batch_size: How many go through the network at once.

        Raises:
            InvalidSampleError: The encoder was not trained to accept a sample of that kind; names the sample.
            InvalidImageError: A sample's image cannot be read; names the sample.
        """
        batches = [
            self._run([self._encode(samples[i], i + 1, len(samples)) for i in range(start, stop)])
            for start in range(0, len(samples), batch_size)
            for stop in [min(start + batch_size, len(samples))]
        ]
        return np.concatenate([np.empty((0, self.config.subject_embedding_size), np.float32), *batches])

    def _run(self, batch: Sequence[EncodedSample]) -> npt.NDArray[np.float32]:
        (vectors,) = self._session.run([OUTPUT], dict(collate(batch)))
        return np.asarray(vectors, np.float32)

    def _encode(self, sample: Sample, number: int, count: int) -> EncodedSample:
        try:
            return encode_sample(sample, self._tokenizer, self.config)
        except (InvalidSampleError, InvalidImageError) as error:
            raise type(error)(f"sample {number} of {count}: {error}") from error.__cause__
