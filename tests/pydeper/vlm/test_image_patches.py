"""Image patches, against transformers' own processor: every comparison is to the last bit."""

from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pydeper.bundle.config import VisionConfig
from pydeper.errors import InvalidArgumentError, InvalidImageError
from pydeper.images import open_image
from pydeper.vlm.image_patches import image_patches, resized_shape
from tests.support.images import random_image

FREE = VisionConfig(
    patch_size=14,
    temporal_patch_size=2,
    merge_size=2,
    image_mean=(0.48145466, 0.4578275, 0.40821073),
    image_std=(0.26862954, 0.26130258, 0.27577711),
    image_size=None,
    min_pixels=56 * 56,
    max_pixels=140 * 140,
)
PUBLISHED = attrs.evolve(FREE, max_pixels=16384 * 28 * 28)
FIXED = attrs.evolve(PUBLISHED, image_size=(448, 448))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Every pixel different from its neighbours, so that no step of resampling goes unseen."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def processor(config: VisionConfig) -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels},
        patch_size=config.patch_size,
        temporal_patch_size=config.temporal_patch_size,
        merge_size=config.merge_size,
        image_mean=list(config.image_mean),
        image_std=list(config.image_std),
    )


def assert_equal(found: tuple[np.ndarray, np.ndarray], expected: Any) -> None:
    values, grid = found
    np.testing.assert_array_equal(grid, expected["image_grid_thw"])
    np.testing.assert_array_equal(values, expected["pixel_values"])
    assert (values.dtype, grid.dtype) == (np.float32, np.int64)


# Free resolution: Qwen's smart resize

LIMITS = st.sampled_from([(56 * 56, 112 * 112), (1, 28 * 28), (1, 1), (100 * 100, 300 * 300), (300 * 300, 300 * 300)])


@given(st.integers(1, 260), st.integers(1, 260), LIMITS, st.integers(0, 9))
@settings(max_examples=80)
def test_free_sizes(width: int, height: int, limits: tuple[int, int], seed: int) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    config = attrs.evolve(FREE, min_pixels=limits[0], max_pixels=limits[1])
    image = noise(width, height, seed)
    assert_equal(image_patches(image, config), processor(config)(images=[image], return_tensors="np"))


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 10_000_000), st.integers(1, 100))
@settings(max_examples=300)
def test_free_shapes_of_large_images(width: int, height: int, min_pixels: int, ratio: int) -> None:
    assume(max(width, height) <= 200 * min(width, height))
    config = attrs.evolve(FREE, min_pixels=min_pixels, max_pixels=min(min_pixels * ratio, 2**25))
    rows, columns = (side // 14 for side in resized_shape(height, width, config))
    assert rows * columns == processor(config).get_number_of_image_patches(height, width)


@given(
    st.sampled_from([2, 7, 14, 16]),
    st.integers(1, 3),
    st.integers(1, 3),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.tuples(*[st.floats(0.1, 2)] * 3),
)
@settings(max_examples=30)
def test_other_patches_and_normalisations(
    patch: int, temporal: int, merge: int, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    config = attrs.evolve(
        FREE, patch_size=patch, temporal_patch_size=temporal, merge_size=merge, image_mean=mean, image_std=std
    )
    image = noise(90, 70)
    assert_equal(image_patches(image, config), processor(config)(images=[image], return_tensors="np"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
@given(width=st.integers(1, 90), height=st.integers(1, 90), see_through=st.booleans())
@settings(max_examples=12)
def test_modes_as_the_sdk_opens_them(mode: str, width: int, height: int, see_through: bool) -> None:
    image = noise(width, height)
    if mode in ("LA", "PA", "RGBA"):
        image.putalpha(Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)))
    image = image.convert(mode)
    if see_through and mode in ("L", "P"):
        image.info["transparency"] = 7
    found = image_patches(open_image(image), FREE)
    assert_equal(found, processor(FREE)(images=[image], return_tensors="np"))


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (27, 13), (28, 28), (1, 200), (400, 2), (84, 84)])
@pytest.mark.parametrize("limits", [(56 * 56, 140 * 140), (1, 28 * 28)])
def test_images_smaller_than_one_token_are_enlarged(size: tuple[int, int], limits: tuple[int, int]) -> None:
    config = attrs.evolve(FREE, min_pixels=limits[0], max_pixels=limits[1])
    image = noise(*size)
    values, grid = image_patches(image, config)
    assert_equal((values, grid), processor(config)(images=[image], return_tensors="np"))
    assert len(values) >= 4


