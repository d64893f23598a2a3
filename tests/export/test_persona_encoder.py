"""The exported persona encoder and adapter in ONNX Runtime against torch, with small random DINOv3 ConvNeXts."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from export import persona_encoder
from export.adapter import check_adapter, export_adapter
from export.graphs.parity import ParityError, cosines
from export.persona_encoder import PersonaEncoderGraph, check_persona_encoder, export_persona_encoder, random_inputs
from pydeper.runtime.session import session_options
from tests.support.paths import ROOT
from training.network import Adapter, ImageEncoder, NetworkConfig, PersonaEncoder, TextTable

# The first test to need it waits for the shared export, which a busy machine makes slow.
pytestmark = pytest.mark.timeout(900)

IMAGE_SIZE, VOCABULARY, QWEN_VOCABULARY = 96, 50, 151_936
CONFIG = NetworkConfig(
    hidden_size=32,
    subject_embedding_size=24,
    num_heads=4,
    max_fixations=6,
    image_channels=16,
    text_channels=20,
    grid_size=3,
    encoder_layers=1,
)
Parts = tuple[PersonaEncoder, ImageEncoder, TextTable]


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """A network is traced once, whatever precisions it is stored in: a trace takes seconds."""
    traced: dict[bytes, onnx.ModelProto] = {}

    def once(graph: PersonaEncoderGraph, image_size: int, _trace: Any = persona_encoder._trace) -> ir.Model:
        state = b"".join(value.float().numpy().tobytes() for value in graph.state_dict().values())
        if state not in traced:
            traced[state] = ir.to_proto(_trace(graph, image_size))
        return ir.from_proto(traced[state])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(persona_encoder, "_trace", once)
        yield


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
    options = session_options(onnxruntime)
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


@pytest.mark.slow
def test_kinematics_are_exported(parts: Parts, tmp_path: Path) -> None:
    """Parity with torch is part of the export; here, that no padding and no batch mate reaches a scanpath's numbers."""
    torch.manual_seed(0)
    encoder = PersonaEncoder(attrs.evolve(CONFIG, kinematics=True)).eval()
    path = tmp_path / "persona_encoder.onnx"
    assert max(export_persona_encoder(path, encoder, *parts[1:], image_size=IMAGE_SIZE).values()) < 1e-4
    session = open_session(path)
    inputs = random_inputs([3, 2, 0, 1], [2, 0, 6, 1], IMAGE_SIZE, VOCABULARY, torch.Generator().manual_seed(5))
    inputs["durations"][:, 1:] *= inputs["fixation_mask"][:, 1:]  # padding as the SDK writes it: zeros
    inputs["boxes"] *= inputs["fixation_mask"].unsqueeze(-1)
    together = run(session, inputs)
    assert np.isfinite(together).all()
    for i, fixations in enumerate((2, 1, 6, 1)):
        alone = {name: value[i : i + 1] for name, value in inputs.items()}
        for name in ("boxes", "durations", "fixation_mask"):
            alone[name] = alone[name][:, :fixations]
        np.testing.assert_allclose(run(session, alone)[0], together[i], atol=1e-5)


def test_the_text_table_is_folded(exported: Path) -> None:
    sizes = {tuple(tensor.dims) for tensor in onnx.load(exported).graph.initializer}
    assert (VOCABULARY, CONFIG.hidden_size) in sizes
    assert (VOCABULARY, CONFIG.text_channels) not in sizes


def test_the_file_says_nothing_of_the_machine_that_made_it(exported: Path) -> None:
    assert str(ROOT).encode() not in exported.read_bytes()
    assert b"site-packages" not in exported.read_bytes()


