"""What Optimum exported for OpenVINO, as it is: the tokens of transformers and of ONNX Runtime."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any, get_args

import attrs
import numpy as np
import pytest

from export.bundle.assemble import assemble
from pydeper import BundleError, DeperModel, Persona, RuntimeMissingError
from pydeper.runtime.target import Runtime
from pydeper.vlm import DecodingOptions, EncodedImage, Qwen2VLRuntime
from pydeper.vlm.protocol import Row
from tests.support.images import random_image
from tests.support.paths import OPTIMUM
from tests.support.random_samples import make_sample
from tests.support.reference import greedy
from tests.support.small_vlm import SmallVLM

SHORT = DecodingOptions(max_new_tokens=12)
SIZES = [(84, 84), (60, 200), (300, 90), (17, 40)]


def open_it(small_vlm: SmallVLM, folder: Path = OPTIMUM) -> Qwen2VLRuntime:
    config, prompts, tokenizer = small_vlm.config, small_vlm.prompts, small_vlm.tokenizer
    return Qwen2VLRuntime(folder, config, prompts, tokenizer, runtime="openvino", threads=1)


@pytest.fixture(scope="module")
def vlm(small_vlm: SmallVLM) -> Qwen2VLRuntime:
    return open_it(small_vlm)


@pytest.fixture(scope="module")
def seen(vlm: Qwen2VLRuntime) -> EncodedImage:
    return vlm.encode_image(random_image(84, 84))


def soft_tokens(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)


@pytest.mark.parametrize("style", ["description", "caption"])
@pytest.mark.parametrize("size", SIZES)
def test_greedy_tokens_are_those_of_transformers_and_onnx_runtime(
    small_vlm: SmallVLM, vlm: Qwen2VLRuntime, size: tuple[int, int], style: str
) -> None:
    image, soft = random_image(*size, seed=sum(size)), soft_tokens(2, seed=size[0])
    encoded = vlm.encode_image(image)
    found = vlm.generate(encoded, style, None, SHORT) + vlm.generate(encoded, style, soft, SHORT)
    for one, generation in zip([None, *soft], found, strict=True):
        expected = greedy(small_vlm.model, vlm.config, small_vlm.tokenizer, small_vlm.prompts, style, image, one, 12)
        assert list(generation.token_ids) == expected
    on_onnx = small_vlm.open()
    assert on_onnx.generate(on_onnx.encode_image(image), style, soft, SHORT) == found[1:]


def test_features_are_those_of_our_own_vision_encoder(small_vlm: SmallVLM, vlm: Qwen2VLRuntime) -> None:
    image = random_image(60, 200)
    ours, theirs = small_vlm.open().encode_image(image), vlm.encode_image(image)
    np.testing.assert_allclose(theirs.features, ours.features, atol=1e-4)


def test_one_image_for_personas_styles_and_the_plain_question(
    small_vlm: SmallVLM, vlm: Qwen2VLRuntime, seen: EncodedImage
) -> None:
    """Nothing of a row stays in the model: in any order, and again, each is as on ONNX Runtime."""
    on_onnx = small_vlm.open()
    image = on_onnx.encode_image(random_image(84, 84))
    for style, soft in [("caption", soft_tokens(3)), ("description", soft_tokens(2)), ("description", None)] * 2:
        assert vlm.generate(seen, style, soft, SHORT) == on_onnx.generate(image, style, soft, SHORT)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_strength(small_vlm: SmallVLM, vlm: Qwen2VLRuntime, seen: EncodedImage, strength: float) -> None:
    options = attrs.evolve(SHORT, strength=strength)
    on_onnx = small_vlm.open()
    image = on_onnx.encode_image(random_image(84, 84))
    expected = on_onnx.generate(image, "description", soft_tokens(2), options)
    assert vlm.generate(seen, "description", soft_tokens(2), options) == expected


def test_rows_of_different_images_that_join_and_leave(vlm: Qwen2VLRuntime) -> None:
    rows = [
        Row(vlm.encode_image(random_image(*size)), soft, style, DecodingOptions(max_new_tokens=limit))
        for size, soft, style, limit in zip(
            SIZES, [*soft_tokens(3), None], ["description", "caption"] * 2, [9, 4, 12, 7], strict=True
        )
    ]
    joining = iter([rows[1:2], [], rows[2:]])
    texts = [""] * len(rows)
    for number, piece in vlm.stream_rows(rows[:1], more=lambda running: next(joining, [])):
        assert piece is None or isinstance(piece, str)
        texts[number] += piece or ""
    for row, text in zip(rows, texts, strict=True):
        assert text == "".join(vlm.stream(row.image, row.style, row.soft_token, row.options))


# As the VLM of a bundle


@pytest.fixture(scope="module")
def bundle(bundle_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with nothing for ONNX Runtime but the persona encoder and the adapter."""
    return assemble(tmp_path_factory.mktemp("bundles") / "optimum", **bundle_parts | {"vlm": OPTIMUM})


