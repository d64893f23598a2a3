"""What the command `pydeper capture` says before it serves; tests/pydeper/capture has it serving."""

import sys

import pytest
from PIL import Image

from pydeper.cli.main import main


@pytest.mark.parametrize("library", ["starlette", "uvicorn"])
def test_a_missing_extra_is_named_with_its_remedy(library, tmp_path, monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith(("pydeper.capture.a", library))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["capture", str(tmp_path), "-o", str(tmp_path / "a.jsonl")]) == 2
    assert f'needs {library}: pip install "pydeper[cpu,capture]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "ana.txt"], "must be called such as ana.jsonl"),
        (["-o", "nowhere/ana.jsonl"], "its folder is not there"),
        (["-o", "ana.jsonl", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["-o", "ana.jsonl", "--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
        (["-o", "ana.jsonl", "--language", "?"], "language must be one of de, en"),
    ],
)
def test_a_mistake_in_the_options_is_named(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("dog.png")
    assert main(["capture", ".", *options, "--model", "tiny", "--no-open"]) == 2
    assert said in capsys.readouterr().err
