"""The inputs of a description, checked: an image and a soft token per row, and room in the model's context."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VisionConfig, VLMConfig
from pydeper.errors import InvalidArgumentError
from pydeper.vlm.image_patches import resized_shape
from pydeper.vlm.protocol import EncodedImage

_Image = TypeVar("_Image", bound=EncodedImage)


def rows_of(
    encoded: EncodedImage | Sequence[EncodedImage],
    soft_tokens: npt.ArrayLike | None,
    *,
    kind: type[_Image],
    model: object,
    config: VLMConfig,
) -> tuple[list[_Image], npt.NDArray[np.float32] | None]:
    """Returns an image a row, and the soft tokens (B, hidden) or None.

    Args:
        encoded: One for all rows, or one a row.
        soft_tokens: (B, hidden), a persona a row; None asks without a persona: one description an image.
        kind: What the model encodes images into.
        model: The model that is to read the images.
        config: Its sizes.

    Raises:
        InvalidArgumentError: Soft tokens of another shape or not finite, as many images as there are no soft tokens,
            or an image that another model encoded.
    """
    soft = None if soft_tokens is None else _checked_soft_tokens(soft_tokens, config.hidden_size)
    images = [encoded] * (1 if soft is None else len(soft)) if isinstance(encoded, EncodedImage) else [*encoded]
    if soft is not None and len(images) != len(soft):
        raise InvalidArgumentError(f"there are {len(images)} images for {len(soft)} soft tokens; give one for each")
    mine = []
    for image in images:
        image.check_model(model)
        assert isinstance(image, kind)
        mine.append(image)
    return mine, soft


def one_row(soft_token: npt.ArrayLike | None) -> npt.NDArray[np.generic] | None:
    """Returns a soft token (hidden,) as (1, hidden), and None as it is."""
    return None if soft_token is None else np.asarray(soft_token)[None]


def image_token_count(height: int, width: int, vision: VisionConfig) -> int:
    """Returns the tokens that an image of this size in pixels takes.

    Raises:
        InvalidImageError: It has no pixels, or its aspect ratio is out of range (see `resized_shape`).
    """
    height, width = resized_shape(height, width, vision)
    return height * width // (vision.patch_size * vision.merge_size) ** 2


def room_for(prompt_tokens: int, context_length: int) -> int:
    """Returns how many tokens a description may have after a prompt.

    Raises:
        InvalidArgumentError: The prompt fills the context.
    """
    room = context_length - prompt_tokens
    if room <= 0:
        raise InvalidArgumentError(
            f"the prompt takes {prompt_tokens} tokens and the model's context holds {context_length}; use a smaller "
            "image"
        )
    return room


def _checked_soft_tokens(soft_tokens: npt.ArrayLike, hidden_size: int) -> npt.NDArray[np.float32]:
    soft = np.asarray(soft_tokens, dtype=np.float32)
    if soft.ndim != 2 or soft.shape[1] != hidden_size:
        raise InvalidArgumentError(
            f"a soft token has {hidden_size} numbers for this model, got an array of shape {soft.shape}"
        )
    if not np.isfinite(soft).all():
        raise InvalidArgumentError("a soft token holds NaN or infinity")
    return soft
