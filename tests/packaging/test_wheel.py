"""The wheel: what it holds, what the package index would show, and that it works outside of a clone."""

import email
import os
import re
import subprocess
import sys
import venv
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from tests.support.docs.pages import blocks
from tests.support.paths import ROOT

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, which borrows this one's libraries but not the clone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = sorted(folder.glob("[Ll]ib*/**/site-packages"))[0]  # lib64 is a link to lib
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    borrowed = [path for path in sys.path if path.endswith("-packages")]
    # At the end of the path; not by a .pth file, which would bring the clone's editable installation too.
    (packages / "sitecustomize.py").write_text(f"import sys\nsys.path += {borrowed!r}\n")
    return next(path for path in (folder / "bin" / "python", folder / "Scripts" / "python.exe") if path.exists())


def test_it_holds_pydeper_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert "pydeper/builtin/tiny/vlm/decoder_model_merged.onnx" in archive.namelist()
        assert "pydeper/py.typed" in archive.namelist()
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pydeper"}
    assert wheel.stat().st_size < 14e6


def test_it_says_who_and_where(metadata: Message) -> None:
    links = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert {"Repository", "Documentation", "Changelog", "Paper"} <= set(links)
    assert metadata["Author"] == "pydeper contributors"
    assert metadata["Keywords"]
    assert len(metadata.get_all("Classifier", [])) >= 8


def test_the_long_description_is_the_readme_with_absolute_links_and_images(metadata: Message) -> None:
    text = metadata.get_payload(decode=True).decode()  # type: ignore[union-attr]
    assert text.startswith("# pydeper")
    code = re.compile(r"```.*?```", re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)", code.sub("", text)) + re.findall(r'src="([^"]+)"', code.sub("", text))
    assert len(found) > 10
    assert [link for link in found if not link.startswith(("https://", "#"))] == []
    assert len(code.findall(text)) == len(code.findall(README.read_text(encoding="utf-8")))


def test_the_readmes_python_runs_wherever_it_is_installed(python: Path, tmp_path: Path) -> None:
    first = next(block for block in blocks(README.read_text(encoding="utf-8")) if block.language == "python")
    assert first.output
    source = "import pydeper; print(pydeper.__file__)\n" + first.text
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", source], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    where, *told = done.stdout.splitlines()
    assert not Path(where).is_relative_to(ROOT)
    assert told == first.output.splitlines()
    assert (tmp_path / "ana.safetensors").is_file()
