"""Memory that runs out is an error that says while what, and nothing is kept that was half done."""

import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from pydeper import (
    DeperModel,
    OutOfMemoryError,
    Persona,
    PydeperError,
)
from pydeper.bundle.layout import BUILTIN
from pydeper.runtime.graph import Session
from pydeper.runtime.target import Target
from tests.pydeper.model.in_apps.watched import watch

DEMO = BUILTIN / "tiny" / "demo"
SHORT = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def greedy_sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Session]:
    """By the name of the runtime: a graph that asks for as many numbers as it is told."""
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        "greedy",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("greedy") / "greedy.onnx"
    path.write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return {
        "ONNX Runtime": onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]),
        "OpenVINO": Target("openvino", threads=1).open(path),
    }


def run_out(session: Session | None) -> None:
    """Really: of a runtime's memory, or of numpy's."""
    if session is None:
        np.empty(2**47, np.float32)
    else:
        session.run(["y"], {"x": np.ones(1, np.float32), "shape": np.array([2**15, 2**30])})


@pytest.mark.parametrize("whose", ["ONNX Runtime", "OpenVINO", "numpy"])
def test_memory_that_runs_out_while_an_image_is_encoded(
    cached: DeperModel,
    ana: Persona,
    pictures: list[Path],
    greedy_sessions: dict[str, Session],
    monkeypatch: pytest.MonkeyPatch,
    whose: str,
) -> None:
    good = cached.describe(pictures[1], ana, **SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(watch(cached), "encode_image", lambda _: run_out(greedy_sessions.get(whose)))
        asked = "512 TiB" if whose == "numpy" else r"128\.0 TiB"
        told = rf"^out of memory while encoding an image of 480×480 pixels \({asked} were asked for\): .*`precision`"
        with pytest.raises(OutOfMemoryError, match=told) as caught:
            cached.describe(pictures[0], ana)
        assert isinstance(caught.value, PydeperError)
        assert isinstance(caught.value, MemoryError)
        with pytest.raises(OutOfMemoryError, match=r"^pair 2 of 2: out of memory while encoding"):
            cached.describe_batch([(pictures[1], ana), (pictures[0], ana)], **SHORT)
        assert cached.report().cached_images == 1
        assert cached.describe(pictures[1], ana, **SHORT) == good  # what was kept is still there
    assert cached.describe(pictures[0], ana, **SHORT)


def test_memory_that_runs_out_while_describing_is_let_go_of(
    tiny: DeperModel,
    ana: Persona,
    ben: Persona,
    pictures: list[Path],
    greedy_sessions: dict[str, Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Bulky(np.ndarray):
        """An array that can be watched."""

    held: list[weakref.ref[Any]] = []

    def fill_and_run_out(*_: Any) -> Any:
        bulk = np.zeros(10).view(Bulky)
        held.append(weakref.ref(bulk))
        run_out(greedy_sessions["ONNX Runtime"])

    def stream(*_: Any) -> Iterator[str]:
        yield "A"
        fill_and_run_out()

    with monkeypatch.context() as patch:
        patch.setattr(watch(tiny), "generate", fill_and_run_out)
        patch.setattr(watch(tiny), "stream", stream)
        errors = []
        with pytest.raises(OutOfMemoryError, match=r"while computing 2 descriptions at once .*fewer people") as caught:
            tiny.describe_each(pictures[0], [ana, ben])
        errors.append(caught.value)
        pieces = tiny.stream(pictures[0], ana)
        assert next(pieces) == "A"
        with pytest.raises(OutOfMemoryError, match="while describing an image") as caught:
            next(pieces)
        errors.append(caught.value)
        # Also while the errors are still held on to, as they are in a log or an interactive session.
        assert [reference() for reference in held] == [None, None]


def test_an_error_that_is_not_about_memory_stays_what_it_is(
    tiny: DeperModel, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("failed to allocate a licence")

    monkeypatch.setattr(watch(tiny), "encode_image", fail)
    with pytest.raises(RuntimeError, match="licence"):
        tiny.describe(pictures[0])


@pytest.mark.skipif(sys.platform != "linux", reason="needs the system's limit on memory")
def test_a_picture_larger_than_the_memory_there_is(tmp_path: Path) -> None:
    Image.new("L", (9000, 9000)).save(tmp_path / "vast.png")
    program = textwrap.dedent(
        f"""
        import re, resource
        from pathlib import Path
        from pydeper import DeperModel, OutOfMemoryError
        model = DeperModel.from_pretrained("tiny", threads=1)
        text = model.describe({str(DEMO / "scene.png")!r})
        used = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, resource.RLIM_INFINITY))
        try:
            model.describe("vast.png")
        except OutOfMemoryError as error:
            print(error)
        assert model.report().cached_images == 1
        assert model.describe({str(DEMO / "scene.png")!r}) == text
        """
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out of memory while reading an image")
    assert "make the image smaller" in done.stdout
