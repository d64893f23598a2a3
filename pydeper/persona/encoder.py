"""Samples to subject embeddings: the persona encoder (DEPER without its trajectory decoder).

Making a persona takes this alone: no adapter, and no vision-language model.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from os import PathLike
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pydeper.bundle.bundle import EncoderBundle, open_encoder_bundle
from pydeper.bundle.default import OfDefaultModel
from pydeper.bundle.layout import PERSONA_ENCODER, TOKENIZER
from pydeper.bundle.reopen import Reopenable
from pydeper.bundle.tokenizer import open_tokenizer
from pydeper.errors import IncompatiblePersonaError, InvalidArgumentError, InvalidImageError, InvalidSampleError
from pydeper.persona.preprocess import EncodedSample, collate, encode_sample
from pydeper.runtime.graph import check_names, check_shape
from pydeper.runtime.target import Runtime, choose_target
from pydeper.samples.sample import Sample

if TYPE_CHECKING:
    from tokenizers import Tokenizer

INPUTS = ("pixel_values", "input_ids", "attention_mask", "boxes", "durations", "fixation_mask")
OUTPUT = "subject_embedding"

_MOST_AT_ONCE = 16
# Of images on a CPU. More than fit its caches take longer, not shorter: five of 448×448 at once 10 % longer than one
# after the other, and 450 MB more memory.
_PIXELS_AT_ONCE = 1 << 18
_ON_CPU = ("CPUExecutionProvider", "CPU")  # as ONNX Runtime and OpenVINO call it
_MOST_READERS = 4  # each holds a whole photograph, decoded


class HasPersonaEncoder(Protocol):
    """What holds a persona encoder that is open already, as a loaded `pydeper.DeperModel` does."""

    @property
    def persona_encoder(self) -> "PersonaEncoder":
        """The persona encoder."""


class PersonaEncoder(Reopenable):
    """The persona encoder of one bundle; immutable and thread-safe.

    Attributes:
        config: Its part of the bundle's `config.json`.
        bundle: The bundle that it is from.
        tokenizer: The bundle's tokenizer.
        runtime: What computes it.
    """

    def __init__(
        self,
        bundle: EncoderBundle,
        *,
        device: str = "auto",
        threads: int | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        """Opens the encoder of a bundle that was found and checked; see `from_pretrained`."""
        target = choose_target(runtime, device=device, threads=threads)
        self._remember(bundle, device=device, threads=threads, runtime=runtime)
        self.runtime: Final = target.runtime
        self.bundle: Final = bundle
        self.config: Final = bundle.config.persona_encoder
        self.tokenizer: Final[Tokenizer] = open_tokenizer(bundle.folder / TOKENIZER)
        self._readers = min(threads or os.cpu_count() or 1, _MOST_READERS)
        path = bundle.folder / PERSONA_ENCODER
        self._session = target.open(path)
        check_names(path, self._session, INPUTS, [OUTPUT])
        size = self.config.subject_embedding_size
        check_shape(path, self._session, OUTPUT, (None, size), "persona_encoder.subject_embedding_size")

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | PathLike[str] | None = None,
        device: str = "auto",
        revision: str | None = None,
        threads: int | None = None,
        local_files_only: bool = False,
        runtime: Runtime | None = None,
    ) -> "PersonaEncoder":
        """Finds a model, and loads its persona encoder alone.

        The arguments are those of `pydeper.DeperModel.from_pretrained`. Nothing of the vision-language model is
        fetched, checked or loaded.

        Raises:
            BundleError: There is no such model, or its persona encoder is damaged, or of a format that this version
                does not read.
            InvalidArgumentError: The device cannot be used, or `threads` is out of its range.
            RuntimeMissingError: The runtime is not installed, or ONNX Runtime is installed twice.
        """
        bundle = open_encoder_bundle(name_or_folder, revision=revision, local_files_only=local_files_only)
        return cls(bundle, device=device, threads=threads, runtime=runtime)

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers, or OpenVINO's devices, that are used, the preferred one first."""
        return list(self._session.get_providers())

    def check_fingerprint(self, fingerprint: str, *, name: str | None, model_id: str) -> None:
        """Refuses a persona whose numbers this encoder did not make.

        Args:
            fingerprint: Of the persona encoder that made it.
            name: The persona's, or None.
            model_id: The model that made it.

        Raises:
            IncompatiblePersonaError: It was made by another persona encoder; names both.
        """
        if fingerprint != self.config.fingerprint:
            own = self.bundle.model_id
            maker = f"another version of {own!r}" if model_id == own else repr(model_id)
            raise IncompatiblePersonaError(
                f"persona {name or '(unnamed)'!r} was made by the persona encoder {fingerprint!r} of {maker}, but "
                f"model {own!r} has {self.config.fingerprint!r}, to which its numbers mean something else: make the "
                f"persona anew from its samples with {own!r}, or use it with {maker}"
            )

    def embed(
        self,
        samples: Sequence[Sample],
        *,
        batch_size: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Returns z_s of every sample: (n, 384) float32, in the order of `samples`.

        A sample's vector does not depend on the samples beside it: padding is masked throughout. Images are read in
        several threads.

        Args:
            samples: The samples; they may be of different people.
            batch_size: How many go through the network at once; None for what is fastest.
            progress: Called with how many samples are done, and of how many.

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
                for i in range(0, len(encoded), at_once):
                    vectors.append(self._run(encoded[i : i + at_once]))
                    if progress is not None:
                        progress(sum(map(len, vectors)), len(samples))
        return np.concatenate(vectors)

    def _best_batch_size(self) -> int:
        if self.providers[0] not in _ON_CPU:
            return _MOST_AT_ONCE
        return min(max(_PIXELS_AT_ONCE // self.config.image_size**2, 1), _MOST_AT_ONCE)

    def _run(self, batch: Sequence[EncodedSample]) -> npt.NDArray[np.float32]:
        (vectors,) = self._session.run([OUTPUT], dict(collate(batch)))
        return np.asarray(vectors, np.float32)

    def _encode(self, sample: Sample, number: int, count: int) -> EncodedSample:
        try:
            return encode_sample(sample, self.tokenizer, self.config)
        except (InvalidSampleError, InvalidImageError) as error:
            raise type(error)(f"sample {number} of {count}: {error}") from error.__cause__


def short_fingerprint(fingerprint: str) -> str:
    """Returns as much of a persona encoder's fingerprint as tells it from others at a glance."""
    return fingerprint.removeprefix("sha256:")[:12]


_default = OfDefaultModel(PersonaEncoder.from_pretrained)


def default_encoder() -> PersonaEncoder:
    """Returns the default model's persona encoder, loaded at its first use and kept.

    The default model is ``$PYDEPER_MODEL``, else the built-in "tiny".

    Raises:
        BundleError: It cannot be found or loaded.
        RuntimeMissingError: No runtime is installed, or ONNX Runtime twice.
    """
    return _default.get()
