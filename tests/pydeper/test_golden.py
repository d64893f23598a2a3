"""Files of format 1, written once (see golden/make.py): this version and every later one reads them as they were meant.

Nothing here may be changed to make a test pass: what is in these files is in the hands of people.
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime

import attrs
import numpy as np
import pytest

import pydeper
from pydeper import DeperModel, Fixation, IncompatiblePersonaError, Persona, Trajectory
from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.config import (
    BundleConfig,
    ImageEncoderInfo,
    PersonaEncoderConfig,
    Prompts,
    PromptStyle,
    SpecialTokens,
    VisionConfig,
)
from pydeper.bundle.manifest import read_manifest, verify
from tests.support.paths import GOLDEN, ROOT

FINGERPRINT = "sha256:9a7e574f9c030188b8978c5055f3fd51fb8c2ac57b2dc66620e5e5dbc32ee8a5"


@pytest.fixture(scope="module")
def model():
    return DeperModel.from_pretrained(GOLDEN / "bundle", device="cpu", threads=1)


def test_the_persona():
    ana = Persona.load(GOLDEN / "ana.safetensors")
    np.testing.assert_array_equal(ana.subject_embedding, (np.arange(384) - 191.5) / 256)
    assert ana == Persona(
        subject_embedding=ana.subject_embedding,
        encoder_fingerprint=FINGERPRINT,
        model_id="golden",
        model_revision="0123456789abcdef0123456789abcdef01234567",
        num_samples=5,
        name="Ana María 李 عائشة",
        created=datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC),
        pydeper_version="0.1.0",
    )


def test_the_samples():
    first, second, third = pydeper.read_samples(GOLDEN / "samples.jsonl")
    looked = Trajectory([Fixation((0.1, 0.2, 0.4, 0.6), 0.31), Fixation((0.5, 0.5, 1.0, 1.0), 0.125)])
    assert {sample.image for sample in (first, second, third)} == {GOLDEN / "square.png"}
    assert {sample.subject for sample in (first, second, third)} == {"ana"}
    assert (first.description, first.trajectory, first.split) == ("A red square, then nothing.", looked, "train")
    assert (second.description, second.trajectory, second.split) == ("Ein rotes Quadrat – 四角 🟥", None, None)
    assert (third.description, third.trajectory, third.split) == (None, looked, "val")


def test_the_config():
    config = open_bundle(GOLDEN / "bundle").config
    assert (config.format_version, config.name, config.licence) == (1, "golden", "Apache-2.0")
    assert config.description == "The smallest model of format 1.\nIt is never written again."
    assert config.training == {"people": 0, "nested": {"list": [1, 2.5, None, True, "文"]}}
    assert config.persona_encoder == PersonaEncoderConfig(
        fingerprint=FINGERPRINT,
        subject_embedding_size=384,
        image_encoder=ImageEncoderInfo("mean colour", "Apache-2.0"),
        image_size=28,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.25, 0.25, 0.25),
        max_fixations=4,
        max_description_tokens=16,
        modalities=("text+trajectory", "text", "trajectory"),
    )
    vlm = config.vlm
    assert (vlm.base_model, vlm.base_revision, vlm.source, vlm.source_revision) == ("golden", None, "vlm", None)
    assert (vlm.precision, vlm.hidden_size, vlm.num_layers, vlm.num_key_value_heads) == ("fp32", 8, 1, 1)
    assert (vlm.head_dim, vlm.vocab_size, vlm.max_positions) == (4, 290, 128)
    assert vlm.vision == VisionConfig(
        patch_size=14,
        temporal_patch_size=2,
        merge_size=2,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.25, 0.25, 0.25),
        image_size=(28, 28),
        min_pixels=784,
        max_pixels=784,
    )
    assert vlm.tokens == SpecialTokens(
        subject=289, image=288, vision_start=286, vision_end=287, end=(285, 283), suppressed=(284, 286, 287, 288, 289)
    )
    style = PromptStyle("Describe this in the style of <subj>.", "Describe this.")
    assert config.prompts == Prompts("You describe pictures.", {"description": style})


def test_the_manifest():
    verify(GOLDEN / "bundle")
    assert {name: (entry.size, entry.sha256[:12]) for name, entry in read_manifest(GOLDEN / "bundle").items()} == {
        "README.md": (2239, "8f64e6291640"),
        "adapter.onnx": (6346, "629d706af187"),
        "config.json": (1946, "6679a2a1fa5b"),
        "persona_encoder.onnx": (7897, "cd804ba2c7f9"),
        "tokenizer.json": (4258, "c30595e3796f"),
        "vlm/decoder_model_merged.onnx": (6995, "73800a688f9c"),
        "vlm/embed_tokens.npy": (4768, "448d402694e2"),
        "vlm/vision_encoder.onnx": (287, "87678bae9933"),
    }


def test_what_the_model_makes_of_the_samples(model):
    vectors = model.embed(pydeper.read_samples(GOLDEN / "samples.jsonl"))
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(vectors[:, [0, 1, 191, 383]], [
        [-1.416985, -2.094346, -2.956785, -5.205041],
        [1.157638, -0.924598, 0.109344, -3.883961],
        [0.985281, -0.680254, -6.014829, -1.723334],
    ], rtol=1e-5, atol=1e-6)  # fmt: skip


def test_what_the_model_says(model):
    seen = model.encode_image(GOLDEN / "square.png")
    ana = Persona.load(GOLDEN / "ana.safetensors")
    assert model.describe(seen, ana, max_new_tokens=12) == " lar ciide bludeqularide blugre bes bes"
    assert model.describe(seen, max_new_tokens=12) == " lar ciide bludeqular ciide bludequ"
    assert model.describe(seen, ana, max_new_tokens=12, strength=2.0) == " lar ciide blugre bes bes bes bes bes bes bes"


def test_what_is_read_is_written_again_as_it_was(tmp_path):
    ana = Persona.load(GOLDEN / "ana.safetensors")
    assert Persona.load(ana.save(tmp_path / "ana.safetensors")) == ana
    config = open_bundle(GOLDEN / "bundle").config
    assert BundleConfig.from_json(config.to_json()) == config
    shutil.copy(GOLDEN / "square.png", tmp_path)
    pydeper.write_samples(tmp_path / "samples.jsonl", pydeper.read_samples(GOLDEN / "samples.jsonl"))
    assert [json.loads(line) for line in (tmp_path / "samples.jsonl").read_bytes().splitlines()] == [
        json.loads(line) | {"image": os.path.relpath(GOLDEN / "square.png", tmp_path)}
        for line in (GOLDEN / "samples.jsonl").read_bytes().splitlines()
    ]


def test_the_script_beside_the_files_still_makes_such_files(tmp_path):
    made = tmp_path / "made"
    project = str(ROOT)
    environment = os.environ | {"PYTHONPATH": project}
    subprocess.run([sys.executable, GOLDEN.parent / "make.py", made], env=environment, check=True)
    new, old = (open_bundle(folder / "bundle").config for folder in (made, GOLDEN))
    own = new.persona_encoder.fingerprint  # a hash of a file that another version of onnx may write otherwise
    encoder = attrs.evolve(old.persona_encoder, fingerprint=own)
    assert new == attrs.evolve(old, persona_encoder=encoder)
    ana = Persona.load(GOLDEN / "ana.safetensors")
    assert Persona.load(made / "ana.safetensors") == attrs.evolve(ana, encoder_fingerprint=own)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 100_000


def test_a_persona_of_an_earlier_built_in_model_is_refused_with_the_remedy():
    kept = Persona.load(GOLDEN.parent / "earlier-tiny" / "ana.safetensors")
    model = DeperModel.from_pretrained("tiny", threads=1)
    with pytest.raises(IncompatiblePersonaError, match="make the persona anew from its samples with 'tiny'"):
        model.describe(pydeper.demo_image(), kept)
