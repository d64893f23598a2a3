"""The built-in model: `python -m training tiny`, then `python -m export tiny`, at a size that takes a minute or two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pydeper
from export.__main__ import main
from training.cli.main import main as train

SMALL = [
    *("vision.steps=3", "vision.close_ups=1", "vision.batch_size=4", "language.scenes=16", "language.steps=2"),
    *("larger_vision.steps=1", "larger_vision.batch_size=4", "larger_language.scenes=16", "larger_language.steps=2"),
    *("sketches.steps=1", "sketches.batch_size=2"),
    *("encoder.steps=2", "encoder.batch_size=4", "drawings=20", "stage1.steps=2", "stage2.steps=2"),
    *("viewers.groups=6", "viewers.orders_per_group=2", "viewers.samples=10", "viewers.scenes=20"),
    *("viewers.unseen_groups=2", "viewers.unseen_orders_per_group=2", "viewers.test_scenes=2"),
]


def run(program: str, folder: Path) -> str:
    changes = [part for change in SMALL for part in ("--set", change)]
    command = [sys.executable, "-m", program, "tiny", "--out", str(folder), *changes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_exported_before_the_training_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tiny", "--out", str(tmp_path / "run")]) == 2
    assert f"1-vision: not finished; run `python -m training tiny --out {tmp_path / 'run'}`" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_too_few_drawings_for_intervals_are_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["tiny", "--out", str(tmp_path / "run"), "--set", "drawings=19"]) == 2
    assert "drawings: must be >= 20, got 19" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_commands_make_the_bundle_and_its_results_and_make_them_again(tmp_path: Path) -> None:
    assert f"`python -m export tiny --out {tmp_path}`" in run("training", tmp_path)
    assert "largest differences from torch" in run("export", tmp_path)

    bundle = tmp_path / "bundle"
    model = pydeper.DeperModel.from_pretrained(bundle)
    samples = pydeper.read_samples(bundle / "demo" / "ana.jsonl")
    persona = pydeper.Persona.from_samples(samples, model=model)
    assert persona.subject_embedding.shape == (384,)
    assert isinstance(model.describe(bundle / "demo" / "scene.png", persona, max_new_tokens=5), str)

    tokens = json.loads((tmp_path / "results" / "tiny-tokens.json").read_text())
    assert tokens["results"]["ONNX Runtime"]["equal to torch, token for token"]["value"] == 1
    unseen = json.loads((tmp_path / "results" / "tiny-unseen.json").read_text())
    assert {"zero-shot", "DEPER, 1 sample", "DEPER, 5 samples", "ceiling"} <= set(unseen["results"])
    assert unseen["facts"]["command"].startswith("python -m training tiny --set vision.steps=3 --set ")
    assert model.config.training["command"] == unseen["facts"]["command"]
    scenes = json.loads((tmp_path / "results" / "tiny-unseen-scenes.json").read_text())
    assert scenes["facts"]["held-out scenes"] == 20
    assert list(scenes["results"]) == ["zero-shot", "DEPER, 5 samples", "ceiling"]

    # Everything is there already: the second time nothing is trained, and the files are the same to the last byte.
    manifest = (bundle / "manifest.json").read_bytes()
    run("training", tmp_path)
    run("export", tmp_path)
    assert (bundle / "manifest.json").read_bytes() == manifest
