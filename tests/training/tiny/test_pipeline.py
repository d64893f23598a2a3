"""`python -m training tiny`, all of it, at a size that takes a minute or two."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import pydeper

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SMALL = [
    *("vision.scenes=70", "vision.steps=2", "language.scenes=70", "language.steps=2"),
    *("encoder.scenes=70", "encoder.steps=2", "stage1.steps=2", "stage2.steps=2"),
    *("viewers.groups=6", "viewers.orders_per_group=2", "viewers.samples=10"),
    *("viewers.unseen_groups=2", "viewers.unseen_orders_per_group=2", "viewers.test_scenes=2"),
]


def make(folder: Path) -> str:
    changes = [part for change in SMALL for part in ("--set", change)]
    command = [sys.executable, "-m", "training", "tiny", "--out", str(folder), *changes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_command_makes_the_bundle_and_its_results_and_makes_them_again(tmp_path):
    printed = make(tmp_path)
    assert "largest differences from torch" in printed

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

    # Everything is there already: the second run trains nothing, and exports the same files to the last byte.
    manifest = (bundle / "manifest.json").read_bytes()
    make(tmp_path)
    assert (bundle / "manifest.json").read_bytes() == manifest
