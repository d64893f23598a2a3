"""The frozen vision-language model, behind one protocol."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from pydeper.bundle.config import Precision, Prompts, VLMConfig
from pydeper.runtime.session import CPU, open_session
from pydeper.vlm.decoding import DecodingOptions
from pydeper.vlm.qwen2_vl import EncodedImage, Generation, Qwen2VLRuntime

__all__ = [
    "DecodingOptions",
    "EncodedImage",
    "Generation",
    "Qwen2VLRuntime",
    "VisionLanguageModel",
    "open_session",
    "open_vlm",
]


class VisionLanguageModel(Protocol):
    """A frozen VLM that one soft token steers.

    An encoded image is opaque: only the model that made it can read it.
    """

    @property
    def config(self) -> VLMConfig:
        """Sizes, preprocessing and special tokens."""

    def encode_image(self, image: Image.Image) -> Any:
        """Does once what all personas and styles share of an upright RGB image."""

    def generate(
        self, encoded: Any, style: str, soft_tokens: npt.ArrayLike | None, options: DecodingOptions | None = None
    ) -> list[Generation]:
        """Describes an image (or one a row) for soft tokens (B, hidden); None asks once each, without a persona."""

    def stream(
        self, encoded: Any, style: str, soft_token: npt.ArrayLike | None, options: DecodingOptions | None = None
    ) -> Iterator[str]:
        """Describes an image piece by piece for one soft token (hidden,), or without a persona."""

    def report(self) -> dict[str, str]:
        """Facts about what was opened, for people: name -> value."""


def open_vlm(
    folder: str | Path,
    config: VLMConfig,
    prompts: Prompts,
    tokenizer: Tokenizer,
    *,
    providers: Sequence[str] = CPU,
    threads: int | None = None,
    precision: Precision | None = None,
) -> VisionLanguageModel:
    """Opens the VLM of a bundle.

    Args:
        folder: The folder with the VLM's files, laid out as `pydeper.bundle.vlm_files` says.
        config: Its part of `config.json`.
        prompts: System turn and styles.
        tokenizer: The bundle's tokenizer; it is not changed.
        providers: ONNX Runtime execution providers, in order of preference.
        threads: Threads within one operation; None leaves the number to the runtime.
        precision: Which variant of the files; None is the config's.

    Raises:
        BundleError: A file is missing, damaged, or not of the sizes in `config`.
        RuntimeMissingError: ONNX Runtime is missing or doubled.
        InvalidArgumentError: A provider is not in this build of the runtime, or `threads` is below 1.
    """
    return Qwen2VLRuntime(
        Path(folder), config, prompts, tokenizer, providers=providers, threads=threads, precision=precision
    )
