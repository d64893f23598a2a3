import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pydeper

HEAVY = (
    "torch",
    "transformers",
    "onnxruntime",
    "openvino",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
    "PIL",
    "numpy",
    "attrs",
    "starlette",
    "uvicorn",
)
RUNTIMES = ("torch", "transformers", "onnxruntime", "openvino")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def loaded_after(code: str) -> set[str]:
    return set(run(f"{code}\nimport sys\nprint(*sys.modules)").split())


def test_importing_pydeper_loads_nothing_heavy():
    assert not loaded_after("import pydeper").intersection(HEAVY)


def test_reading_samples_and_personas_needs_no_runtime():
    code = "from pydeper import Persona, Sample, Trajectory, read_samples, PydeperError"
    assert not loaded_after(code).intersection((*RUNTIMES, "huggingface_hub"))


def test_a_model_needs_no_torch():
    assert not loaded_after("from pydeper import DeperModel").intersection(RUNTIMES)


def test_the_command_starts_without_a_runtime():
    code = "from pydeper.cli.main import main\ntry: main(['--version'])\nexcept SystemExit: pass"
    assert not loaded_after(code).intersection((*RUNTIMES, "huggingface_hub", "PIL"))
    assert not loaded_after(code).intersection(("starlette", "uvicorn"))


@pytest.mark.parametrize("name", pydeper.__all__)
def test_every_public_name_is_there(name):
    assert getattr(pydeper, name) is not None
    assert name in dir(pydeper)


def test_checkers_and_imports_find_the_same_names():
    tree = ast.parse(Path(pydeper.__file__).read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    for_checkers = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pydeper.")
        for alias in node.names
    }
    defined_here = {"__version__", "describe", "stream"}
    for name in set(pydeper.__all__) - defined_here:
        assert getattr(pydeper, name) is getattr(import_module(for_checkers[name]), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pydeper' has no attribute 'Personna'"):
        _ = pydeper.Personna
    with pytest.raises(ImportError):
        from pydeper import Personna  # noqa: F401


def test_the_version_is_the_installed_ones():
    from importlib.metadata import version

    assert pydeper.__version__ == version("pydeper")


def test_the_package_says_that_it_is_typed():
    assert (Path(pydeper.__file__).parent / "py.typed").is_file()