def test_half_precision_storage_is_half_the_size_and_near(parts: Parts, exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "persona_encoder.onnx"
    differences = export_persona_encoder(path, *parts, image_size=IMAGE_SIZE, precision="fp16")
    assert 0 < max(differences.values()) < 5e-3
    # The graph itself, and small vectors such as biases, stay as they are.
    graph = onnx.load(path).graph
    assert sum(t.data_type == onnx.TensorProto.FLOAT16 for t in graph.initializer) >= 20
    # Of the text table only the rows of the description's words are cast.
    (table,) = [t.name for t in graph.initializer if t.dims == [VOCABULARY, CONFIG.hidden_size]]
    assert {node.op_type for node in graph.node if table in node.input} == {"Gather"}
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
    for precision in ("int4", "", None):
        with pytest.raises(ValueError, match="choose one of fp32, fp16, int8"):
            export_persona_encoder(path, *parts, image_size=IMAGE_SIZE, precision=precision)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# int8: a wider image encoder, whose layers are worth it, and Qwen2-VL's number of words


@pytest.fixture(scope="module")
def wide_parts() -> Parts:
    torch.manual_seed(3)
    backbone = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[4, 4, 192, 192], depths=[1, 1, 2, 1]))
    for name, parameter in backbone.named_parameters():
        if name.endswith("gamma"):
            nn.init.constant_(parameter, 1.0)  # as it begins, 1e-6, nothing of the layers would reach the output
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    config = attrs.evolve(CONFIG, image_channels=192, text_channels=4)
    table = torch.randn(QWEN_VOCABULARY, 4)
    table[7], table[8], table[9] = 0, 1e4, 1e-6
    return PersonaEncoder(config).eval(), ImageEncoder(backbone), TextTable(table)


@pytest.fixture(scope="module")
def int8_file(wide_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "persona_encoder.onnx"
    differences = export_persona_encoder(path, *wide_parts, image_size=IMAGE_SIZE, precision="int8")
    assert 1e-5 < max(differences.values()) < 2e-2
    assert check_persona_encoder(path, *wide_parts, image_size=IMAGE_SIZE, tolerance=2e-2) == differences
    return path


def wide_inputs(words: list[int], fixations: list[int], seed: int) -> dict[str, torch.Tensor]:
    return random_inputs(words, fixations, IMAGE_SIZE, QWEN_VOCABULARY, torch.Generator().manual_seed(seed))


def test_int8_stores_the_table_and_the_image_encoders_wide_layers_as_integers(int8_file: Path) -> None:
    model = onnx.load(int8_file)
    integers = {tuple(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    assert integers == {(QWEN_VOCABULARY, CONFIG.hidden_size), (192, 768), (768, 192)}
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in model.graph.node) == 6
    # One byte a number and one scale a word: neither the table nor its projection is there in any other form.
    assert int8_file.stat().st_size < QWEN_VOCABULARY * (CONFIG.hidden_size + 4) + 3_000_000


def test_int8_is_near_torch(wide_parts: Parts, int8_file: Path) -> None:
    inputs = wide_inputs([7, 1, 40, 0], [2, 6, 0, 1], seed=1)
    inputs["input_ids"][0, :3] = torch.tensor([7, 8, 9])
    encoder, image_encoder, text_table = wide_parts
    with torch.no_grad():
        expected = encoder(
            image_encoder(inputs["pixel_values"]),
            text_table(inputs["input_ids"]),
            *(inputs[name] for name in ("attention_mask", "boxes", "durations", "fixation_mask")),
        ).subject_embedding.numpy()
    found = run(open_session(int8_file), inputs)
    assert cosines(found, expected).min() > 0.9995
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_int8_batch_mates_never_change_a_sample(int8_file: Path) -> None:
    session = open_session(int8_file)
    inputs = wide_inputs([9, 3, 5, 0, 2], [2, 0, 6, 1, 3], seed=2)
    inputs["pixel_values"] *= torch.tensor([1.0, 100.0, 1e-2, 0.0, 7.0])[:, None, None, None]
    together = run(session, inputs)
    for i in range(5):
        alone = run(session, {name: value[i : i + 1] for name, value in inputs.items()})
        np.testing.assert_allclose(alone[0], together[i], atol=2e-6)


def test_int8_that_loses_too_much_is_noticed(wide_parts: Parts, int8_file: Path) -> None:
    with pytest.raises(ParityError, match=r"cosine with torch's is [\d.]+, less than 1.00000; export in fp16 or fp32"):
        check_persona_encoder(int8_file, *wide_parts, image_size=IMAGE_SIZE, tolerance=2e-2, min_cosine=1.0)
    with pytest.raises(ParityError, match="differs from torch"):
        check_persona_encoder(int8_file, *wide_parts, image_size=IMAGE_SIZE)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_cosines(rows: int, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((rows, size))
    np.testing.assert_allclose(cosines(vectors, 3 * vectors), 1)
    np.testing.assert_allclose(cosines(vectors, -vectors), -1)
    assert cosines(np.zeros((2, size)), np.zeros((2, size))).tolist() == [1, 1]
    assert cosines(vectors, np.zeros_like(vectors)).tolist() == [0] * rows


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
