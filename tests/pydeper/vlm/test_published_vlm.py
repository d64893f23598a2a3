"""Published ONNX repositories as they are: what they compute, and what the runtime makes of them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from export.bundle.assemble import assemble, write_manifest
from pydeper import BundleError, DeperModel, Persona
from pydeper.bundle.bundle import read_config
from pydeper.bundle.config import Precision
from pydeper.bundle.layout import BUILTIN
from pydeper.bundle.vlm_files import find_files
from pydeper.runtime.target import Runtime
from pydeper.vlm import DecodingOptions, VisionLanguageModel, open_vlm
from tests.support.images import random_image
from tests.support.lookalike import Variant, write_lookalike
from tests.support.random_samples import make_sample
from tests.support.reference import greedy, image_inputs, prompt_ids
from tests.support.small_vlm import SmallVLM

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


# What the runtime makes of them


def open_it(
    folder: Path, small_vlm: SmallVLM, precision: Precision, runtime: Runtime = "onnxruntime"
) -> VisionLanguageModel:
    config, prompts, tokenizer = small_vlm.config, small_vlm.prompts, small_vlm.tokenizer
    return open_vlm(folder, config, prompts, tokenizer, precision=precision, runtime=runtime, threads=1)


def runtime_tokens(vlm: VisionLanguageModel, style: str, image: Image.Image, soft: np.ndarray | None) -> list[int]:
    soft_tokens = None if soft is None else soft[None]
    (found,) = vlm.generate(vlm.encode_image(image), style, soft_tokens, DecodingOptions(max_new_tokens=STEPS))
    return list(found.token_ids)


@pytest.mark.parametrize("style", ["description", "caption"])
@pytest.mark.parametrize("steered", [False, True])
@pytest.mark.parametrize("size", [(56, 56), (150, 90), (70, 200)])
def test_in_fp32_every_token_is_transformers(
    published: Path, small_vlm: SmallVLM, style: str, steered: bool, size: tuple[int, int]
) -> None:
    image, soft = random_image(*size, seed=3), soft_token(1) if steered else None
    found = runtime_tokens(open_it(published, small_vlm, "fp32"), style, image, soft)
    assert found == expected_tokens(small_vlm, style, image, soft)


def test_many_people_at_once(published: Path, small_vlm: SmallVLM) -> None:
    vlm = open_it(published, small_vlm, "fp32")
    people = np.stack([soft_token(seed) for seed in range(5)])
    options = DecodingOptions(max_new_tokens=STEPS)
    found = vlm.generate(vlm.encode_image(IMAGE), "description", people, options)
    expected = [expected_tokens(small_vlm, "description", IMAGE, soft) for soft in people]
    assert [list(one.token_ids) for one in found] == expected


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_in_other_precisions_every_token_is_the_graphs(
    published: Path, small_vlm: SmallVLM, precision: Precision
) -> None:
    vlm = open_it(published, small_vlm, precision)
    for soft in (None, soft_token(), soft_token(1)):
        expected = plain_tokens(published, precision, small_vlm, "description", IMAGE, soft)
        assert runtime_tokens(vlm, "description", IMAGE, soft) == expected


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int4"])
def test_openvino_gives_the_same_tokens(published: Path, small_vlm: SmallVLM, precision: Precision) -> None:
    people = np.stack([soft_token(seed) for seed in range(3)])
    found = []
    for runtime in get_args(Runtime):
        vlm = open_it(published, small_vlm, precision, runtime)
        images = [vlm.encode_image(random_image(*size)) for size in ((56, 56), (150, 90), (70, 200))]
        rows = vlm.generate(images, "description", people, DecodingOptions(max_new_tokens=STEPS))
        found.append([row.token_ids for row in rows])
    assert found[0] == found[1]


def test_dynamic_quantisation(published: Path, small_vlm: SmallVLM) -> None:
    # Scales that depend on all that is computed at once: with a cache the numbers are others than without.
    vlm = open_it(published, small_vlm, "int8")
    found = runtime_tokens(vlm, "description", IMAGE, soft_token())
    assert found == runtime_tokens(vlm, "description", IMAGE, soft_token())
    assert 0 < len(found) <= STEPS


@pytest.mark.parametrize("variant", ["fp16", "q4f16"])
@pytest.mark.parametrize("cache_type", ["float32", "float16"])
def test_forms_that_compute_in_float16(
    small_vlm: SmallVLM, tmp_path: Path, variant: Variant, cache_type: Literal["float32", "float16"]
) -> None:
    folder = write_lookalike(
        tmp_path, small_vlm.model, [variant], grid_name="image_grid_thw", cache_type=cache_type, outside=[variant]
    )
    precision: Precision = "fp16" if variant == "fp16" else "int4"
    vlm = open_it(folder, small_vlm, precision)
    for soft in (None, soft_token()):
        expected = plain_tokens(folder, precision, small_vlm, "description", IMAGE, soft)
        assert runtime_tokens(vlm, "description", IMAGE, soft) == expected


def test_missing_data_beside_a_graph_is_named(small_vlm: SmallVLM, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "cut")
    for name in ("decoder_model_merged_q4.onnx_data", "decoder_model_merged.onnx_data_1", "embed_tokens.onnx_data"):
        path = tmp_path / "cut" / "onnx" / name
        path.unlink()
        with pytest.raises(BundleError, match=re.escape(name)):
            open_it(tmp_path / "cut", small_vlm, "int4" if "q4" in name else "fp32")
        shutil.copyfile(published / "onnx" / name, path)


def test_a_graph_that_lacks_an_input_is_named(small_vlm: SmallVLM, published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "other")
    path = tmp_path / "other" / "onnx" / "decoder_model_merged_fp16.onnx"
    graph = onnx.load(path)
    index = [value.name for value in graph.graph.input].index("position_ids")
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros((3, 1, 1), np.int64), "position_ids"))
    del graph.graph.input[index]
    onnx.save(graph, path)
    with pytest.raises(BundleError, match=r"decoder_model_merged_fp16\.onnx: .*position_ids"):
        open_it(tmp_path / "other", small_vlm, "fp16")


def test_as_the_vlm_of_a_bundle_and_from_the_hub(
    published: Path, small_vlm: SmallVLM, bundle_parts: dict[str, Any], tmp_path: Path, hub_server: Any
) -> None:
    inside = assemble(tmp_path / "inside", **bundle_parts | {"vlm": published})
    commit = hub_server.publish("org/vlm", published)
    config = bundle_parts["config"]
    vlm = attrs.evolve(config.vlm, source="org/vlm", source_revision=commit)
    parts = bundle_parts | {"config": attrs.evolve(config, vlm=vlm), "vlm": None}
    outside = assemble(tmp_path / "outside", **parts)
    assert {name for name in hub_server.downloaded("org/vlm") if "onnx/" in name} == {
        f"onnx/{part}.onnx{data}"
        for part in ("vision_encoder", "embed_tokens", "decoder_model_merged")
        for data in ("", "_data")
    } | {"onnx/decoder_model_merged.onnx_data_1"}
    persona = Persona.from_samples(
        [make_sample(seed) for seed in range(5)], model=DeperModel.from_pretrained(inside, precision="fp32")
    )
    for precision in ("fp32", "int4"):
        texts = [
            DeperModel.from_pretrained(folder, device="cpu", threads=1, precision=precision).describe(
                IMAGE, persona, max_new_tokens=STEPS
            )
            for folder in (inside, outside)
        ]
        assert texts[0] == texts[1]
    # Nothing more is asked of the Hub, nor needed.
    requests = hub_server.requests
    hub_server.shutdown()
    model = DeperModel.from_pretrained(outside, device="cpu", threads=1)
    adapter = onnxruntime.InferenceSession(outside / "adapter.onnx", providers=["CPUExecutionProvider"])
    ((soft,),) = adapter.run(None, {"subject_embedding": persona.subject_embedding[None]})
    expected = small_vlm.tokenizer.decode(expected_tokens(small_vlm, "description", IMAGE, soft))
    assert model.describe(IMAGE, persona, max_new_tokens=STEPS) == expected
    assert hub_server.requests == requests


def test_the_built_in_model_with_its_vlm_on_the_hub(tmp_path: Path, hub_server: Any) -> None:
    folder, scene = tmp_path / "tiny", BUILTIN / "tiny" / "demo" / "scene.png"
    shutil.copytree(BUILTIN / "tiny", folder)
    commit = hub_server.publish("org/tiny-vlm", folder / "vlm")
    shutil.rmtree(folder / "vlm")
    config = read_config(folder)
    vlm = attrs.evolve(config.vlm, source="org/tiny-vlm", source_revision=commit)
    (folder / "config.json").write_text(attrs.evolve(config, vlm=vlm).to_json())
    write_manifest(folder)
    program = "import sys, pydeper; print(pydeper.DeperModel.from_pretrained(sys.argv[1]).describe(sys.argv[2]))"
    run = subprocess.run(
        [sys.executable, "-c", program, folder, scene],
        env={**os.environ, "HF_ENDPOINT": hub_server.url, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == DeperModel.from_pretrained("tiny").describe(scene)
    assert hub_server.downloaded("org/tiny-vlm") == {
        "vision_encoder.onnx",
        "embed_tokens.npy",
        "decoder_model_merged.onnx",
    }
