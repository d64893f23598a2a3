"""What a frozen vision-language model has to do, wherever it runs."""

import abc
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from typing import Literal, Protocol

import attrs
import numpy.typing as npt
from PIL import Image

from pydeper.bundle.config import VLMConfig
from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.runtime.memory import readable_bytes
from pydeper.vlm.decoding import DecodingOptions, every_row


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


@attrs.frozen(eq=False, repr=False)
class EncodedImage(abc.ABC):
    """An image as one model sees it: computed once, then shared by all personas and styles.

    Attributes:
        grid: (frames, patch rows, patch columns).

    Examples:
        >>> from pydeper import DeperModel, demo_image
        >>> seen = DeperModel.from_pretrained("tiny").encode_image(demo_image())
        >>> seen.grid
        (1, 18, 18)
    """

    grid: tuple[int, int, int]
    _model: object

    def __repr__(self) -> str:
        frames, rows, columns = self.grid
        held = readable_bytes(self.nbytes)
        return f"EncodedImage({self.image_tokens} image tokens, grid {frames}×{rows}×{columns} patches, {held})"

    def __reduce__(self) -> tuple[object, ...]:
        raise InvalidArgumentError(
            "an encoded image is of use with the model that encoded it alone, in this process: send the image itself, "
            "and encode it there"
        )

    def __copy__(self) -> "EncodedImage":
        return self  # immutable

    def __deepcopy__(self, _: object) -> "EncodedImage":
        return self

    @property
    @abc.abstractmethod
    def image_tokens(self) -> int:
        """How many tokens it takes in a prompt.

        Examples:
            >>> from pydeper import DeperModel, demo_image
            >>> DeperModel.from_pretrained("tiny").encode_image(demo_image()).image_tokens
            81
        """

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Bytes of memory that it holds at present.

        Examples:
            >>> from pydeper import DeperModel, demo_image
            >>> DeperModel.from_pretrained("tiny").encode_image(demo_image()).nbytes
            82944
        """

    def check_model(self, model: object) -> None:
        """Refuses to be read by another model than the one that made it.

        Raises:
            InvalidArgumentError: It was made by another model.
        """
        if self._model is not model:
            raise InvalidArgumentError("this image was encoded by another model; encode it with this one")


@attrs.frozen(eq=False)
class Row:
    """One description of a batch.

    Attributes:
        image: What the model's `encode_image` returned.
        soft_token: (hidden,), the persona; None asks without one.
        style: Name of one of the model's styles.
        options: How to decode.
    """

    image: EncodedImage
    soft_token: npt.ArrayLike | None
    style: str
    options: DecodingOptions = attrs.Factory(DecodingOptions)


def no_more(running: int) -> Sequence[Row]:
    """Adds no row to a batch."""
    return ()


class VisionLanguageModel(Protocol):
    """A frozen VLM that one soft token steers; it reads the images that it has encoded itself."""

    @property
    def config(self) -> VLMConfig:
        """Sizes, preprocessing and special tokens."""

    @property
    def rows_at_once(self) -> int:
        """The most descriptions that `generate` should be given together."""

    def check_options(self, options: DecodingOptions) -> None:
        """Refuses a way of decoding that this model has not."""

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Does once what all personas and styles share of an upright RGB image."""

    def generate(
        self,
        encoded: EncodedImage | Sequence[EncodedImage],
        style: str,
        soft_tokens: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> list[Generation]:
        """Describes an image (or one a row) for soft tokens (B, hidden); None asks once each, without a persona."""

    def stream(
        self,
        encoded: EncodedImage,
        style: str,
        soft_token: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> Generator[str, None, None]:
        """Describes an image piece by piece for one soft token (hidden,), or without a persona.

        All arguments are checked at the call, and nothing is begun before the first piece is asked for.
        """

    def astream(
        self,
        encoded: EncodedImage,
        style: str,
        soft_token: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> AsyncGenerator[str, None]:
        """Describes as `stream` does, for ``async for``, without blocking the event loop."""

    def stream_rows(
        self,
        rows: Sequence[Row],
        *,
        more: Callable[[int], Sequence[Row]] = no_more,
        wanted: Callable[[int], bool] = every_row,
    ) -> Iterator[tuple[int, str | PydeperError | None]]:
        """Computes rows together, each of which may have another image, style, and way of decoding.

        Args:
            rows: What the batch begins with; checked at the call.
            more: Called between steps with how many rows are running; returns rows that join them, and does not wait.
            wanted: Asked between steps whether a row is still wanted; one that is not ends there.

        Yields:
            (row, piece) as pieces are written; and once for every row, at its end, (row, None), or (row, error) where
            it failed alone. Rows are numbered from 0 on, in the order in which they were given.
        """

    def report(self) -> dict[str, str]:
        """Facts about what was opened, for people: name -> value."""