@pytest.fixture(scope="module")
def both(bundle_parts: dict[str, Any], small_vlm: SmallVLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the VLM for both runtimes."""
    folder = shutil.copytree(small_vlm.folder, tmp_path_factory.mktemp("both") / "vlm")
    shutil.copytree(OPTIMUM, folder / "openvino_fp32")
    return assemble(folder.parent / "bundle", **bundle_parts | {"vlm": folder})


def test_a_bundle_for_openvino_takes_it_by_itself(bundle: Path, bundle_folder: Path) -> None:
    model = DeperModel.from_pretrained(bundle, threads=1)
    report = model.report()
    assert report.runtime.endswith("the only one that reads the model's files")
    assert report.vlm["decoder"] == "openvino_language_model.xml"
    reference = DeperModel.from_pretrained(bundle_folder, threads=1, runtime="onnxruntime")
    ana = Persona.from_samples([make_sample(seed) for seed in range(5)], model=model)
    image = random_image(150, 90)
    assert model.describe(image, ana, max_new_tokens=12) == reference.describe(image, ana, max_new_tokens=12)


def test_a_bundle_for_both_has_the_files_of_the_runtime_that_is_taken(both: Path) -> None:
    decoders = {
        runtime: DeperModel.from_pretrained(both, runtime=runtime, threads=1).report().vlm["decoder"]
        for runtime in (*get_args(Runtime), None)
    }
    assert decoders == {
        "onnxruntime": "decoder_model_merged.onnx",
        "openvino": "openvino_language_model.xml",
        None: "decoder_model_merged.onnx",
    }


def test_files_of_the_other_runtime_need_not_be_there(both: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(both, tmp_path / "bundle")
    (folder / "vlm" / "decoder_model_merged.onnx").unlink()
    assert DeperModel.from_pretrained(folder, runtime="openvino", threads=1)
    with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx"):
        DeperModel.from_pretrained(folder, runtime="onnxruntime", threads=1)


def test_onnx_runtime_is_refused_where_openvino_alone_reads_the_files(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = r"for OpenVINO alone: use runtime='openvino' .*pip install.*`python -m export vlm`"
    with pytest.raises(BundleError, match=message):
        DeperModel.from_pretrained(bundle, runtime="onnxruntime")
    monkeypatch.setenv("PYDEPER_RUNTIME", "onnxruntime")
    with pytest.raises(BundleError, match=message):
        DeperModel.from_pretrained(bundle)


def test_openvino_is_missing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeMissingError, match=r'for \'openvino\', which is not installed: .*pydeper\[openvino\]"'):
        DeperModel.from_pretrained(bundle)


def test_as_the_vlm_on_the_hub(bundle: Path, bundle_parts: dict[str, Any], tmp_path: Path, hub_server: Any) -> None:
    commit = hub_server.publish("org/optimum", OPTIMUM)
    config = bundle_parts["config"]
    vlm = attrs.evolve(config.vlm, source="org/optimum", source_revision=commit)
    parts = bundle_parts | {"config": attrs.evolve(config, vlm=vlm), "vlm": None}
    outside = assemble(tmp_path / "outside", **parts)
    image = random_image(150, 90)
    texts = [
        DeperModel.from_pretrained(each, threads=1).describe(image, max_new_tokens=6) for each in (bundle, outside)
    ]
    assert texts[0] == texts[1]


# What is wrong


def test_weights_of_another_precision_are_refused(small_vlm: SmallVLM) -> None:
    config, prompts, tokenizer = small_vlm.config, small_vlm.prompts, small_vlm.tokenizer
    with pytest.raises(BundleError, match=r"its weights are in fp32, not in int4: .*vlm\.precision"):
        Qwen2VLRuntime(OPTIMUM, config, prompts, tokenizer, runtime="openvino", precision="int4")


@pytest.mark.parametrize("name", sorted(path.name for path in OPTIMUM.iterdir()))
def test_a_file_that_is_missing_or_cut_short_is_named(small_vlm: SmallVLM, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(OPTIMUM, tmp_path / "vlm")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match=re.escape(name.partition(".")[0])):
        open_it(small_vlm, folder)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=re.escape(name.partition(".")[0])):
        open_it(small_vlm, folder)


def test_a_model_of_other_sizes_is_refused(small_vlm: SmallVLM) -> None:
    config = attrs.evolve(small_vlm.config, num_layers=3)
    with pytest.raises(BundleError, match=r"openvino_language_model\.xml: lacks the input past_key_values\.2\.key"):
        Qwen2VLRuntime(OPTIMUM, config, small_vlm.prompts, small_vlm.tokenizer, runtime="openvino")
