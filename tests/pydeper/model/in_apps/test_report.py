"""The report says what runs where."""

import json

import attrs
import onnxruntime
import pytest

from pydeper import (
    DeperModel,
)
from pydeper.runtime import devices

CPU_ONLY = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


def test_the_report_says_what_runs_where(tiny: DeperModel) -> None:
    report = tiny.report()
    assert (report.model_id, report.revision, report.device, report.threads) == ("tiny", None, "cpu", 1)
    assert report.provider == "CPU, as asked"
    assert report.vlm["precision"]
    assert (report.image_size, report.image_tokens) == ("multiples of 24 pixels, 34992 to 47524 in all", (61, 82))
    assert report.context_length == tiny.config.vlm.max_positions
    assert onnxruntime.__version__ in report.runtime
    assert report.runtime.endswith(", the default where both runtimes are installed")
    told = str(report)
    for fact in ("tiny", "cpu -> CPU, as asked", report.image_size, "61 to 82 tokens", "off", report.vlm["precision"]):
        assert fact in told
    assert len({line.index(line.split(":", 1)[1].lstrip()) for line in told.splitlines()}) == 1  # one column
    assert json.loads(json.dumps(attrs.asdict(report)))["context_length"] == report.context_length


@pytest.mark.parametrize(
    ("available", "taken", "told"),
    [
        (["CPUExecutionProvider"], ["CPUExecutionProvider"], "CPU: this ONNX Runtime has no CUDAExecutionProvider"),
        (
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CPUExecutionProvider"],
            "CPU: this ONNX Runtime has CUDAExecutionProvider, but CUDA or cuDNN could not be loaded",
        ),
        (
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            "CUDA: this ONNX Runtime has CUDAExecutionProvider",
        ),
    ],
)
def test_auto_says_what_it_took_and_why(
    monkeypatch: pytest.MonkeyPatch, available: list[str], taken: list[str], told: str
) -> None:
    monkeypatch.setattr(devices, "available_providers", lambda: available)
    assert devices.explain_device("auto", taken).startswith(told)


@pytest.mark.skipif(not CPU_ONLY, reason="CUDA is there")
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    report = DeperModel.from_pretrained("tiny").report()
    assert report.device == "auto"
    assert report.provider == "CPU: this ONNX Runtime has no CUDAExecutionProvider"
    assert report.threads is None
