"""`python -m export vlm` on a repository laid out as the published one: what it writes, and what it refuses."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import onnx_ir as ir
import pytest
import torch
from tokenizers import Tokenizer

from export.__main__ import main
from export.qwen2_vl import export as qwen2_vl
from export.qwen2_vl.folder import read_vlm_folder
from pydeper.bundle.config import Precision, VLMConfig
from pydeper.vlm import DecodingOptions, VisionLanguageModel, open_vlm
from tests.support.images import random_image
from tests.support.small_vlm import PROMPTS

# transformers reports on its log what is wrong with weights; here what the command says is looked at.
pytestmark = [pytest.mark.usefixtures("_quiet"), pytest.mark.timeout(900)]

COMMON = ["embed_tokens.npy", "tokenizer.json", "vlm.json"]
LAYERS = ["decoder_layers_int8.npy", "decoder_layers_int8.onnx"]
FILES: dict[Precision, list[str]] = {
    "fp16": ["decoder_model_merged_fp16.onnx", "vision_encoder_fp16.onnx"],
    "int8": ["decoder_model_merged_int8.onnx", "vision_encoder_int8.onnx", *LAYERS],
    "int4": ["decoder_model_merged_q4.onnx", "vision_encoder_int8.onnx", *LAYERS],
}
STEPS = ["1/4 vision encoder", "2/4 embedding table", "3/4 layers for long prompts", "4/4 decoder"]
SIZE = ("--image-size", "84")


@pytest.fixture
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    yield
    logging.set_verbosity(level)


@pytest.fixture(scope="module")
def exported(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In int4, in one go."""
    folder = tmp_path_factory.mktemp("exported") / "vlm"
    assert main(["vlm", str(standin), "--out", str(folder), "--precision", "int4", *SIZE]) == 0
    return folder


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files_of(folder)}


def described_by(folder: Path) -> VLMConfig:
    return read_vlm_folder(folder)[0]


