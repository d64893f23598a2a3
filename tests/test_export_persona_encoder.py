"""The exported persona encoder and adapter in ONNX Runtime against torch, with a small random DINOv3 ConvNeXt."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from export.adapter import export_adapter
from export.parity import ParityError, check_adapter, check_persona_encoder, random_inputs
from export.persona_encoder import export_persona_encoder
from training.network import Adapter, ImageEncoder, NetworkConfig, PersonaEncoder, TextTable

torch.set_num_threads(1)

IMAGE_SIZE, VOCABULARY = 96, 50
CONFIG = NetworkConfig(
    hidden_size=32,
    subject_embedding_size=24,
    num_heads=4,
    max_fixations=6,
    image_channels=16,
    text_channels=20,
    grid_size=3,
)
Parts = tuple[PersonaEncoder, ImageEncoder, TextTable]


@pytest.fixture(scope="module")
def parts() -> Parts:
    torch.manual_seed(0)
    backbone = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[4, 4, 8, 16], depths=[1, 1, 1, 1]))
    encoder = PersonaEncoder(CONFIG).eval()
    nn.init.normal_(encoder.text_projection.bias)  # as training leaves it: folding must not lose it
    return encoder, ImageEncoder(backbone), TextTable(torch.randn(VOCABULARY, 20).to(torch.bfloat16))


@pytest.fixture(scope="module")
def exported(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "persona_encoder.onnx"
    encoder = copy.deepcopy(parts[0]).train()
    differences = export_persona_encoder(path, encoder, *parts[1:], image_size=IMAGE_SIZE)
    assert {"no descriptions", "no trajectories", "different lengths"} <= set(differences)
    assert max(differences.values()) < 1e-5
    assert encoder.training  # what was exported is left as it was
    assert all(torch.equal(value, parts[0].state_dict()[name]) for name, value in encoder.state_dict().items())
    return path


@pytest.fixture(scope="module")
def session(exported: Path) -> onnxruntime.InferenceSession:
    return open_session(exported)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, inputs: dict[str, torch.Tensor]) -> Any:
    return session.run(["subject_embedding"], {name: value.numpy() for name, value in inputs.items()})[0]


def test_the_file_has_the_six_inputs_and_one_output(session: onnxruntime.InferenceSession) -> None:
    assert {value.name: (value.type, value.shape) for value in session.get_inputs()} == {
        "pixel_values": ("tensor(float)", ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]),
        "input_ids": ("tensor(int64)", ["batch", "length"]),
        "attention_mask": ("tensor(int64)", ["batch", "length"]),
        "boxes": ("tensor(float)", ["batch", "fixations", 4]),
        "durations": ("tensor(float)", ["batch", "fixations"]),
        "fixation_mask": ("tensor(int64)", ["batch", "fixations"]),
    }
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape) == ("subject_embedding", "tensor(float)", ["batch", 24])


@settings(max_examples=25)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_onnx_runtime_gives_what_torch_gives(
    parts: Parts, session: onnxruntime.InferenceSession, lengths: list[tuple[int, int]], seed: int
) -> None:
    words, fixations = [list(column) for column in zip(*lengths, strict=True)]
    inputs = random_inputs(words, fixations, IMAGE_SIZE, VOCABULARY, torch.Generator().manual_seed(seed))
    encoder, image_encoder, text_table = parts
    with torch.no_grad():
        expected = encoder(
            image_encoder(inputs["pixel_values"]),
            text_table(inputs["input_ids"]),
            *(inputs[name] for name in ("attention_mask", "boxes", "durations", "fixation_mask")),
        ).subject_embedding
    np.testing.assert_allclose(run(session, inputs), expected.numpy(), atol=2e-5)


def test_padding_and_batch_mates_never_change_a_sample(session: onnxruntime.InferenceSession) -> None:
    inputs = random_inputs([3, 11, 0], [2, 0, 6], IMAGE_SIZE, VOCABULARY, torch.Generator().manual_seed(5))
    together = run(session, inputs)
    for i, (words, fixations) in enumerate(((3, 2), (11, 1), (1, 6))):
        alone = {name: value[i : i + 1] for name, value in inputs.items()}
        for name in ("input_ids", "attention_mask"):
            alone[name] = alone[name][:, :words]
        for name in ("boxes", "durations", "fixation_mask"):
            alone[name] = alone[name][:, :fixations]
        np.testing.assert_allclose(run(session, alone)[0], together[i], atol=1e-5)


def test_the_text_table_is_folded(exported: Path) -> None:
    sizes = {tuple(tensor.dims) for tensor in onnx.load(exported).graph.initializer}
    assert (VOCABULARY, CONFIG.hidden_size) in sizes
    assert (VOCABULARY, CONFIG.text_channels) not in sizes


def test_the_file_says_nothing_of_the_machine_that_made_it(exported: Path) -> None:
    assert str(Path(__file__).parents[1]).encode() not in exported.read_bytes()
    assert b"site-packages" not in exported.read_bytes()


def test_half_precision_storage_is_half_the_size_and_near(parts: Parts, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "persona_encoder.onnx"
    differences = export_persona_encoder(path, *parts, image_size=IMAGE_SIZE, precision="fp16")
    assert 0 < max(differences.values()) < 5e-3
    # The graph itself, and small vectors such as biases, stay as they are.
    weights = sum(t.data_type == onnx.TensorProto.FLOAT16 for t in onnx.load(path).graph.initializer)
    assert weights >= 30
    assert path.stat().st_size < 0.75 * exported.stat().st_size
    assert check_persona_encoder(path, *parts, image_size=IMAGE_SIZE, tolerance=5e-3) == differences
    with pytest.raises(ValueError, match="float16 would change a weight"):
        export_adapter(path, Adapter(24, 64), precision="fp16", rounding_tolerance=0.0)


def test_other_weights_are_noticed_and_no_file_appears(parts: Parts, exported: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = PersonaEncoder(CONFIG).eval()
    with pytest.raises(ParityError, match="case 'one sample': differs from torch by"):
        check_persona_encoder(exported, other, *parts[1:], image_size=IMAGE_SIZE)
    with pytest.raises(ParityError):
        export_adapter(tmp_path / "adapter.onnx", Adapter(4, 6), parity_tolerance=-1.0)
    assert not list(tmp_path.iterdir())


def test_broken_weights_are_noticed(tmp_path: Path) -> None:
    adapter = Adapter(4, 6)
    nn.init.constant_(adapter.projection.weight, float("nan"))
    with pytest.raises(ParityError, match="nan"):
        export_adapter(tmp_path / "adapter.onnx", adapter)


def test_parts_that_do_not_fit_are_refused(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "persona_encoder.onnx"
    encoder, image_encoder, _ = parts
    with pytest.raises(ValueError, match=r"gives \(16, 16\).*128×128.*takes \(9, 16\)"):
        export_persona_encoder(path, *parts, image_size=128)
    with pytest.raises(ValueError, match="text table is 8 wide"):
        export_persona_encoder(path, encoder, image_encoder, TextTable(torch.ones(5, 8)), image_size=IMAGE_SIZE)
    with pytest.raises(ValueError, match="choose 'fp32' or 'fp16'"):
        export_adapter(path, Adapter(4, 6), precision="int4")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_adapter_gives_what_torch_gives(tmp_path: Path, precision: Any) -> None:
    torch.manual_seed(2)
    adapter, path = Adapter(24, 64), tmp_path / "adapter.onnx"
    differences = export_adapter(path, adapter, precision=precision)
    assert max(differences.values()) < (1e-5 if precision == "fp32" else 5e-3)
    assert check_adapter(path, adapter, 5e-3) == differences
    session = open_session(path)
    assert [(v.name, v.shape) for v in session.get_inputs()] == [("subject_embedding", ["batch", 24])]
    assert [(v.name, v.shape) for v in session.get_outputs()] == [("soft_token", ["batch", 64])]
