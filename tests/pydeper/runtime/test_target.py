"""Which runtime is taken, and what is said where it cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from pydeper import DeperModel
from pydeper.errors import InvalidArgumentError, RuntimeMissingError
from pydeper.persona.encoder import PersonaEncoder
from pydeper.runtime.target import Runtime, choose_target

BOTH = ("onnxruntime", "openvino")


@pytest.fixture
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the runtimes that the test's parameter does not name."""
    for name in BOTH:
        if name not in request.param:
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("installed", "variable", "asked", "taken", "reason"),
    [
        (BOTH, "", None, "onnxruntime", "the default where both runtimes are installed"),
        (["onnxruntime"], "", None, "onnxruntime", "the only runtime installed"),
        (["openvino"], "", None, "openvino", "the only runtime installed"),
        (BOTH, " openvino ", None, "openvino", "as $PYDEPER_RUNTIME says"),
        (BOTH, "openvino", "onnxruntime", "onnxruntime", "as asked"),
        (BOTH, "nonsense", "openvino", "openvino", "as asked"),
    ],
    indirect=["installed"],
)
@pytest.mark.usefixtures("installed")
def test_the_argument_wins_then_the_variable_then_what_is_installed(
    variable: str, asked: Runtime | None, taken: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYDEPER_RUNTIME", variable)
    target = choose_target(asked, threads=1)
    assert (target.runtime, target.reason) == (taken, reason)
    assert target.explain_runtime().startswith(taken)
    assert target.explain_runtime().endswith(reason)


@pytest.mark.parametrize(
    ("installed", "variable", "asked", "error", "message"),
    [
        (BOTH, "", "tensorrt", InvalidArgumentError, "runtime: must be 'onnxruntime' or 'openvino', got 'tensorrt'"),
        (BOTH, "cpu", None, InvalidArgumentError, r"\$PYDEPER_RUNTIME: must be .*, got 'cpu'"),
        (["onnxruntime"], "", "openvino", RuntimeMissingError, r'runtime: .*pip install "pydeper\[openvino\]"'),
        (["onnxruntime"], "openvino", None, RuntimeMissingError, r"\$PYDEPER_RUNTIME: 'openvino' is not installed"),
        (["openvino"], "", "onnxruntime", RuntimeMissingError, r'pip install "pydeper\[cpu\]"'),
        ([], "", None, RuntimeMissingError, r"no runtime is installed: .*\[cpu\].*\[openvino\]"),
    ],
    indirect=["installed"],
)
@pytest.mark.usefixtures("installed")
def test_what_cannot_be_taken_is_refused_with_the_remedy(
    variable: str, asked: Runtime | None, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYDEPER_RUNTIME", variable)
    with pytest.raises(error, match=message):
        PersonaEncoder.from_pretrained("tiny", runtime=asked)
    with pytest.raises(error, match=message):
        DeperModel.from_pretrained("tiny", runtime=asked)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", r"runtime='onnxruntime' \(`pip install \"pydeper\[gpu\]\"`\)"),
        ("npu", "device: must be 'auto', 'cpu', 'gpu' on OpenVINO, got 'npu'"),
    ],
)
def test_a_device_that_openvino_has_not_is_refused(device: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        PersonaEncoder.from_pretrained("tiny", device=device, runtime="openvino")


@pytest.mark.skipif("GPU" in " ".join(choose_target("openvino").available_devices()), reason="a GPU is there")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'gpu' was asked for, but OpenVINO finds no GPU .*only CPU"):
        PersonaEncoder.from_pretrained("tiny", device="gpu", runtime="openvino")


def test_openvino_alone_describes_and_reports_to_nobody(tmp_path: Path) -> None:
    """By itself `import openvino` sends an event to its maker and keeps an identifier in the home folder."""
    code = """
import sys
sys.modules["onnxruntime"] = None
import pydeper
assert "openvino" not in sys.modules
model = pydeper.DeperModel.from_pretrained("tiny", threads=1)
samples = pydeper.read_samples(sys.argv[1] + "/ana.jsonl")
persona = pydeper.Persona.from_samples(samples[:2], model=model)
assert model.describe(sys.argv[1] + "/scene.png", persona, max_new_tokens=3)
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
print(model.report().runtime)
print(model.report().provider)
"""
    demo = Path(__file__).parents[3] / "pydeper/builtin/tiny/demo"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(demo)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stderr == ""
    runtime, provider = done.stdout.splitlines()
    assert runtime.startswith("openvino 20")
    assert runtime.endswith(", the only runtime installed")
    assert provider.startswith("CPU: ")
    assert not (tmp_path / "intel").exists()