def opened(folder: Path, precision: Precision | None = None) -> VisionLanguageModel:
    config, tokenizer = read_vlm_folder(folder)
    return open_vlm(folder, config, PROMPTS, tokenizer, threads=1, precision=precision)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a command that must fail in an orderly way."""
    assert main(["vlm", *map(str, arguments)]) == 2
    before, command, message = f"\n{capsys.readouterr().err}".rpartition("\nexport: ")
    assert command, before
    return message


# What it writes


def test_the_files_of_an_export(exported: Path, standin: Path) -> None:
    assert files_of(exported) == sorted([*COMMON, *FILES["int4"]])
    config = described_by(exported)
    assert (config.base_model, config.base_revision, config.precision) == ("Qwen2-VL-Small", None, "int4")
    assert (config.hidden_size, config.num_layers, config.num_key_value_heads, config.head_dim) == (128, 2, 2, 32)
    assert (config.vocab_size, config.max_positions) == (151936, 32768)
    assert config.vision.image_size == (84, 84)
    assert config.tokens.subject == 151657
    assert config.tokens.end == (151645, 151643)
    assert {151657, 151644, *range(151658, 151936)} <= set(config.tokens.suppressed)
    tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
    assert tokenizer.token_to_id("<subj>") == 151657
    original = Tokenizer.from_file(str(standin / "tokenizer.json"))
    assert tokenizer.encode("Two dogs, naïvely 😀.").ids == original.encode("Two dogs, naïvely 😀.").ids
    table = np.load(exported / "embed_tokens.npy", mmap_mode="r")
    assert (table.shape, table.dtype) == ((151936, 128), np.float16)


def test_an_export_describes(exported: Path) -> None:
    model = opened(exported)
    assert model.report()["long prompts"] == "decoder_layers_int8.onnx"
    soft = np.random.default_rng(0).standard_normal((2, 128)).astype(np.float32)
    encoded = model.encode_image(random_image(200, 100))
    first, second = model.generate(encoded, "description", soft, DecodingOptions(max_new_tokens=6))
    assert first.token_ids != second.token_ids
    assert not set(first.token_ids) & set(model.config.tokens.suppressed)


@pytest.mark.slow
def test_two_precisions_share_a_folder(exported: Path, standin: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(exported, tmp_path / "vlm")
    command = ["vlm", str(standin), "--out", str(tmp_path / "vlm"), "--precision", "fp16", "--any-size"]
    assert main(command) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["1/3 vision encoder", "2/3 embedding table", "3/3 decoder"]
    assert f"{tmp_path / 'vlm'}: fp16" in shown
    assert files_of(tmp_path / "vlm") == sorted([*COMMON, *FILES["int4"], *FILES["fp16"]])
    before, after = hashes(exported), hashes(tmp_path / "vlm")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"vlm.json"}
    config = described_by(tmp_path / "vlm")
    assert (config.precision, config.vision.image_size) == ("fp16", None)
    assert (config.vision.min_pixels, config.vision.max_pixels) == (3136, 12845056)
    for precision in ("fp16", "int4"):
        model = opened(tmp_path / "vlm", precision)
        assert model.report()["precision"] == precision
        (found,) = model.generate(
            model.encode_image(random_image(84, 84)), "caption", None, DecodingOptions(max_new_tokens=3)
        )
        assert len(found.token_ids) == 3


def test_hub_ids_and_revisions_that_are_not_there(
    standin: Path, hub_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub_server.publish("Qwen/Qwen2-VL-Small", standin)
    out = tmp_path / "vlm"
    assert "Qwen/Nothing" in refusal(capsys, "Qwen/Nothing", "--out", out)
    assert "v9" in refusal(capsys, "Qwen/Qwen2-VL-Small", "--revision", "v9", "--out", out)
    assert "has no revisions" in refusal(capsys, standin, "--revision", "main", "--out", out)
    assert not out.exists()


# Interruptions


@pytest.mark.slow
def test_an_interrupted_export_from_the_hub_goes_on_to_the_same_files(
    exported: Path,
    standin: Path,
    hub_server: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    commit = hub_server.publish("Qwen/Qwen2-VL-Small", standin)
    command = ["vlm", "Qwen/Qwen2-VL-Small", "--out", str(tmp_path / "vlm"), "--precision", "int4", *SIZE]

    def finished() -> list[str]:
        (hidden,) = (tmp_path / "vlm").iterdir()
        assert hidden.name.startswith(".export-")
        return sorted(path.name for path in hidden.iterdir())

    steps = ["embedding table", "layers for long prompts", "vision encoder"]
    kept = sorted([*steps, *(f"{step}.json" for step in steps)])
    with monkeypatch.context() as patch:
        patch.setattr(qwen2_vl, "trace_decoder", failing(OSError(28, "No space left on device")))
        assert main(command) == 2
        assert "No space left on device" in capsys.readouterr().err
        assert finished() == kept
        patch.setattr(qwen2_vl, "trace_decoder", failing(KeyboardInterrupt()))
        assert main(command) == 130
        assert "Traceback" not in capsys.readouterr().err
        assert finished() == kept
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[:4] == [*(f"{step}: done before" for step in STEPS[:3]), STEPS[3]]
    assert list((tmp_path / "vlm").glob(".*")) == []
    config = described_by(tmp_path / "vlm")
    assert (config.base_model, config.base_revision) == ("Qwen/Qwen2-VL-Small", commit)
    assert config == attrs.evolve(described_by(exported), base_model="Qwen/Qwen2-VL-Small", base_revision=commit)
    from_folder, from_hub = hashes(exported), hashes(tmp_path / "vlm")
    assert from_folder.keys() == from_hub.keys()
    assert {name for name in from_hub if from_hub[name] != from_folder[name]} == {"vlm.json"}
    assert {"config.json", "tokenizer.json", "preprocessor_config.json"} <= hub_server.downloaded("Qwen/Qwen2-VL-Small")


@pytest.mark.slow
def test_a_full_disk_leaves_what_is_finished_for_the_same_weights_alone(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The space of half-written files is given back: it may be what is missing."""
    source = shutil.copytree(standin, tmp_path / "source")
    out = tmp_path / "vlm"
    command = (source, "--out", out, "--precision", "int4", *SIZE)
    save = ir.save

    def full(model: ir.Model, path: Path, **options: Any) -> None:
        save(model, path, **options)
        path.write_bytes(path.read_bytes()[:100])
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(ir, "save", full)
        assert "No space left on device" in refusal(capsys, *command)
    assert not out.exists()  # the first step was not finished
    monkeypatch.setattr(qwen2_vl, "trace_streamed_layer", failing(OSError(28, "No space left on device")))
    refusal(capsys, *command)
    (hidden,) = out.iterdir()
    assert {path.name for path in hidden.iterdir() if path.is_dir()} == {"vision encoder", "embedding table"}
    assert main(["vlm", *map(str, command)]) == 2
    assert "1/4 vision encoder: done before" in capsys.readouterr().out
    weights = next(source.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes())  # the same size, at another time
    monkeypatch.setattr(qwen2_vl, "trace_vision_encoder", failing(OSError("out of order")))
    assert main(["vlm", *map(str, command)]) == 2
    assert "done before" not in capsys.readouterr().out


