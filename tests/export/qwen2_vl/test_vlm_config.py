"""What a bundle's config says of a VLM: its special tokens, and how images are prepared."""

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from export.qwen2_vl.tokenizer import vision_config
from pydeper.bundle.config import VLMConfig
from pydeper.errors import BundleError
from pydeper.vlm.image_patches import image_patches

ROWS, SUBJECT = 151_936, 151_657
ENDS = (151_645, 151_643)  # <|im_end|>, <|endoftext|>


def test_sizes_come_from_the_model_and_special_tokens_are_suppressed_but_for_the_ends(config: VLMConfig) -> None:
    assert (config.hidden_size, config.num_layers, config.num_key_value_heads, config.head_dim) == (128, 2, 2, 32)
    assert config.vocab_size == ROWS
    assert config.tokens.subject == SUBJECT
    assert config.tokens.end == ENDS
    assert set(range(151_643, SUBJECT + 1)) - set(ENDS) <= set(config.tokens.suppressed)
    assert min(config.tokens.suppressed) > 151_642  # nothing that a text may hold


def test_rows_without_a_token_are_suppressed(config: VLMConfig) -> None:
    assert set(config.tokens.suppressed) == set(range(151_643, ROWS)) - set(ENDS)


def test_both_spellings_of_the_limits_give_one_config(standin: Path, tmp_path: Path) -> None:
    published = vision_config(standin, image_size=None)
    assert (published.min_pixels, published.max_pixels) == (3136, 12_845_056)
    assert (published.patch_size, published.temporal_patch_size, published.merge_size) == (14, 2, 2)
    Qwen2VLImageProcessorPil.from_pretrained(standin).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert "min_pixels" not in saved
    assert vision_config(tmp_path, image_size=None) == published


def test_the_resolution_is_the_bundles_choice(standin: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8))
    fixed, free = vision_config(standin), vision_config(standin, image_size=None)
    assert fixed == attrs.evolve(free, image_size=(448, 448))
    assert len(image_patches(image, fixed)[0]) == 4 * 256
    values, grid = image_patches(image, free)
    expected = Qwen2VLImageProcessorPil.from_pretrained(standin)(images=[image], return_tensors="np")
    np.testing.assert_array_equal(values, expected["pixel_values"])
    np.testing.assert_array_equal(grid, expected["image_grid_thw"])
    with pytest.raises(BundleError, match=r"^image_size: both sides must be multiples .* = 28 .*, got \[448, 450"):
        vision_config(standin, image_size=(448, 450))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": None}, r"patch_size: must be a whole number, got None"),
        ({"patch_size": "14"}, r"patch_size: must be a whole number, got '14'"),
        ({"patch_size": True}, r"patch_size: must be a whole number, got True"),
        ({"patch_size": 0}, r"patch_size: must be a size from 1 to 256, got 0"),
        ({"merge_size": ...}, r"merge_size: must be a whole number, but is missing"),
        ({"temporal_patch_size": 2.5}, r"temporal_patch_size: must be a whole number, got 2.5"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean: must be three numbers, for R, G and B, got \[0.5, 0.5\]"),
        ({"image_std": ...}, r"image_std: must be three numbers, for R, G and B, but is missing"),
        ({"image_std": [1, 1, 0]}, r"image_std: must be numbers from 1e-6 to 1e6"),
        ({"max_pixels": ...}, r"has neither max_pixels nor size.longest_edge"),
        ({"max_pixels": ..., "size": {"longest_edge": "big"}}, r"size.longest_edge: must be a whole number, got 'big'"),
        ({"max_pixels": 3000}, r"max_pixels: must be at least min_pixels = 3136, got 3000"),
        ({"do_resize": False}, r"do_resize: is False, but pydeper always prepares images with True"),
        ({"resample": 2}, r"resample: is 2, but pydeper always prepares images with 3"),
        ({"rescale_factor": 1.0}, r"rescale_factor: is 1.0, but pydeper always prepares images with 0.0039"),
    ],
)
def test_impossible_preprocessors(copied: Path, changes: dict[str, Any], message: str) -> None:
    path = copied / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))
    with pytest.raises(BundleError, match=rf"preprocessor_config\.json: {message}"):
        vision_config(copied)


@pytest.mark.parametrize(
    ("damage", "message"), [("{", "is not valid JSON"), ("[1]", "must hold an object, holds list")]
)
def test_a_damaged_preprocessor(tmp_path: Path, damage: str, message: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(damage)
    with pytest.raises(BundleError, match=rf"preprocessor_config\.json: {message}"):
        vision_config(tmp_path)
