"""A training run, from the command line to a bundle that describes."""

import json
import shutil
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch

import pydeper
from export.__main__ import main as export
from export.bundle.from_run import accepted_modalities
from pydeper import DeperModel, Persona
from tests.support.training_run import small_config
from training.__main__ import main as train
from training.config import TrainingConfig, load_config
from training.loop.checkpoints import load_state
from training.network import Adapter, PersonaEncoder
from training.runs.folders import stage2_folder
from training.runs.frozen_parts import FrozenParts

# The first test to need it waits for the shared export, which a busy machine makes slow.
pytestmark = pytest.mark.timeout(900)

SET = [f"--set={change}" for change in ("network.subject_embedding_size=384", "stage1.steps=2", "stage2.steps=2")]
LICENCES = ("--licence", "Apache-2.0", "--image-encoder-licence", "DINOv3 License")


@pytest.fixture(scope="module")
def made(parts: Path, exported_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`run`, `vlm` and `small.toml`: what the command takes; `smaller` is a VLM for images of another size."""
    folder = tmp_path_factory.mktemp("made")
    config = small_config(parts, folder / "small.toml")
    for stage in ("stage1", "stage2"):
        assert train([stage, "--config", str(config), *SET, "--out", str(folder / "run")]) == 0
    for name, image_size in (("vlm", [224, 224]), ("smaller", [84, 84])):
        described = json.loads((shutil.copytree(exported_vlm, folder / name) / "vlm.json").read_text())
        described["vision"]["image_size"] = image_size
        (folder / name / "vlm.json").write_text(json.dumps(described))
    return folder


def bundle(made: Path, out: Path, *more: str, vlm: str = "vlm") -> int:
    config = ("--config", str(made / "small.toml"), "--vlm", str(made / vlm))
    return export(["bundle", str(made / "run"), *config, *SET, *LICENCES, "--out", str(out), *more])


def test_the_bundle_gives_what_was_trained(made: Path, tmp_path: Path) -> None:
    licence = tmp_path / "licence.txt"
    licence.write_text("You may.")
    assert bundle(made, tmp_path / "b", "--precision", "fp32", "--image-encoder-licence-text", str(licence)) == 0
    model = DeperModel.from_pretrained(tmp_path / "b")
    assert model.config.persona_encoder.image_encoder.licence == "DINOv3 License"
    assert (tmp_path / "b/LICENSE.image_encoder").read_text() == "You may."
    assert sorted(path.name for path in (tmp_path / "b/vlm").iterdir()) == [
        "decoder_model_merged.onnx",
        "embed_tokens.npy",
        "vision_encoder.onnx",
    ]
    config = load_config(TrainingConfig, made / "small.toml", [change.removeprefix("--set=") for change in SET])
    samples = pydeper.read_samples(config.samples)[:4]
    encoder, adapter = PersonaEncoder(config.network).eval(), Adapter(384, 64).eval()
    load_state(stage2_folder(made / "run"), encoder, "encoder")
    load_state(stage2_folder(made / "run"), adapter, "adapter")
    frozen = FrozenParts.load(config)
    data = frozen.encode(samples)
    inputs = data.inputs(np.arange(4))
    with torch.no_grad():
        z_s = encoder(inputs.image_tokens, frozen.text_table(inputs.input_ids), *inputs[2:]).subject_embedding
    np.testing.assert_allclose(model.embed(samples), z_s.numpy(), rtol=1e-3, atol=1e-4)
    # Trained with modality dropout, it takes samples that lack something.
    assert model.config.persona_encoder.modalities == accepted_modalities(config)
    assert model.embed([attrs.evolve(samples[0], trajectory=None)]).shape == (1, 384)
    persona = Persona.from_samples(samples[:1], model=model)
    assert isinstance(model.describe(samples[0].image, persona, max_new_tokens=3), str)


def test_the_bundle_accepts_the_samples_that_the_training_saw(made: Path) -> None:
    def modalities(dropout: float) -> tuple[str, ...]:
        return accepted_modalities(
            load_config(TrainingConfig, made / "small.toml", [f"stage1.modality_dropout={dropout}"])
        )

    assert modalities(0.0) == ("text+trajectory",)
    assert modalities(0.2) == ("text+trajectory", "text", "trajectory")


def test_what_does_not_fit_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*more: str, out: str = "b", vlm: str = "vlm") -> str:
        assert bundle(made, tmp_path / out, *more, vlm=vlm) == 2
        assert not (tmp_path / "b").exists()
        return capsys.readouterr().err

    assert "the size of its images is (84, 84), and was (224, 224); export that one: `python" in refusal(vlm="smaller")
    assert "is not what `python -m export vlm` writes" in refusal(vlm="run")
    assert "stage-2: not finished; run `python -m training stage2`" in refusal("--set", "stage2.steps=9")
    (tmp_path / "there").mkdir()
    assert "there: exists already" in refusal(out="there")
