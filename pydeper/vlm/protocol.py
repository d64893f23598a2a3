"""What a frozen vision-language model has to do, wherever it runs."""

from collections.abc import Iterator
from typing import Any, Literal, Protocol

import attrs
import numpy.typing as npt
from PIL import Image

from pydeper.bundle.config import VLMConfig
from pydeper.vlm.decoding import DecodingOptions


@attrs.frozen
class Generation:
    """One description.

    Attributes:
        text: Its text.
        token_ids: Its tokens, without the end token.
        finish_reason: "stop" where the model ended it, "length" where a limit did.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


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
