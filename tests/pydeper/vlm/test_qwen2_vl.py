import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import onnx
import pytest
from onnx import helper

from pydeper.errors import BundleError, InvalidArgumentError
from pydeper.vlm import DecodingOptions, EncodedImage, Qwen2VLRuntime, open_vlm
from pydeper.vlm.image_patches import image_patches
from pydeper.vlm.onnx.decoder import Decoder
from pydeper.vlm.prompt import PromptTemplate
from tests.support import reference
from tests.support.images import random_image
from tests.support.small_vlm import SmallVLM

SIZES = [(84, 84), (60, 200), (300, 90), (17, 40), (500, 400)]  # width, height
SHORT = DecodingOptions(max_new_tokens=12)


def soft_tokens(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def vlm(request: pytest.FixtureRequest, small_vlm: SmallVLM) -> Qwen2VLRuntime:
    return small_vlm.open(request.param)


@pytest.fixture(scope="module")
def seen(vlm: Qwen2VLRuntime) -> EncodedImage:
    return vlm.encode_image(random_image(84, 84))


# Tokens, against transformers


@pytest.mark.parametrize("style", ["description", "caption"])
@pytest.mark.parametrize("size", SIZES)
def test_greedy_tokens_are_those_of_transformers(
    small_vlm: SmallVLM, vlm: Qwen2VLRuntime, size: tuple[int, int], style: str
) -> None:
    image = random_image(*size, seed=sum(size))
    soft = soft_tokens(2, seed=size[0])
    encoded = vlm.encode_image(image)
    plain = vlm.generate(encoded, style, None, SHORT)
    steered = vlm.generate(encoded, style, soft, SHORT)
    for soft_token, generation in zip([None, *soft], plain + steered, strict=True):
        expected = reference.greedy(
            small_vlm.model, vlm.config, small_vlm.tokenizer, small_vlm.prompts, style, image, soft_token, 12
        )
        assert list(generation.token_ids) == expected
        assert generation.text == small_vlm.tokenizer.decode(expected)
        assert generation.finish_reason == ("length" if len(expected) == 12 else "stop")


def test_the_small_model_is_a_fair_test(vlm: Qwen2VLRuntime) -> None:
    """Its text depends on the image, the persona and the style, and is more than one token over and over."""
    images = [vlm.encode_image(random_image(84, 84, seed)) for seed in range(4)]
    texts = [vlm.generate(image, "description", soft_tokens(3), SHORT) for image in images]
    token_ids = {generation.token_ids for row in texts for generation in row}
    assert len(token_ids) >= 9  # of 12 pairs of image and persona
    assert max(len(set(ids)) for ids in token_ids) > 5
    assert vlm.generate(images[0], "caption", soft_tokens(1), SHORT)[0].token_ids not in token_ids


@pytest.mark.parametrize("strength", [0, 0.5, 1, 2])
def test_strength_is_guidance_between_the_two_prompts(
    small_vlm: SmallVLM, vlm: Qwen2VLRuntime, seen: EncodedImage, strength: float
) -> None:
    soft = soft_tokens(2, seed=5)
    found = vlm.generate(seen, "description", soft, DecodingOptions(max_new_tokens=8, strength=strength))
    for soft_token, generation in zip(soft, found, strict=True):
        expected = reference.greedy(
            small_vlm.model,
            vlm.config,
            small_vlm.tokenizer,
            small_vlm.prompts,
            "description",
            random_image(84, 84),
            soft_token,
            8,
            strength,
        )
        assert list(generation.token_ids) == expected


def test_strength_0_is_the_plain_prompt(vlm: Qwen2VLRuntime, seen: EncodedImage) -> None:
    plain = vlm.generate(seen, "caption", None, SHORT)
    off = vlm.generate(seen, "caption", soft_tokens(3), attrs.evolve(SHORT, strength=0))
    assert off == plain * 3


# Batches, streams, threads


def test_a_batch_equals_one_by_one(vlm: Qwen2VLRuntime, seen: EncodedImage) -> None:
    soft = soft_tokens(6, seed=2)
    for options in (
        attrs.evolve(SHORT, max_new_tokens=40),
        DecodingOptions(max_new_tokens=40, temperature=1.0, top_p=0.9, seed=3),
        DecodingOptions(max_new_tokens=10, strength=1.5),
    ):
        together = vlm.generate(seen, "description", soft, options)
        alone = [vlm.generate(seen, "description", row[None], options)[0] for row in soft]
        assert together == alone


def test_rows_end_each_at_its_own_time(vlm: Qwen2VLRuntime, seen: EncodedImage) -> None:
    options = DecodingOptions(max_new_tokens=60, temperature=2.0, seed=1)
    found = vlm.generate(seen, "description", soft_tokens(8), options)
    lengths = {len(generation.token_ids) for generation in found}
    assert len(lengths) > 2
    assert {generation.finish_reason for generation in found} >= {"stop"}
    for generation in found:
        assert (generation.finish_reason == "length") == (len(generation.token_ids) == 60)


@pytest.mark.parametrize("seed", range(6))
def test_streamed_pieces_join_to_the_text(vlm: Qwen2VLRuntime, seen: EncodedImage, seed: int) -> None:
    soft = soft_tokens(1, seed)
    options = DecodingOptions(max_new_tokens=60, temperature=1.5, seed=seed)
    pieces = list(vlm.stream(seen, "description", soft[0], options))
    assert "".join(pieces) == vlm.generate(seen, "description", soft, options)[0].text
    assert all(pieces)
    assert list(vlm.stream(seen, "caption", None, SHORT)) != []


def test_threads_in_parallel_give_equal_results(small_vlm: SmallVLM, vlm: Qwen2VLRuntime) -> None:
    fresh = small_vlm.open()
    images = [random_image(84, 84, seed) for seed in range(2)]
    shared = fresh.encode_image(images[0])
    jobs = [(i, style) for i in range(6) for style in ("description", "caption")]
    start = threading.Barrier(4)

    def describe(job: tuple[int, str]) -> Any:
        if jobs.index(job) < 4:
            start.wait()
        i, style = job
        encoded = shared if i % 2 == 0 else fresh.encode_image(images[1])
        return fresh.generate(encoded, style, soft_tokens(2, seed=i), SHORT)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(describe, jobs))
    for (i, style), generations in zip(jobs, found, strict=True):
        encoded = vlm.encode_image(images[i % 2])
        assert generations == vlm.generate(encoded, style, soft_tokens(2, seed=i), SHORT)


