"""Every precision of an export: how near it is to transformers, as a whole and in its vision encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from export.graphs.parity import ParityError, cpu_session, smallest_cosine, typical_cosine
from export.qwen2_vl import export
from export.qwen2_vl.decoder import layer_weights
from export.qwen2_vl.export import ROUNDING, SUFFIXES, VLMExport, export_vlm
from export.qwen2_vl.parity import LEAST_COSINE
from pydeper.bundle.config import Precision
from pydeper.bundle.vlm_files import find_files
from pydeper.vlm import DecodingOptions
from tests.export.qwen2_vl.uneven_vlm import ROUNDED, Exported
from tests.support.images import random_image
from tests.support.reference import greedy, image_inputs
from tests.support.small_vlm import PROMPTS, SmallVLM

# The first test to need it waits for the shared export, which a busy machine makes slow.
pytestmark = pytest.mark.timeout(900)

SHORT = DecodingOptions(max_new_tokens=10)


# Whole models


@pytest.mark.parametrize("precision", ROUNDED)
def test_every_precision_opens_and_describes(exported: Exported, precision: Precision) -> None:
    model = exported.open(precision)
    report = model.report()
    assert report["precision"] == precision
    assert report["decoder"] == f"decoder_model_merged{SUFFIXES[precision]}.onnx"
    assert report["vision encoder"] == f"vision_encoder{'_fp16' if precision == 'fp16' else '_int8'}.onnx"
    assert report["key/value cache"] == "written in place"
    soft = np.random.default_rng(0).standard_normal((3, exported.config.hidden_size)).astype(np.float32)
    encoded = model.encode_image(random_image(84, 84))
    together = model.generate(encoded, "description", soft, SHORT)
    alone = [model.generate(encoded, "description", row[None], SHORT)[0] for row in soft]
    # Sums of one row and of several are not formed in one order, so only what has one prompt alone is equal for sure.
    assert [generation.token_ids[0] for generation in together] == [generation.token_ids[0] for generation in alone]
    assert len({generation.token_ids for generation in together}) == 3
    assert "".join(model.stream(encoded, "description", soft[0], SHORT)) == alone[0].text


def test_half_precision_chooses_the_tokens_of_transformers(exported: Exported) -> None:
    model = exported.open("fp16")
    rng = np.random.default_rng(1)
    equal = []
    for seed in range(4):
        image, soft = random_image(84, 84, seed), rng.standard_normal(exported.config.hidden_size).astype(np.float32)
        (found,) = model.generate(model.encode_image(image), "description", soft[None], SHORT)
        expected = greedy(exported.model, exported.config, exported.tokenizer, PROMPTS, "description", image, soft, 10)
        # Once a near tie is decided otherwise, the rest is another text.
        equal += [mine == theirs for mine, theirs in zip(found.token_ids, expected, strict=False)]
        assert found.token_ids[0] == expected[0]
    assert np.mean(equal) > 0.8


# Vision encoders


@pytest.mark.parametrize("precision", ROUNDED)
def test_image_features_in_every_precision(exported: Exported, precision: Precision) -> None:
    model = exported.open(precision)
    for size in ((84, 84), (60, 200), (500, 400)):
        image = random_image(*size)
        with torch.no_grad():
            expected = exported.model.model.visual(*image_inputs(image, exported.config)).pooler_output
        cosine = smallest_cosine(model.encode_image(image).features, expected)
        assert cosine > (0.9999 if precision == "fp16" else 0.99)
    assert exported.reports[precision].vision_cosine > 0.99


def test_wide_vision_encoders_multiply_integers(exported: Exported) -> None:
    graph = onnx.load(exported.folder / "int4" / "vision_encoder_int8.onnx").graph
    integers = sum(node.op_type == "MatMulIntegerToFloat" for node in graph.node)
    assert integers == 11  # in each of two blocks qkv, proj and two of the MLP; the patches; the merger's two


@pytest.mark.parametrize("precision", SUFFIXES)
def test_several_images_in_one_call(exported: Exported, small_vlm: SmallVLM, precision: Precision) -> None:
    exact = precision == "fp32"
    folder = small_vlm.folder if exact else exported.folder / precision
    visual = (small_vlm if exact else exported).model.model.visual
    session = cpu_session(find_files(folder, precision).vision_encoder)
    rng = np.random.default_rng(0)

    def features(grids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        pixels = rng.standard_normal((int(np.prod(grids, axis=1).sum()), 1176), dtype=np.float32)
        (found,) = session.run(None, {"pixel_values": pixels, "image_grid_thw": np.array(grids)})
        with torch.no_grad():
            expected = visual(torch.from_numpy(pixels), torch.tensor(grids)).pooler_output
        return found, expected.numpy()

    for grids in ([[1, 4, 6]], [[1, 4, 6], [1, 6, 4]], [[1, 2, 12], [1, 12, 2], [1, 4, 6]]):
        assert smallest_cosine(*features(grids)) > 0.99
    for grids in ([[1, 4, 6], [1, 4, 4]], [[1, 4, 4], [1, 4, 6], [1, 4, 5]], [[1, 2, 2], [1, 4, 8]]):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail, match="Reshape"):
            features(grids)


# The source


def test_exports_leave_the_model_alone(exported: Exported) -> None:
    after = exported.source.state_dict()
    assert after.keys() == exported.before.keys()
    assert all(torch.equal(after[name], weights) for name, weights in exported.before.items())
    assert exported.source.dtype == torch.bfloat16
    assert exported.source.training
    assert exported.source.lm_head.weight is exported.source.get_input_embeddings().weight


def test_reports_tell_the_precisions_apart(exported: Exported) -> None:
    cosines = [exported.reports[precision].logits_cosine for precision in ("fp16", "int8", "int4")]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[1] > 0.99
    prefill = {precision: report.prefill_cosine for precision, report in exported.reports.items()}
    assert {precision for precision, cosine in prefill.items() if cosine is None} == {"fp16"}
    assert all(max(report.prefill_error, report.step_error) < 0.25 for report in exported.reports.values())


def test_a_few_tokens_with_massive_activations_are_no_fault_of_the_graph() -> None:
    exact = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    exact[[0, 7], 5] = 20_000
    rounded = exact.copy()
    rounded[[0, 7]] = 0  # beside such a channel, and without it, nothing is left of the others
    assert smallest_cosine(rounded, exact) == 0
    assert typical_cosine(rounded, exact) == pytest.approx(1)
    rounded[::2] = 0
    assert typical_cosine(rounded, exact) < LEAST_COSINE


def test_wrong_layers_for_long_prompts_are_found(
    uneven_vlm: Qwen2VLForConditionalGeneration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchanged(layer: Any) -> dict[str, np.ndarray]:
        weights = layer_weights(layer)
        return weights | {"gate": weights["up"], "up": weights["gate"]}

    monkeypatch.setattr(export, "layer_weights", exchanged)
    with pytest.raises(ParityError, match="layers for long prompts: a layer's typical cosine"):
        export_vlm(uneven_vlm, tmp_path / "out", "int8")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precision": "fp16", "rounding": ROUNDING["int4"]}, "rounding goes with precisions 'int8' and 'int4' only"),
        ({"precision": "int2"}, "precision is 'int2'; choose one of 'fp32', 'fp16', 'int8', 'int4'"),
        ({"precision": "int4", "store_fp16": True}, "store_fp16 goes with precision 'fp32' only, got 'int4'"),
    ],
)
def test_settings_that_make_no_sense(
    torch_vlm: Qwen2VLForConditionalGeneration, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    wrong: Callable[..., VLMExport] = export_vlm
    with pytest.raises(ValueError, match=message):
        wrong(torch_vlm, tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()
