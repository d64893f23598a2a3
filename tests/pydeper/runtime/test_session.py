"""Opening an ONNX Runtime session: what cannot be opened, and what opening leaves alone."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pydeper.errors import InvalidArgumentError, RuntimeMissingError
from pydeper.runtime.session import open_session, session_options
from tests.support.small_vlm import SmallVLM


def test_sessions_explain_themselves(small_vlm: SmallVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_vlm.folder / "vision_encoder.onnx"
    with pytest.raises(InvalidArgumentError, match=r"no NoSuchProvider; it has: .*CPUExecutionProvider"):
        open_session(path, providers=["NoSuchProvider"])
    with pytest.raises(InvalidArgumentError, match="threads: must be a whole number from 1 on, or None, got 0"):
        open_session(path, threads=0)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(RuntimeMissingError, match=r'pip install "pydeper\[cpu\]"'):
            open_session(path)
    for build in ("onnxruntime", "onnxruntime_gpu"):  # both builds, as pip would record them
        record = tmp_path / f"{build}-1.22.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {build}\nVersion: 1.22.0\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        with pytest.raises(RuntimeMissingError, match=r"both installed.*pip uninstall"):
            open_session(path)


def test_opening_a_model_leaves_the_threads_arithmetic_alone(small_vlm: SmallVLM) -> None:
    open_session(small_vlm.folder / "vision_encoder.onnx")
    assert np.float32(1e-40) * np.float32(0.5) != 0


def test_where_sums_of_integers_saturate_the_runtime_is_told_to_be_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    # What this does on such a processor is shown by an emulated one, in tests/export/graphs/test_int8.py.
    monkeypatch.setattr("pydeper.runtime.session.sums_saturate", lambda _: True)
    options = session_options(onnxruntime)
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
