from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from export.qwen2_vl.export import export_vlm
from pydeper.vlm import DecodingOptions, Qwen2VLRuntime
from tests.support.images import random_image
from tests.support.paths import ROOT
from tests.support.small_vlm import SmallVLM
from training.vlm.steered_vlm import vlm_config

FILES = ["decoder_model_merged.onnx", "embed_tokens.npy", "vision_encoder.onnx"]


def test_the_export_reports_how_near_it_is(small_vlm: SmallVLM) -> None:
    report = small_vlm.report
    assert report.rounding == 0
    assert all(0 < error < 1e-5 for error in (report.vision_error, report.prefill_error, report.step_error)), report
    assert min(report.vision_cosine, report.logits_cosine) > 1 - 1e-9
    assert report.prefill_cosine is None
    assert sorted(file.name for file in small_vlm.folder.iterdir()) == FILES


def test_files_hold_nothing_of_the_machine(small_vlm: SmallVLM) -> None:
    here = str(ROOT).encode()
    for file in small_vlm.folder.iterdir():
        data = file.read_bytes()
        assert here not in data
        assert b".py" not in data


def test_fp16_storage_changes_no_number(small_vlm: SmallVLM, exported_vlm: Path) -> None:
    """From a folder in the Hub's layout, in fp32: the same descriptions to the last bit, in larger files."""
    rng = np.random.default_rng(0)
    feeds = {
        "pixel_values": rng.standard_normal((48, 1176), dtype=np.float32),
        "image_grid_thw": np.array([[1, 4, 6], [1, 6, 4]]),
    }
    full, half = (
        onnxruntime.InferenceSession(folder / "vision_encoder.onnx").run(None, feeds)[0]
        for folder in (exported_vlm, small_vlm.folder)
    )
    np.testing.assert_array_equal(full, half)
    for name in FILES:
        assert (exported_vlm / name).stat().st_size > 1.3 * (small_vlm.folder / name).stat().st_size
    runtime = Qwen2VLRuntime(exported_vlm, small_vlm.config, small_vlm.prompts, small_vlm.tokenizer, threads=1)
    options = DecodingOptions(max_new_tokens=8)
    soft = rng.standard_normal((2, 64))
    image = random_image(84, 84)
    found, expected = (
        model.generate(model.encode_image(image), "description", soft, options) for model in (runtime, small_vlm.open())
    )
    assert found == expected


def test_an_export_that_fails_its_check_leaves_nothing(small_vlm: SmallVLM, tmp_path: Path) -> None:
    model = Qwen2VLForConditionalGeneration(small_vlm.model.config).to(torch.bfloat16).train()
    with pytest.raises(ValueError, match=r"differ from transformers by \d"):
        export_vlm(model, tmp_path, "fp32", parity_tolerance=0.0)
    assert list(tmp_path.iterdir()) == []
    assert model.dtype == torch.bfloat16  # the caller's model is left alone
    assert model.training


def test_architectures_that_are_not_stated(small_vlm: SmallVLM, tmp_path: Path) -> None:
    config = type(small_vlm.model.config).from_dict(small_vlm.model.config.to_dict())
    model = Qwen2VLForConditionalGeneration(config).eval()
    config.text_config.layer_types = ["full_attention", "sliding_attention"]
    with pytest.raises(ValueError, match="layer_types"):
        export_vlm(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_tokens_come_from_the_model(small_vlm: SmallVLM) -> None:
    config, tokens = small_vlm.config, small_vlm.config.tokens
    assert (config.hidden_size, config.num_layers, config.num_key_value_heads, config.head_dim) == (64, 2, 2, 16)
    assert config.vocab_size == small_vlm.tokenizer.get_vocab_size() + 5
    assert tokens.end == tuple(map(small_vlm.tokenizer.token_to_id, ("<|im_end|>", "<|endoftext|>")))
    unused = set(range(config.vocab_size - 5, config.vocab_size))
    assert len(tokens.suppressed) == 5 + 5
    assert unused < set(tokens.suppressed)
    with pytest.raises(ValueError, match="no token <stop>"):
        vlm_config(small_vlm.model.config, small_vlm.tokenizer, config.vision, base_model="x", end=["<stop>"])
