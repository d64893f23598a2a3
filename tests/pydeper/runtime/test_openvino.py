"""ONNX files on OpenVINO: the same numbers as on ONNX Runtime, and what cannot be opened."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from export.graphs.int8 import quantize_linear_int8
from pydeper.errors import BundleError
from pydeper.runtime.target import Target
from tests.export.onnx_graphs import constant, graph, linear
from tests.support.paths import ROOT
from tests.support.small_vlm import SmallVLM

ONNX_RUNTIME, OPENVINO = Target(threads=1), Target("openvino", threads=1)


@pytest.mark.parametrize("sizes", [(2, 2), (4, 6)])
def test_features_of_an_image_are_those_of_onnx_runtime(small_vlm: SmallVLM, sizes: tuple[int, int]) -> None:
    path = small_vlm.folder / "vision_encoder.onnx"
    pixels = np.random.default_rng(0).standard_normal((sizes[0] * sizes[1], 1176)).astype(np.float32)
    feeds = {"pixel_values": pixels, "image_grid_thw": np.array([[1, *sizes]])}
    (expected,), (found,) = (each.open(path).run(["image_features"], feeds) for each in (ONNX_RUNTIME, OPENVINO))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rows_of_any_size_keep_their_own_precision_in_8_bits(tmp_path: Path) -> None:
    """The scales of activations are of a row each, and known only when the graph runs."""
    rng = np.random.default_rng(0)
    model = linear(rng.standard_normal((64, 48), dtype=np.float32))
    assert quantize_linear_int8(model, min_features=1) == ["layer"]
    ir.save(model, tmp_path / "linear.onnx")
    sizes = np.array([1, 1e-30, 1e30, 0, 1e-6, 1e4], np.float32)[:, None]
    x = rng.standard_normal((1, 6, 64), dtype=np.float32) * sizes
    (expected,), (found,) = (
        each.open(tmp_path / "linear.onnx").run(["y0"], {"x": x}) for each in (ONNX_RUNTIME, OPENVINO)
    )
    largest = np.abs(expected).max(-1, keepdims=True)
    assert (np.abs(found - expected) <= 1e-5 * largest).all()
    assert (found[0, 3] == 0).all()


def test_what_openvino_cannot_open_says_what_and_why(small_vlm: SmallVLM, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.onnx: no such file; the bundle is incomplete"):
        OPENVINO.open(tmp_path / "absent.onnx")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes((small_vlm.folder / "vision_encoder.onnx").read_bytes()[:5000])
    with pytest.raises(BundleError, match=r"cut\.onnx: is cut short or damaged"):
        OPENVINO.open(cut)
    x, weight = ir.Value(name="x"), constant(np.ones((4, 4), np.float32), "weight")
    node = ir.node("MatMulBnb4", [x, weight], domain="com.microsoft")
    model = graph(["rows", 4], [node], [weight], x)
    model.opset_imports["com.microsoft"] = 1
    ir.save(model, tmp_path / "bnb4.onnx")
    with pytest.raises(BundleError, match=r"cannot run the operators com.microsoft.MatMulBnb4.*runtime='onnxruntime'"):
        OPENVINO.open(tmp_path / "bnb4.onnx")


def test_opening_a_model_leaves_the_threads_arithmetic_alone(small_vlm: SmallVLM) -> None:
    OPENVINO.open(small_vlm.folder / "vision_encoder.onnx")
    assert np.float32(1e-40) * np.float32(0.5) != 0


_INTERRUPTED = """
import gc, os, signal, sys, time
from pathlib import Path
from pydeper.runtime.target import Target

first, second = (Target("openvino", threads=1).open(Path(sys.argv[1])) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_after_models_came_and_went_is_an_interrupt(small_vlm: SmallVLM) -> None:
    command = [sys.executable, "-X", "faulthandler", "-c", _INTERRUPTED, str(small_vlm.folder / "vision_encoder.onnx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
