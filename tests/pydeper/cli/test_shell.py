"""What people type, what their shells and systems are like, and that nothing of theirs is lost."""

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

import pydeper
from pydeper import Persona
from pydeper.cli.main import main
from pydeper.runtime.target import Runtime
from tests.support.images import random_image
from tests.support.paths import ROOT
from tests.support.random_samples import make_sample


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a picture and three of Ana's samples, which is the current one."""
    monkeypatch.chdir(tmp_path)
    samples = []
    for seed in range(3):
        path = tmp_path / f"ana{seed}.png"
        Image.fromarray(make_sample(seed).image).save(path)
        samples.append(make_sample(seed, image=path))
    pydeper.write_samples(tmp_path / "ana.jsonl", samples)
    random_image(90, 70, 3).save(tmp_path / "scene.png")
    return tmp_path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def as_process(*arguments, environment=None, **options):
    """The command in a process of its own, on the built-in model."""
    return subprocess.run(
        [sys.executable, "-m", "pydeper", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | (environment or {}),
        capture_output=True,
        timeout=120,
        **options,
    )


def test_without_a_command_it_prints_its_help(capsys):
    assert run() == 0
    assert "persona" in capsys.readouterr().out


def test_a_folder_and_stdin_are_described_like_files(home, bundle_folder, model, capsys, monkeypatch):
    folder = home / "pictures"
    folder.mkdir()
    for seed, name in enumerate(("b.png", "a.jpg")):
        random_image(60, 60, seed).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    arguments = ("--model", bundle_folder, "--max-new-tokens", 4, "--threads", 1, "--device", "cpu")
    assert run("describe", folder, *arguments) == 0
    texts = [model.describe(folder / name, max_new_tokens=4) for name in ("a.jpg", "b.png")]
    assert capsys.readouterr().out == f"{folder / 'a.jpg'}:\n{texts[0]}\n\n{folder / 'b.png'}:\n{texts[1]}\n"

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((folder / "b.png").read_bytes())))
    assert run("describe", "-", *arguments) == 0
    assert capsys.readouterr().out == texts[1] + "\n"

    (home / "empty").mkdir()
    assert run("describe", home / "empty", *arguments) == 2
    assert "the folder holds no images" in capsys.readouterr().err


def test_the_runtime_can_be_named(home, bundle_folder, model, capsys):
    arguments = ("describe", "scene.png", "--model", bundle_folder, "--max-new-tokens", 4)
    assert run(*arguments, "--runtime", "openvino") == 0
    assert capsys.readouterr().out == model.describe("scene.png", max_new_tokens=4) + "\n"
    with pytest.raises(SystemExit):
        run(*arguments, "--runtime", "other")
    offered = capsys.readouterr().err
    assert all(name in offered for name in get_args(Runtime))
    # Each runtime answers for itself which devices it has.
    assert run(*arguments, "--runtime", "openvino", "--device", "cuda") == 2
    assert "OpenVINO" in capsys.readouterr().err
    assert run(*arguments, "--runtime", "onnxruntime", "--device", "gpu") == 2
    assert "device: must be 'auto', 'cpu' or 'cuda', got 'gpu'" in capsys.readouterr().err


def test_descriptions_go_to_a_file_as_lines_of_json(home, bundle_folder, model, ana, ben, capsys):
    ana.save("ana.safetensors")
    ben.save("ben.safetensors")
    people = ("--persona", "ana.safetensors", "--persona", "ben.safetensors")
    arguments = ("--model", bundle_folder, "--max-new-tokens", 4)
    assert run("describe", "scene.png", *people, *arguments, "--json", "--output", "out.jsonl") == 0
    assert capsys.readouterr().out == ""
    lines = [json.loads(line) for line in (home / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = model.describe_each("scene.png", [ana, ben], max_new_tokens=4)
    assert lines == [
        {"image": "scene.png", "persona": name, "description": text}
        for name, text in zip(("ana", "ben"), texts, strict=True)
    ]
    assert run("describe", "scene.png", *arguments, "--stream", "--json") == 2
    assert "--stream" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("persona", "create", "ana.jsonl", "-o", "ana.jsonl"),
        ("persona", "create", "ana.jsonl", "-o", "ana0.png"),
        ("describe", "scene.png", "-o", "scene.png"),
        ("describe", "scene.png", "-o", "./pictures/../scene.png"),
    ],
    ids=" ".join,
)
def test_what_is_not_the_commands_own_is_not_replaced(home, capsys, arguments):
    (home / "pictures").mkdir()
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    assert run(*arguments, "--model", "tiny") == 2
    assert "name" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()} == before


def test_an_address_is_named_as_it_was_typed(home, capsys):
    assert run("describe", "https://example.org/a.png", "--model", "tiny") == 2
    told = capsys.readouterr().err
    assert "https://example.org/a.png" in told
    assert "download the image first" in told
    assert run("persona", "show", "https://example.org/ana.safetensors") == 2
    assert "Persona.from_pretrained" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8:strict"])
def test_any_name_can_be_written_whatever_the_encoding_of_the_pipe(home, encoding):
    random_image(60, 60).save(home / "日本.png")
    name = os.fsdecode(b"caf\xe9.png")  # no UTF-8
    try:
        random_image(60, 60).save(home / name)
    except (OSError, UnicodeError):
        name = "scene.png"  # this file system takes no such names
    done = as_process(
        "describe", "日本.png", name, "--model", "tiny", "--max-new-tokens", 2, cwd=home,
        environment={"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert ("日本" if encoding == "utf-8:strict" else r"\u65e5\u672c").encode() in done.stdout


def test_the_help_can_be_written_in_any_encoding():
    for command in ((), ("describe",), ("persona", "push")):
        done = as_process(*command, "--help", environment={"PYTHONIOENCODING": "ascii"})
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_closed_and_full_outputs_are_no_traceback(home):
    command = f"{sys.executable} -m pydeper persona list --help"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for redirection in (">&-", "2>&-", ">&- 2>&-"):
        done = subprocess.run(f"{command} {redirection}", shell=True, env=environment, capture_output=True, text=True)
        assert "Traceback" not in done.stdout + done.stderr
    if Path("/dev/full").exists():
        command = f"{sys.executable} -m pydeper completion bash > /dev/full"
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert "No space left" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_persona_can_go_through_a_pipe(home, bundle_folder):
    done = as_process("persona", "create", "ana.jsonl", "-o", "/dev/stdout", "--model", bundle_folder, cwd=home)
    assert done.returncode == 0
    (home / "ana.safetensors").write_bytes(done.stdout)
    assert Persona.load(home / "ana.safetensors").num_samples == 3
    assert b"3 samples" in done.stderr


def test_completion_is_a_script_of_the_shell(capsys):
    assert run("completion", "bash") == 0
    script = capsys.readouterr().out
    assert "complete" in script
    assert "--repetition-penalty" in script
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_without_a_network_the_hub_is_said_to_be_out_of_reach_in_seconds(home, monkeypatch, capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        assert run("persona", "list", "org/personas") == 2
    told = capsys.readouterr().err
    assert "the Hugging Face Hub was not reached" in told
    assert len(told.splitlines()) == 1
