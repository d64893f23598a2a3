"""A whole small bundle with random weights, made by the real exporters; and one whose files are stubs."""

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from export.adapter import export_adapter
from export.bundle.assemble import assemble, with_fingerprint, write_manifest
from export.persona_encoder import export_persona_encoder
from pydeper import DeperModel, Persona
from pydeper.bundle.config import BundleConfig, ImageEncoderInfo, PersonaEncoderConfig
from tests.support.made_once import made_once
from tests.support.random_samples import make_sample
from tests.support.small_vlm import SmallVLM
from training.network import Adapter, ImageEncoder, NetworkConfig, PersonaEncoder, TextTable


@pytest.fixture(scope="session")
def small_config(small_vlm: SmallVLM) -> BundleConfig:
    return BundleConfig(
        name="small",
        description="Random weights.",
        licence="Apache-2.0",
        persona_encoder=PersonaEncoderConfig(
            fingerprint="none yet",
            image_encoder=ImageEncoderInfo("random ConvNeXt", "Some licence"),
            image_size=64,
            image_mean=(0.485, 0.456, 0.406),
            image_std=(0.229, 0.224, 0.225),
            max_fixations=6,
            max_description_tokens=16,
            modalities=("text+trajectory", "trajectory"),
        ),
        vlm=small_vlm.config,
        prompts=small_vlm.prompts,
        training={"people": 0},
    )


VLM_FILES = ("vlm/decoder_model_merged.onnx", "vlm/embed_tokens.npy", "vlm/vision_encoder.onnx")
INT4_FILES = (
    "vlm/decoder_model_merged_q4.onnx",
    "vlm/decoder_model_merged_q4.onnx_data",
    "vlm/vision_encoder_int8.onnx",
)


@pytest.fixture
def stub_bundle(tmp_path: Path, small_config: BundleConfig) -> Path:
    """A bundle as far as names, config and manifest go; nothing can run its files."""
    folder = tmp_path / "small"
    (folder / "vlm").mkdir(parents=True)
    (folder / "config.json").write_text(small_config.to_json())
    write_stubs(folder, "persona_encoder.onnx", "adapter.onnx", "tokenizer.json", "README.md", *VLM_FILES)
    return folder


@pytest.fixture
def stub_bundle_of_two(stub_bundle: Path, small_config: BundleConfig) -> Path:
    """The same with the VLM in a second precision, which is the default."""
    config = attrs.evolve(small_config, vlm=attrs.evolve(small_config.vlm, precision="int4"))
    (stub_bundle / "config.json").write_text(config.to_json())
    write_stubs(stub_bundle, *INT4_FILES)
    return stub_bundle


def write_stubs(folder: Path, *names: str) -> None:
    """Writes files that hold their own names over and over, and a manifest that lists them."""
    for name in names:
        (folder / name).write_bytes(name.encode() * 100)
    write_manifest(folder)


@pytest.fixture(scope="session")
def bundle_parts(
    small_vlm: SmallVLM, small_config: BundleConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The arguments of `assemble`."""

    def make(folder: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            backbone = DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1]))
            sizes = NetworkConfig(hidden_size=32, image_channels=20, text_channels=64, grid_size=2, max_fixations=6)
            persona_encoder = PersonaEncoder(sizes)
            adapter = Adapter(384, 64)
        small_vlm.tokenizer.save(str(folder / "tokenizer.json"))
        table = TextTable(small_vlm.model.get_input_embeddings().weight)
        path = folder / "persona_encoder.onnx"
        export_persona_encoder(path, persona_encoder, ImageEncoder(backbone), table, image_size=64)
        torch.nn.init.normal_(adapter.projection.weight, std=0.2, generator=torch.Generator().manual_seed(0))
        export_adapter(folder / "adapter.onnx", adapter)

    folder = made_once(tmp_path_factory, "small-bundle-parts", make)
    files = {name: folder / f"{name}.onnx" for name in ("persona_encoder", "adapter")}
    tokenizer = folder / "tokenizer.json"
    config = with_fingerprint(small_config, persona_encoder=files["persona_encoder"], tokenizer=tokenizer)
    return {"config": config, "tokenizer": tokenizer, "vlm": small_vlm.folder, **files}


@pytest.fixture(scope="session")
def bundle_folder(bundle_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(tmp_path_factory.mktemp("bundles") / "small", **bundle_parts)


@pytest.fixture(scope="session")
def other_folder(bundle_parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same parts under another name, with another persona encoder by its fingerprint."""
    config: BundleConfig = bundle_parts["config"]
    encoder = attrs.evolve(config.persona_encoder, fingerprint="sha256:" + "0" * 64)
    other = attrs.evolve(config, name="other", persona_encoder=encoder)
    return assemble(tmp_path_factory.mktemp("bundles") / "other", **bundle_parts | {"config": other})


@pytest.fixture(scope="session")
def model(bundle_folder: Path) -> DeperModel:
    return DeperModel.from_pretrained(bundle_folder, device="cpu", threads=1)


@pytest.fixture(scope="session")
def ana(model: DeperModel) -> Persona:
    return Persona.from_samples([make_sample(seed) for seed in range(5)], model=model)


@pytest.fixture(scope="session")
def ben(ana: Persona) -> Persona:
    """As unlike Ana as chance makes him: to a random encoder all people are nearly the same."""
    return attrs.evolve(ana, subject_embedding=np.random.default_rng(0).standard_normal(384), name="ben")
