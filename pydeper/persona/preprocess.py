"""Samples -> the arrays that the persona encoder takes. Training and the SDK both use this one copy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pydeper.bundle.config import Modality, PersonaEncoderConfig
from pydeper.bundle.tokenizer import literal_tokenizer
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Trajectory

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@attrs.frozen(eq=False)
class EncodedSample:
    """One sample as arrays, unpadded.

    Attributes:
        pixel_values: (3, H, W) float32, or None where the image's features are kept elsewhere (training caches them).
        input_ids: (l,) int64, the description's token ids; empty where there is no description.
        boxes: (m, 4) float32, as in `Fixation.box`; empty where there is no trajectory.
        durations: (m,) float32, seconds.
    """

    pixel_values: NDArray[np.float32] | None
    input_ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    durations: NDArray[np.float32]


def modality(sample: Sample) -> Modality:
    """Tells what a sample holds beside its image."""
    if sample.trajectory is None:
        return "text"
    return "trajectory" if sample.description is None else "text+trajectory"


def persona_pixels(image: Image.Image, config: PersonaEncoderConfig) -> NDArray[np.float32]:
    """Turns an image into the persona encoder's input.

    The image is stretched, not cropped, to a square (so that boxes keep their meaning) by Pillow's bicubic filter,
    which also averages when it shrinks. Then, in float32 and in this order: (x / 255 - mean) / std, per channel.

    Args:
        image: An upright RGB image, as `Sample.open_image` returns it.
        config: Gives `image_size`, `image_mean` and `image_std`.

    Returns:
        (3, image_size, image_size) float32, contiguous, channels R, G, B.

    Raises:
        InvalidArgumentError: The image is not in RGB.
    """
    if image.mode != "RGB":
        raise InvalidArgumentError(f"the image's mode is {image.mode}, not RGB; open it with pydeper.images.open_image")
    resized = image.resize((config.image_size, config.image_size), Image.Resampling.BICUBIC)
    mean, std = np.array(config.image_mean, np.float32), np.array(config.image_std, np.float32)
    normalised = (np.asarray(resized, np.float32) / np.float32(255) - mean) / std
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def description_ids(tokenizer: "Tokenizer", text: str, max_tokens: int) -> list[int]:
    """Turns a description into token ids, the first `max_tokens` of them (256 in the paper).

    Text never becomes special tokens: "<|im_end|>" in a description is a few letters.

    Args:
        tokenizer: The VLM's tokenizer. Where it reads special tokens out of texts, this text is encoded by a copy that
            does not; for many texts, make that copy once with `literal_tokenizer`.
        text: The description, as the person gave it.
        max_tokens: At least 1; what follows is cut.

    Raises:
        InvalidArgumentError: `max_tokens` is below 1.
    """
    if max_tokens < 1:
        raise InvalidArgumentError(f"max_tokens is {max_tokens}; give 1 or more")
    return list(literal_tokenizer(tokenizer).encode(text, add_special_tokens=False).ids[:max_tokens])


def trajectory_arrays(trajectory: Trajectory, max_fixations: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the boxes (m, 4) and durations (m,) of the first `max_fixations` fixations (30 in the paper), float32.

    Raises:
        InvalidArgumentError: `max_fixations` is below 1.
    """
    if max_fixations < 1:
        raise InvalidArgumentError(f"max_fixations is {max_fixations}; give 1 or more")
    return trajectory.boxes[:max_fixations], trajectory.durations[:max_fixations]


def encode_sample(sample: Sample, tokenizer: "Tokenizer", config: PersonaEncoderConfig) -> EncodedSample:
    """Turns a sample into arrays; its image is opened once.

    A description or trajectory longer than the config's limits is cut, as in the paper.

    Raises:
        InvalidSampleError: The sample holds more or less than the persona encoder was trained to accept.
        InvalidImageError: The image cannot be read.
    """
    encoded = encode_text_and_trajectory(sample, tokenizer, config)
    return attrs.evolve(encoded, pixel_values=persona_pixels(sample.open_image(), config))


def encode_text_and_trajectory(sample: Sample, tokenizer: "Tokenizer", config: PersonaEncoderConfig) -> EncodedSample:
    """Turns a sample into arrays but for its image, which is not opened.

    Raises:
        InvalidSampleError: The sample holds more or less than the persona encoder was trained to accept.
    """
    place = "" if sample.source is None else f"{sample.source}: "
    if (kind := modality(sample)) not in config.modalities:
        raise InvalidSampleError(
            f"{place}the sample is of the kind {kind!r}, and this model's persona encoder was trained on "
            f"{' and '.join(map(repr, config.modalities))}; give samples of that kind or another model"
        )
    ids: list[int] = []
    if sample.description is not None:
        ids = description_ids(tokenizer, sample.description, config.max_description_tokens)
    boxes, durations = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    if sample.trajectory is not None:
        boxes, durations = trajectory_arrays(sample.trajectory, config.max_fixations)
    return EncodedSample(pixel_values=None, input_ids=np.array(ids, dtype=np.int64), boxes=boxes, durations=durations)


def collate(encoded: Sequence[EncodedSample]) -> dict[str, NDArray[Any]]:
    """Pads samples to the longest of them (at least to 1) and stacks them.

    Args:
        encoded: B ≥ 1 samples, all with pixel values of one size, or all without.

    Returns:
        The persona encoder's inputs: `pixel_values` (B, 3, H, W) float32 (no such key where the samples have none),
        `input_ids` and `attention_mask` (B, L) int64, `boxes` (B, M, 4) and `durations` (B, M) float32,
        `fixation_mask` (B, M) int64. Masks are 1 on what is there and 0 on padding, which is id 0, box (0, 0, 1, 1) and
        duration 0.

    Raises:
        InvalidArgumentError: There is no sample, or the pixel values do not fit together.
    """
    if not encoded:
        raise InvalidArgumentError("there are zero samples to collate; give at least one")
    count = len(encoded)
    length = max(1, *(len(sample.input_ids) for sample in encoded))
    fixations = max(1, *(len(sample.durations) for sample in encoded))
    batch: dict[str, NDArray[Any]] = {
        "input_ids": np.zeros((count, length), np.int64),
        "attention_mask": np.zeros((count, length), np.int64),
        "boxes": np.tile(np.array([0, 0, 1, 1], np.float32), (count, fixations, 1)),
        "durations": np.zeros((count, fixations), np.float32),
        "fixation_mask": np.zeros((count, fixations), np.int64),
    }
    for row, sample in enumerate(encoded):
        words, stops = len(sample.input_ids), len(sample.durations)
        batch["input_ids"][row, :words] = sample.input_ids
        batch["attention_mask"][row, :words] = 1
        batch["boxes"][row, :stops] = sample.boxes
        batch["durations"][row, :stops] = sample.durations
        batch["fixation_mask"][row, :stops] = 1
    pixels = [sample.pixel_values for sample in encoded if sample.pixel_values is not None]
    if not pixels:
        return batch
    if len(pixels) < count or len({array.shape for array in pixels}) > 1:
        shapes = [None if sample.pixel_values is None else sample.pixel_values.shape for sample in encoded]
        raise InvalidArgumentError(f"pixel_values of the shapes {shapes} cannot be stacked; encode all with one config")
    return {"pixel_values": np.stack(pixels), **batch}