def test_an_image_is_read_once_for_all_personas_and_styles(
    small_vlm: SmallVLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = small_vlm.open()
    fed: list[tuple[int, int]] = []
    extend = Decoder.extend

    def counted(decoder: Decoder, cache: Any, embeddings: np.ndarray, *more: Any, **options: Any) -> Any:
        if len(embeddings) == 1 or embeddings.shape[1] == 1:  # several rows with several tokens go in row by row
            fed.append(embeddings.shape[:2])
        return extend(decoder, cache, embeddings, *more, **options)

    monkeypatch.setattr(Decoder, "extend", counted)
    encoded = runtime.encode_image(random_image(84, 84))
    assert fed == []  # what follows the image is computed with it, in one pass
    template = PromptTemplate(small_vlm.prompts, small_vlm.config, small_vlm.tokenizer)
    image = len(template.image_ids(9))
    before, after = (len(part) for part in attrs.astuple(template.with_persona("description")))

    one = DecodingOptions(max_new_tokens=1)
    for rows in (1, 3, 1):
        runtime.generate(encoded, "description", soft_tokens(rows), one)
    held = encoded.nbytes
    runtime.generate(encoded, "caption", soft_tokens(2), one)  # nothing stands before <subj> in this style
    runtime.generate(encoded, "caption", None, one)
    caption = len(template.with_persona("caption").after)
    plain = len(template.without_persona("caption"))
    assert fed == [
        (1, image + before + 1 + after),
        *[(1, 1 + after)] * 4,
        *[(1, 1 + caption)] * 2,
        (1, plain),
    ]
    assert encoded.nbytes > held > encoded.features.nbytes


def test_an_encoded_image_cannot_be_changed(seen: EncodedImage) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        seen.grid = (1, 1, 1)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        seen.features[0] = 0


# Choice of tokens


def test_sampling_follows_its_seed(vlm: Qwen2VLRuntime, seen: EncodedImage) -> None:
    def sample(seed: int | None) -> tuple[int, ...]:
        options = DecodingOptions(max_new_tokens=20, temperature=1.0, seed=seed)
        return vlm.generate(seen, "description", soft_tokens(1), options)[0].token_ids

    assert sample(1) == sample(1)
    assert len({sample(seed) for seed in range(5)}) == 5
    assert len({sample(None) for _ in range(3)}) > 1


def test_the_suppressed_are_never_generated(small_vlm: SmallVLM) -> None:
    tokens = small_vlm.config.tokens
    # With everything suppressed but one token, that token is all there is, sampled or not.
    only = small_vlm.tokenizer.token_to_id("a")
    others = set(range(small_vlm.config.vocab_size)) - {only, *tokens.end}
    config = attrs.evolve(small_vlm.config, tokens=attrs.evolve(tokens, suppressed=tuple(sorted(others))))
    runtime = Qwen2VLRuntime(small_vlm.folder, config, small_vlm.prompts, small_vlm.tokenizer, threads=1)
    encoded = runtime.encode_image(random_image(84, 84))
    for options in (SHORT, attrs.evolve(SHORT, temperature=5.0, seed=0), attrs.evolve(SHORT, strength=3)):
        for generation in runtime.generate(encoded, "description", soft_tokens(3), options):
            assert set(generation.token_ids) <= {only}


def test_the_tokens_of_the_template_are_suppressed(small_vlm: SmallVLM) -> None:
    tokens = small_vlm.config.tokens
    assert {tokens.subject, tokens.image, small_vlm.tokenizer.token_to_id("<|im_start|>")} <= set(tokens.suppressed)


def test_wrong_arguments(small_vlm: SmallVLM, vlm: Qwen2VLRuntime, seen: EncodedImage) -> None:
    with pytest.raises(InvalidArgumentError, match="no style 'poem'; it has: 'description', 'caption'"):
        vlm.generate(seen, "poem", None, SHORT)
    with pytest.raises(InvalidArgumentError, match="no style 'poem'"):
        vlm.stream(seen, "poem", None, SHORT)  # at the call, not at the first piece
    with pytest.raises(InvalidArgumentError, match=r"64 numbers .* shape \(2, 63\)"):
        vlm.generate(seen, "caption", np.zeros((2, 63)), SHORT)
    with pytest.raises(InvalidArgumentError, match=r"shape \(64,\)"):
        vlm.generate(seen, "caption", np.zeros(64), SHORT)
    with pytest.raises(InvalidArgumentError, match="NaN"):
        vlm.stream(seen, "caption", np.full(64, np.nan), SHORT)
    with pytest.raises(InvalidArgumentError, match="another model"):
        small_vlm.open().generate(seen, "caption", None, SHORT)
    assert vlm.generate(seen, "caption", np.zeros((0, 64)), SHORT) == []


def test_the_context_is_a_limit(small_vlm: SmallVLM) -> None:
    def runtime(max_positions: int) -> Qwen2VLRuntime:
        config = attrs.evolve(small_vlm.config, max_positions=max_positions)
        return Qwen2VLRuntime(small_vlm.folder, config, small_vlm.prompts, small_vlm.tokenizer, threads=1)

    image = random_image(84, 84)
    ids = reference.prompt_ids(small_vlm.tokenizer, small_vlm.prompts, "description", 9, with_persona=True)
    roomy = runtime(len(ids) + 3)
    (generation,) = roomy.generate(roomy.encode_image(image), "description", soft_tokens(1), SHORT)
    assert len(generation.token_ids) == 3
    assert generation.finish_reason == "length"
    full = runtime(len(ids))
    encoded = full.encode_image(image)
    with pytest.raises(InvalidArgumentError, match=f"prompt takes {len(ids)} tokens .* holds {len(ids)}"):
        full.generate(encoded, "description", soft_tokens(1), SHORT)
    with pytest.raises(InvalidArgumentError, match="use a smaller image"):
        runtime(20).encode_image(image)


# Image patches


@pytest.mark.parametrize("size", [(1, 1), (27, 13), (28, 28), (400, 2), (1, 200), (84, 84)])
def test_small_and_narrow_images(small_vlm: SmallVLM, vlm: Qwen2VLRuntime, size: tuple[int, int]) -> None:
    image = random_image(*size)
    values, grid = image_patches(image, small_vlm.config.vision)
    expected, _ = reference.image_inputs(image, small_vlm.config)
    np.testing.assert_array_equal(values, expected.numpy())
    assert len(vlm.encode_image(image).features) == grid.prod() // 4


# Files


def test_open_vlm_describes(small_vlm: SmallVLM, vlm: Qwen2VLRuntime, seen: EncodedImage) -> None:
    model = open_vlm(str(small_vlm.folder), small_vlm.config, small_vlm.prompts, small_vlm.tokenizer, threads=1)
    encoded = model.encode_image(random_image(84, 84))
    assert model.generate(encoded, "caption", None, SHORT) == vlm.generate(seen, "caption", None, SHORT)


@pytest.fixture
def folder_copy(small_vlm: SmallVLM, tmp_path: Path) -> Iterator[Path]:
    for file in small_vlm.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("name", ["vision_encoder.onnx", "embed_tokens.npy", "decoder_model_merged.onnx"])
def test_missing_and_damaged_files(small_vlm: SmallVLM, folder_copy: Path, name: str) -> None:
    def load() -> None:
        Qwen2VLRuntime(folder_copy, small_vlm.config, small_vlm.prompts, small_vlm.tokenizer, threads=1)

    load()
    (folder_copy / name).write_bytes(b"not this")
    with pytest.raises(BundleError, match=name):
        load()
    (folder_copy / name).write_bytes(b"")
    with pytest.raises(BundleError, match=name):
        load()
    (folder_copy / name).unlink()
    with pytest.raises(BundleError, match=rf"no {name.split('.')[0]}|{name.split('.')[0]}\*"):
        load()


def test_files_of_another_size(small_vlm: SmallVLM, folder_copy: Path) -> None:
    for change, message in (
        ({"vocab_size": 999}, r"shape \(999, 64\), got float16 of shape"),
        ({"num_layers": 3}, r"lacks the input past_key_values.2.key, .* \(and 1 more\)"),
        ({"num_layers": 1}, r"wants the input past_key_values.1.key, which pydeper does not know \(and 1 more\)"),
        (
            {"head_dim": 8},
            r"past_key_values.0.key is of shape .* \(vlm.*head_dim\): the file is",
        ),
    ):
        config = attrs.evolve(small_vlm.config, **change)
        with pytest.raises(BundleError, match=message):
            Qwen2VLRuntime(folder_copy, config, small_vlm.prompts, small_vlm.tokenizer, threads=1)
    np.save(folder_copy / "embed_tokens.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BundleError, match=r"embed_tokens\.npy: not a numpy array file"):
        Qwen2VLRuntime(folder_copy, small_vlm.config, small_vlm.prompts, small_vlm.tokenizer, threads=1)


def test_a_graph_whose_output_is_one_number(small_vlm: SmallVLM, folder_copy: Path) -> None:
    path = folder_copy / "vision_encoder.onnx"
    node = helper.make_node("ReduceMax", ["pixel_values"], ["image_features"], keepdims=0)
    output = helper.make_tensor_value_info("image_features", onnx.TensorProto.FLOAT, [])
    graph = helper.make_graph([node], "another", onnx.load(path).graph.input, [output])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString())
    with pytest.raises(BundleError, match=r"image_features is of shape \[\], .* \['any', 64\] \(vlm\.hidden_size\)"):
        Qwen2VLRuntime(folder_copy, small_vlm.config, small_vlm.prompts, small_vlm.tokenizer, threads=1)
