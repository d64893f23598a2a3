"""The chat template as token ids, the slot of the soft token, and 3-D rotary positions."""

from collections.abc import Sequence

import attrs
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from pydeper.bundle.config import SUBJECT_TOKEN, Prompts, VLMConfig
from pydeper.bundle.tokenizer import literal_tokenizer
from pydeper.errors import BundleError, InvalidArgumentError

_IMAGE_TOKEN, _VISION_START, _VISION_END = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
_TURN_START, _TURN_END = "<|im_start|>", "<|im_end|>"


@attrs.frozen
class StylePrompt:
    """What follows the image, as token ids: `before`, then the soft token, then `after`."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class PromptTemplate:
    r"""Qwen2-VL's chat template for one image and one style, as token ids.

    The ids of a whole prompt are

        <|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>…<|vision_end|>
        {text of the style}<|im_end|>\n<|im_start|>assistant\n

    Special tokens are placed by id and texts are encoded piece by piece as plain text, so no text, a user's own least
    of all, can become a special token. Immutable, and safe to share between threads.
    """

    def __init__(self, prompts: Prompts, config: VLMConfig, tokenizer: Tokenizer) -> None:
        """Encodes everything that does not depend on the image.

        Raises:
            BundleError: The tokenizer lacks a special token, or its id is not the config's.
        """
        self._tokenizer = literal_tokenizer(tokenizer)
        self._image_token = config.tokens.image
        for token, expected in (
            (SUBJECT_TOKEN, config.tokens.subject),
            (_IMAGE_TOKEN, config.tokens.image),
            (_VISION_START, config.tokens.vision_start),
            (_VISION_END, config.tokens.vision_end),
        ):
            if (found := self._special(token)) != expected:
                raise BundleError(
                    f"the tokenizer and config.json are not of one model: {token} is {found} in tokenizer.json and "
                    f"{expected} in config.json"
                )
        start, end = self._special(_TURN_START), self._special(_TURN_END)
        system = (start, *self._text(f"system\n{prompts.system}"), end, *self._text("\n"))
        self._before_image = (*system, start, *self._text("user\n"), config.tokens.vision_start)
        self._after_image = (config.tokens.vision_end,)
        tail = (end, *self._text("\n"), start, *self._text("assistant\n"))

        self._with_persona: dict[str, StylePrompt] = {}
        self._without_persona: dict[str, tuple[int, ...]] = {}
        for name, style in prompts.styles.items():
            before, after = style.with_persona.split(SUBJECT_TOKEN)
            self._with_persona[name] = StylePrompt(self._text(before), (*self._text(after), *tail))
            self._without_persona[name] = (*self._text(style.without_persona), *tail)

    def image_ids(self, image_tokens: int) -> list[int]:
        """Returns the ids up to and with the end of an image of that many tokens; all styles share them."""
        return [*self._before_image, *[self._image_token] * image_tokens, *self._after_image]

    def with_persona(self, style: str) -> StylePrompt:
        """Returns what follows the image when a persona is given.

        Raises:
            InvalidArgumentError: There is no such style; names those there are.
        """
        self._check(style)
        return self._with_persona[style]

    def without_persona(self, style: str) -> tuple[int, ...]:
        """Returns the ids that follow the image when no persona is given.

        Raises:
            InvalidArgumentError: There is no such style; names those there are.
        """
        self._check(style)
        return self._without_persona[style]

    def _check(self, style: str) -> None:
        if style not in self._with_persona:
            raise InvalidArgumentError(
                f"this model has no style {style!r}; it has: {', '.join(map(repr, self._with_persona))}"
            )

    def _special(self, token: str) -> int:
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise BundleError(f"tokenizer.json has no token {token}, which Qwen2-VL's chat template needs")
        return found

    def _text(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def rotary_positions(
    ids: Sequence[int] | npt.NDArray[np.integer],
    image_token: int,
    grids: npt.NDArray[np.integer],
    merge_size: int,
    start: int = 0,
) -> tuple[npt.NDArray[np.int64], int]:
    """Numbers a sequence for multimodal rotary embedding (Qwen2-VL, section 2.1).

    A text token has one number on all three axes. The tokens of an image have, counted from the image's start, their
    frame, row and column; the text after it goes on from the largest of them.

    Args:
        ids: (S,) token ids.
        image_token: The id that stands for one image token.
        grids: (K, 3) frames, patch rows and patch columns of the images, in order of appearance.
        merge_size: Side of the square of patches that is one image token.
        start: Number of the first token.

    Returns:
        (3, S) positions on the axes frame, row, column, and the number of the token that comes next.

    Raises:
        ValueError: The image tokens in `ids` are not those of `grids`.
    """
    is_image = np.asarray(ids) == image_token
    spans = [
        (frames, rows // merge_size, columns // merge_size) for frames, rows, columns in np.asarray(grids).tolist()
    ]
    if is_image.sum() != sum(frames * rows * columns for frames, rows, columns in spans):
        raise ValueError(f"{is_image.sum()} image tokens, but the grids {np.asarray(grids).tolist()} say otherwise")
    positions = np.empty((3, len(is_image)), dtype=np.int64)
    at, number = 0, start
    for frames, rows, columns in [*spans, (0, 0, 0)]:
        text = int(np.argmax(is_image[at:])) if is_image[at:].any() else len(is_image) - at
        positions[:, at : at + text] = number + np.arange(text)
        at, number = at + text, number + text
        image = frames * rows * columns
        positions[:, at : at + image] = number + np.indices((frames, rows, columns)).reshape(3, -1)
        at, number = at + image, number + max(rows, columns)
    return positions, number
