"""An image as the rows of patches that Qwen2-VL's vision encoder reads."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from pydeper.bundle.config import VisionConfig
from pydeper.errors import InvalidArgumentError, InvalidImageError

MAX_ASPECT_RATIO = 200


def resized_shape(height: int, width: int, config: VisionConfig) -> tuple[int, int]:
    """Returns the (height, width) in pixels that an image of this size is resized to.

    With `config.image_size` set it is that, whatever the image's own shape: a fixed resolution squashes. Otherwise
    Qwen's smart resize: both sides become multiples of `patch_size * merge_size`, the aspect ratio is kept as nearly as
    that allows, and the area is brought between `min_pixels` and `max_pixels`. An image of a single pixel is enlarged;
    one that is so narrow that its shorter side must grow to one image token may end above `max_pixels`.

    Raises:
        InvalidImageError: The image has no pixels, or smart resize is to keep the shape of one whose longer side is
            over 200 times the shorter.
    """
    if min(height, width) < 1:
        raise InvalidImageError(f"the image is {width}×{height} pixels, which is nothing to describe: give another")
    if config.image_size is not None:
        return config.image_size
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise InvalidImageError(
            f"the image is {width}×{height} pixels; its longer side may be at most {MAX_ASPECT_RATIO} times the "
            "shorter: crop it"
        )
    side = config.patch_size * config.merge_size
    new_height, new_width = round(height / side) * side, round(width / side) * side
    if new_height * new_width > config.max_pixels:
        shrink = math.sqrt(height * width / config.max_pixels)
        new_height = max(side, math.floor(height / shrink / side) * side)
        new_width = max(side, math.floor(width / shrink / side) * side)
    elif new_height * new_width < config.min_pixels:
        grow = math.sqrt(config.min_pixels / (height * width))
        new_height = math.ceil(height * grow / side) * side
        new_width = math.ceil(width * grow / side) * side
    return new_height, new_width


def image_patches(image: Image.Image, config: VisionConfig) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Resizes, normalises and cuts an image; equal to transformers' `Qwen2VLImageProcessorPil` to the last bit.

    Args:
        image: An upright RGB image, as `pydeper.images.open_image` returns it.
        config: Patch sizes, normalisation and resolution.

    Returns:
        pixel_values: (N, 3 * temporal_patch_size * patch_size²) float32, one row a patch; the `merge_size`² patches
            of one image token stand together.
        image_grid_thw: (1, 3) int64: frames (1), patch rows, patch columns, with N their product.

    Raises:
        InvalidImageError: See `resized_shape`.
        InvalidArgumentError: The image is not in RGB.
    """
    if image.mode != "RGB":  # converting would drop an alpha channel that open_image lays over white
        raise InvalidArgumentError(f"the image's mode is {image.mode}, not RGB; open it with pydeper.images.open_image")
    height, width = resized_shape(image.height, image.width, config)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    mean, std = np.array(config.image_mean, np.float32), np.array(config.image_std, np.float32)
    # transformers scales in float64, which for each of the 256 shades comes to the same float32.
    pixels = (resized / np.float32(255) - mean) / std

    patch, merge = config.patch_size, config.merge_size
    rows, columns = height // patch, width // patch
    blocks = pixels.reshape(rows // merge, merge, patch, columns // merge, merge, patch, 3)
    blocks = blocks.transpose(0, 3, 1, 4, 6, 2, 5)  # block row, block column, row, column, channel, y, x
    frames = np.repeat(blocks[..., None, :, :], config.temporal_patch_size, axis=5)
    return frames.reshape(rows * columns, -1), np.array([[1, rows, columns]], dtype=np.int64)