def test_files_that_no_export_wrote_are_not_replaced(
    standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(standin, tmp_path / "source")
    tokenizer = (source / "tokenizer.json").read_bytes()
    assert "is the source, whose tokenizer.json would be replaced" in refusal(capsys, source, "--out", source, *SIZE)
    out = tmp_path / "vlm"
    for name in ("vlm.json", "decoder_model_merged_q4.onnx"):
        out.mkdir()
        (out / name).write_text("{}")
        assert f"holds {name}, which this command would replace" in refusal(capsys, source, "--out", out, *SIZE)
        assert [path.read_text() for path in out.iterdir()] == ["{}"]
        shutil.rmtree(out)
    assert (source / "tokenizer.json").read_bytes() == tokenizer


@pytest.mark.parametrize("part", [pytest.param("decoder", marks=pytest.mark.slow), "vision encoder"])
def test_an_export_that_fails_its_check_leaves_nothing(
    standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    step = "trace_decoder" if part == "decoder" else "trace_vision_encoder"
    trace: Callable[[Any], ir.Model] = getattr(qwen2_vl, step)

    def wrong(module: Any) -> ir.Model:
        with torch.no_grad():
            other = (module.model.language_model.norm if part == "decoder" else module.merger.ln_q).weight
            kept = other.clone()
            other.mul_(torch.linspace(-1, 1, len(other)))
            model = trace(module)
            copies = {
                name: ir.tensor(value.const_value.numpy().copy()) for name, value in model.graph.initializers.items()
            }
            for name, array in copies.items():
                model.graph.initializers[name].const_value = array
            other.copy_(kept)
        return model

    monkeypatch.setattr(qwen2_vl, step, wrong)
    out = tmp_path / "vlm"
    message = refusal(capsys, standin, "--out", out, "--precision", "fp16", *SIZE)
    assert f"{part}: the exported files differ from transformers by" in message
    assert not out.exists()


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any) -> Any:
        raise error

    return fail


# What it refuses


def changed(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | values), encoding="utf-8")


def shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another model": (lambda f: changed(f, model_type="llama"), r"is a 'llama'; this export is for 'qwen2_vl'"),
    "unknown model": (lambda f: changed(f, model_type="nothing"), "model type `nothing`"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "not a valid JSON file"),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "vocab.json", "merges.txt")],
        "has neither tokenizer.json nor",
    ),
    "no preprocessor": (lambda f: (f / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
    "a weight file missing": (lambda f: shard(f).unlink(), "model-00001-of-00003.safetensors"),
    "a weight file cut off": (lambda f: shard(f).write_bytes(shard(f).read_bytes()[:1000]), "cannot be read: .*header"),
    "other widths": (lambda f: changed(f, intermediate_size=320), "cannot be read: .*mismatched"),
    "a layer too few": (lambda f: changed(f, num_hidden_layers=3), r"missing is .*layers\.2\..* \(12 in all\)"),
    "a layer too many": (lambda f: changed(f, num_hidden_layers=1), r"unexpected is .*layers\.1\..* \(12 in all\)"),
    "sizes that do not divide": (lambda f: changed(f, num_attention_heads=5), "divisible"),
    "another activation": (lambda f: changed(f, hidden_act="gelu"), "hidden_act = silu, but the model has gelu"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_sources_that_are_not_in_order(
    standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    damage, message = DAMAGE[name]
    copied = shutil.copytree(standin, tmp_path / "source")
    damage(copied)
    out = tmp_path / "vlm"
    found = refusal(capsys, copied, "--out", out, "--precision", "int8", *SIZE)
    assert re.search(message, found, flags=re.DOTALL), found
    assert not out.exists() or list(out.iterdir()) == []


def test_arguments_that_are_not_in_order(standin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "vlm"
    assert "neither a folder nor a Hub id" in refusal(capsys, tmp_path / "nothing", "--out", out)
    assert "neither a folder nor a Hub id" in refusal(capsys, "nothing", "--out", out)
    assert "neither a folder nor a Hub id" in refusal(capsys, standin / "config.json", "--out", out)
    for size in (450, 0, -28):
        assert "image_size" in refusal(capsys, standin, "--out", out, "--image-size", size)
    (tmp_path / "file").touch()
    assert "file" in refusal(capsys, standin, "--out", tmp_path / "file", *SIZE)
    for wrong in (["--precision", "int2"], ["--image-size", "big"], ["--any-size", *SIZE], ["--outdoors"]):
        with pytest.raises(SystemExit, match="2"):
            main(["vlm", str(standin), "--out", str(out), *wrong])
    with pytest.raises(SystemExit, match="2"):
        main(["vlm", str(standin)])
    assert not out.exists()
