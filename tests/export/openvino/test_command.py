"""`python -m export vlm --runtime openvino`: what it takes over from Optimum, checks, writes and refuses.

Optimum itself is not installed here: a script in its place copies what a real one made of the same model
(`tests/golden/optimum`). `make test-optimum` runs the same command with the real one.
"""

import json
import re
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from export.__main__ import main
from export.bundle.assemble import assemble
from export.openvino.optimum import VARIABLE
from export.openvino.source import published_config
from export.qwen2_vl.folder import read_vlm_folder
from pydeper import DeperModel
from pydeper.bundle.openvino_files import GRAPHS, weights_of
from pydeper.vlm import DecodingOptions, open_vlm
from tests.support.images import random_image
from tests.support.optimum.export import write_source
from tests.support.paths import OPTIMUM
from tests.support.reference import greedy
from tests.support.small_vlm import SmallVLM

FILES = sorted(f"openvino_fp32/{name}" for graph in GRAPHS for name in (graph, weights_of(graph)))
FP32 = ("--runtime", "openvino", "--precision", "fp32", "--any-size")


@pytest.fixture(scope="module")
def source(small_vlm: SmallVLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "small", small_vlm.model, small_vlm.tokenizer)


@pytest.fixture
def in_optimums_place(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a "Python" that takes Optimum's command line and runs some lines with `source` and `folder`."""

    def make(lines: str) -> Path:
        script = tmp_path / "optimum-python"
        script.write_text(
            f"#!{sys.executable}\n"
            "import pathlib, shutil, sys\n"
            "assert sys.argv[1:5] == ['-m', 'optimum.commands.optimum_cli', 'export', 'openvino'], sys.argv\n"
            "option = dict(zip(sys.argv[5:-1:2], sys.argv[6:-1:2]))\n"
            "assert option.keys() == {'--model', '--task', '--weight-format'}, option\n"
            "source, folder = pathlib.Path(option['--model']), pathlib.Path(sys.argv[-1])\n"
            f"{lines}\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return script

    return make


COPIES = f"""
import json
config = json.loads((source / 'config.json').read_text())
assert config['hidden_size'] == 64 and config['vision_config']['embed_dim'] == 32, config
assert (source / 'model.safetensors').is_file() and (source / 'preprocessor_config.json').is_file()
shutil.copytree({str(OPTIMUM)!r}, folder)
(folder / 'tokenizer.json').write_text('Optimum copies such files too')
print('quantising ...')
"""


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a command that must fail in an orderly way."""
    assert main(["vlm", *map(str, arguments)]) == 2
    before, command, message = f"\n{capsys.readouterr().err}".rpartition("\nexport: ")
    assert command, before
    return message


def test_optimums_files_become_a_vlm_that_says_what_transformers_says(
    small_vlm: SmallVLM,
    source: Path,
    tmp_path: Path,
    in_optimums_place: Callable[[str], Path],
    bundle_parts: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "vlm"
    assert main(["vlm", str(source), "--out", str(out), *FP32, "--optimum-python", str(in_optimums_place(COPIES))]) == 0
    said = capfd.readouterr()
    assert "quantising ..." in said.err
    assert said.out.splitlines()[:3] == ["1/2 graphs", "2/2 parity", f"{out}: fp32"]
    figures = {line.strip().rpartition(": ")[0]: float(line.rpartition(": ")[2]) for line in said.out.splitlines()[3:]}
    assert figures.pop("embeddings, largest error") == 0
    assert figures.pop("logits, largest error") < 1e-4
    assert set(figures) == {
        "image features, smallest cosine with transformers",
        "logits, smallest cosine with transformers",
    }
    assert all(cosine == pytest.approx(1, abs=1e-5) for cosine in figures.values())
    assert files_of(out) == [*FILES, "tokenizer.json", "vlm.json"]

    config, tokenizer = read_vlm_folder(out)
    assert config.precision == "fp32"
    vlm = open_vlm(out, config, small_vlm.prompts, tokenizer, runtime="openvino", threads=1)
    for size in ((84, 84), (60, 200)):
        image = random_image(*size)
        (found,) = vlm.generate(vlm.encode_image(image), "description", None, DecodingOptions(max_new_tokens=10))
        expected = greedy(small_vlm.model, config, tokenizer, small_vlm.prompts, "description", image, None, 10)
        assert list(found.token_ids) == expected

    parts = bundle_parts | {"vlm": out, "config": attrs.evolve(bundle_parts["config"], vlm=config)}
    bundle = assemble(tmp_path / "bundle", **parts | {"tokenizer": out / "tokenizer.json"})
    assert DeperModel.from_pretrained(bundle, threads=1).report().vlm["decoder"] == "openvino_language_model.xml"


def test_what_optimum_wrote_before_is_taken_over_and_stays(source: Path, tmp_path: Path) -> None:
    theirs, out = shutil.copytree(OPTIMUM, tmp_path / "theirs"), tmp_path / "vlm"
    for _ in range(2):  # the second replaces the first
        assert main(["vlm", str(source), "--out", str(out), *FP32, "--from-optimum", str(theirs)]) == 0
        assert files_of(out) == [*FILES, "tokenizer.json", "vlm.json"]
    assert files_of(theirs) == files_of(OPTIMUM)


def test_beside_files_for_onnx_runtime(small_vlm: SmallVLM, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "vlm"
    assert main(["vlm", str(source), "--out", str(out), *FP32, "--from-optimum", str(OPTIMUM)]) == 0
    for file in small_vlm.folder.iterdir():
        shutil.copyfile(file, out / file.name)
    config, tokenizer = read_vlm_folder(out)
    texts = []
    for runtime in ("onnxruntime", "openvino"):
        vlm = open_vlm(out, config, small_vlm.prompts, tokenizer, runtime=runtime, threads=1)
        encoded = vlm.encode_image(random_image(84, 84))
        texts.append(vlm.generate(encoded, "description", None, DecodingOptions(max_new_tokens=8)))
    assert texts[0] == texts[1]


def test_what_optimum_did_is_not_done_again(
    source: Path, tmp_path: Path, in_optimums_place: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while it is compared with transformers, the command goes on there."""
    out = tmp_path / "vlm"
    arguments = ["vlm", str(source), "--out", str(out), *FP32, "--optimum-python"]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("export.openvino.export.compare", interrupted)
        assert main([*arguments, str(in_optimums_place(COPIES))]) == 130
    assert not (out / "vlm.json").exists()
    assert main([*arguments, str(in_optimums_place("raise SystemExit('ran again')"))]) == 0
    assert files_of(out) == [*FILES, "tokenizer.json", "vlm.json"]


# What is wrong


def test_optimum_is_not_installed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    message = refusal(capsys, source, "--out", "vlm", *FP32)
    assert re.match(r"\.venv-optimum/bin/python: is no Python.*-m venv .*requirements-optimum\.txt", message)
    monkeypatch.setenv(VARIABLE, "nowhere")
    assert refusal(capsys, source, "--out", "vlm", *FP32).startswith("nowhere: is no Python")
    assert not Path("vlm").exists()


def test_optimum_fails(
    source: Path, tmp_path: Path, in_optimums_place: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    python = in_optimums_place("print('one\\n' * 99 + 'out of memory'); sys.exit(3)")
    message = refusal(capsys, source, "--out", tmp_path / "vlm", *FP32, "--optimum-python", python)
    assert "failed with status 3:\n" in message
    assert message.rstrip().endswith("one\nout of memory")
    assert message.count("one") < 20
    assert not (tmp_path / "vlm").exists()


def test_files_of_another_model_are_refused(
    small_vlm: SmallVLM, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(source, tmp_path / "other")
    torch.manual_seed(5)
    changed = type(small_vlm.model)(small_vlm.model.config)
    changed.save_pretrained(other)
    message = refusal(capsys, other, "--out", tmp_path / "vlm", *FP32, "--from-optimum", OPTIMUM)
    assert "cosine of only" in message
    assert "are these files of this model?" in message
    assert not (tmp_path / "vlm").exists()


def test_other_refusals(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vlm"
    taken_over = (source, "--out", out, *FP32, "--from-optimum")
    incomplete = shutil.copytree(OPTIMUM, tmp_path / "incomplete")
    (incomplete / GRAPHS[3]).unlink()
    assert f"{incomplete}: has no {GRAPHS[3]}" in refusal(capsys, *taken_over, incomplete)
    assert "has no openvino_language_model.xml" in refusal(capsys, *taken_over, tmp_path)
    assert "go with --runtime openvino" in refusal(capsys, source, "--out", out, "--from-optimum", OPTIMUM)
    int8 = (source, "--out", out, "--runtime", "openvino", "--precision", "int8", "--from-optimum", OPTIMUM)
    assert "its weights are in fp32, not in int8" in refusal(capsys, *int8)
    assert not out.exists()
    foreign = tmp_path / "foreign" / "openvino_fp32"
    foreign.mkdir(parents=True)
    assert "name another folder" in refusal(capsys, source, "--out", foreign.parent, *FP32, "--from-optimum", OPTIMUM)
    assert foreign.is_dir()


def test_config_json_is_as_published(source: Path, standin: Path) -> None:
    written = json.loads((source / "config.json").read_text())
    assert "text_config" in written
    found = published_config(written)
    assert found["hidden_size"] == 64
    assert found["vision_config"]["in_chans"] == 3
    assert found["rope_scaling"] == {"type": "mrope", "mrope_section": [2, 3, 3]}
    assert published_config(found) == found
