"""Published ONNX repositories as they are: what they compute, and what the runtime makes of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import SmallVLM, random_image
from lookalike import write_lookalike
from PIL import Image
from reference import greedy, image_inputs, prompt_ids

from pydeper.config import Precision
from pydeper.vlm.files import find_files

STEPS = 12
IMAGE = random_image(150, 90)


@pytest.fixture(scope="session")
def published(small_vlm: SmallVLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in all precisions, with weights outside of the fp32 and q4 graphs."""
    folder = tmp_path_factory.mktemp("published")
    return write_lookalike(folder, small_vlm.model, ["fp32", "fp16", "quantized", "q4"], outside=["fp32", "q4"])


def soft_token(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(64).astype(np.float32)


def expected_tokens(small_vlm: SmallVLM, style: str, image: Image.Image, soft: np.ndarray | None) -> list[int]:
    config, prompts = small_vlm.config, small_vlm.prompts
    return greedy(small_vlm.model, config, small_vlm.tokenizer, prompts, style, image, soft, STEPS)


@torch.no_grad()
def plain_tokens(
    folder: Path, precision: Precision, small_vlm: SmallVLM, style: str, image: Image.Image, soft: np.ndarray | None
) -> list[int]:
    """What a repository's graphs say themselves: greedy decoding, the whole sequence at every step, nothing cached."""
    files, tokens = find_files(folder, precision), small_vlm.config.tokens
    vision, table, decoder = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (files.vision_encoder, files.embeddings, files.decoder)
    )
    pixels, grid = image_inputs(image, small_vlm.config)
    pixels_name, grid_name = (value.name for value in vision.get_inputs())
    (features,) = vision.run(None, {pixels_name: pixels.numpy(), grid_name: grid.numpy()})
    start = prompt_ids(small_vlm.tokenizer, small_vlm.prompts, style, len(features), with_persona=soft is not None)
    ids = list(start)
    while len(ids) < len(start) + STEPS:
        row = np.array([ids])
        (embeds,) = table.run(None, {"input_ids": row})
        embeds[row == tokens.image] = features
        if soft is not None:
            embeds[row == tokens.subject] = soft
        is_image = torch.from_numpy(row == tokens.image)
        positions, _ = small_vlm.model.model.get_rope_index(
            torch.from_numpy(row), mm_token_type_ids=is_image.int(), image_grid_thw=grid
        )
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        past = {
            value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), types[value.type])
            for value in decoder.get_inputs()
            if value.name.startswith("past_key_values.")
        }
        feeds = {
            "inputs_embeds": embeds,
            "attention_mask": np.ones_like(row),
            "position_ids": positions.numpy(),
            **past,
        }
        (logits,) = decoder.run(["logits"], feeds)
        assert logits.shape == (1, len(ids), small_vlm.config.vocab_size)
        logits[..., list(tokens.suppressed)] = -np.inf
        best = int(logits[0, -1].argmax())
        if best in tokens.end:
            break
        ids.append(best)
    return ids[len(start) :]


@pytest.mark.parametrize("steered", [False, True])
def test_the_look_alike_computes_what_transformers_does(published: Path, small_vlm: SmallVLM, steered: bool) -> None:
    soft = soft_token() if steered else None
    found = plain_tokens(published, "fp32", small_vlm, "description", IMAGE, soft)
    assert found == expected_tokens(small_vlm, "description", IMAGE, soft)
    assert len(set(found)) > 3


def test_the_look_alikes_cache_continues_what_it_holds(published: Path, small_vlm: SmallVLM) -> None:
    decoder = onnxruntime.InferenceSession(find_files(published, "fp32").decoder, providers=["CPUExecutionProvider"])
    names = [value.name for value in decoder.get_inputs() if value.name.startswith("past_key_values.")]
    embeds = np.random.default_rng(0).standard_normal((2, 9, 64)).astype(np.float32)
    positions = np.broadcast_to(np.arange(9), (3, 2, 9))

    def run(start: int, end: int, past: Sequence[np.ndarray]) -> list[np.ndarray]:
        mask, cache = np.ones((2, end), np.int64), dict(zip(names, past, strict=True))
        placed = np.ascontiguousarray(positions[..., start:end])
        new = {"inputs_embeds": embeds[:, start:end], "attention_mask": mask, "position_ids": placed}
        return decoder.run(None, new | cache)

    empty = [np.zeros((2, 2, 0, 16), np.float32) for _ in names]
    whole = run(0, 9, empty)
    for cut in (1, 5, 8):
        logits, *present = run(cut, 9, run(0, cut, empty)[1:])
        np.testing.assert_allclose(logits, whole[0][:, cut:], atol=1e-4)
        for one, other in zip(present, whole[1:], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