def test_the_limits_decide_the_resolution() -> None:
    assert resized_shape(84, 84, FREE) == (84, 84)
    assert resized_shape(1000, 1000, FREE) == (140, 140)
    assert resized_shape(10, 10, FREE) == (56, 56)
    assert resized_shape(480, 640, PUBLISHED) == (476, 644)


@pytest.mark.parametrize("size", [(201, 1), (1, 201), (2, 401), (10_001, 50)])
def test_extreme_shapes_cannot_be_kept(size: tuple[int, int]) -> None:
    image = noise(*size)
    with pytest.raises(InvalidImageError, match=rf"the image is {size[0]}×{size[1]} pixels; .* 200 times .*: crop it"):
        image_patches(image, FREE)
    with pytest.raises(ValueError, match="aspect ratio"):
        processor(FREE)(images=[image])


# A fixed resolution


@given(st.integers(434, 462), st.integers(434, 462), st.integers(0, 9))
@settings(max_examples=15)
def test_448_where_smart_resize_itself_comes_to_448(width: int, height: int, seed: int) -> None:
    image = noise(width, height, seed)
    values, grid = image_patches(image, FIXED)
    assert_equal((values, grid), processor(PUBLISHED)(images=[image], return_tensors="np"))
    assert grid.tolist() == [[1, 32, 32]]
    assert len(values) // 4 == 256


@given(st.integers(1, 1200), st.integers(0, 9))
@settings(max_examples=20)
def test_448_of_squares_of_every_size(side: int, seed: int) -> None:
    # Limits just around 448×448, so that rounding does not lead the processor to 420 or 476.
    config = attrs.evolve(PUBLISHED, min_pixels=448 * 448 - 1000, max_pixels=448 * 448 + 1000)
    image = noise(side, side, seed)
    assert_equal(image_patches(image, FIXED), processor(config)(images=[image], return_tensors="np"))


@given(st.integers(1, 1200), st.integers(1, 1200), st.integers(0, 9))
@settings(max_examples=20)
def test_448_of_any_shape_by_the_processors_own_resampling(width: int, height: int, seed: int) -> None:
    # The processor has no fixed resolution. Its own filter is given the target instead, past smart resize alone.
    image, theirs = noise(width, height, seed), processor(PUBLISHED)
    channels_first = np.moveaxis(np.asarray(image), -1, 0)
    resized = PilBackend.resize(theirs, channels_first, SizeDict(height=448, width=448), resample=theirs.resample)
    expected = theirs(images=[Image.fromarray(np.moveaxis(resized, 0, -1))], do_resize=False, return_tensors="np")
    assert_equal(image_patches(image, FIXED), expected)


def test_a_fixed_resolution_takes_any_shape() -> None:
    config = attrs.evolve(FREE, image_size=(84, 112))
    for size in [(1, 900), (900, 1), (84, 84), (112, 84), (1, 1)]:
        assert resized_shape(size[1], size[0], config) == (84, 112)
        values, grid = image_patches(random_image(*size), config)
        assert values.shape == (48, 1176)
        assert grid.tolist() == [[1, 6, 8]]
    exact = random_image(112, 84, 3)
    values, _ = image_patches(exact, config)  # already of that size: the first patch is the image's corner
    corner = np.asarray(exact)[:14, :14].transpose(2, 0, 1) / 255
    mean, std = np.array(config.image_mean)[:, None, None], np.array(config.image_std)[:, None, None]
    np.testing.assert_allclose(values[0].reshape(3, 2, 14, 14)[:, 0], (corner - mean) / std, atol=1e-6)


# Bad input


@pytest.mark.parametrize("config", [FREE, FIXED], ids=["free", "fixed"])
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (0, 1000)])
def test_images_without_pixels(size: tuple[int, int], config: VisionConfig) -> None:
    with pytest.raises(InvalidImageError, match=rf"the image is {size[0]}×{size[1]} pixels, which is nothing"):
        image_patches(Image.new("RGB", size), config)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "F"])
def test_images_that_nobody_opened(mode: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"mode is {mode}, not RGB; open it with pydeper\.images"):
        image_patches(Image.new(mode, (30, 30)), FREE)
