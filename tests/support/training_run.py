"""A training run from files: small random models in transformers' own layout, drawn samples, a configuration."""

import json
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

from pydeper.readers import write_samples
from training.config import TrainingConfig, load_config
from training.loop.checkpoints import CHECKPOINT
from training.loop.logs import LOG
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewers

PEOPLE, SCENES, TRAINING_SCENES = 3, 6, 4

SHORTEST_IDENTIFICATION = (
    "identification.passes=1",
    "identification.most_passes=1",
    "identification.rate_factors=[]",
    "identification.regularisation_factors=[]",
    "stage1.every_view=true",
    "stage1.modality_dropout=0",
    "stage1.virtual_people={weight=1, people=2, samples=2}",
)
"""Settings with which `identify` tries a single training, of one pass."""


@pytest.fixture(scope="session")
def parts(tmp_path_factory, torch_vlm, tokenizer) -> Path:
    """`encoder/`, `vlm/` and `samples/`; the VLM's tokenizer does not know `<subj>` yet, as Qwen2-VL's does not."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])).save_pretrained(
        folder / "encoder"
    )
    processing = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "encoder/preprocessor_config.json").write_text(json.dumps(processing))
    torch_vlm.save_pretrained(folder / "vlm")
    published = json.loads(tokenizer.to_str())
    published["added_tokens"] = [token for token in published["added_tokens"] if token["content"] != "<subj>"]
    (folder / "vlm/tokenizer.json").write_text(json.dumps(published))
    write_drawn_samples(folder / "samples")
    return folder


@pytest.fixture(scope="module")
def wide_context(parts: Path) -> Path:
    """`parts`, with room for longer prompts: words are many tokens to the small VLM, and context costs it nothing."""
    path = parts / "vlm/config.json"
    config = json.loads(path.read_text())
    config["text_config"]["max_position_embeddings"] = 4096
    path.write_text(json.dumps(config))
    return parts


def write_drawn_samples(
    folder: Path, people: int = PEOPLE, scenes: int = SCENES, training_scenes: int = TRAINING_SCENES
) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    viewers = sample_viewers(rng, groups=people, orders_per_group=1, prefix="viewer")
    samples = []
    for number in range(scenes):
        scene = sample_scene(rng)
        render(scene).save(folder / f"{number}.png")
        split = "train" if number < training_scenes else "val"
        samples += [
            attrs.evolve(viewer.sample(scene, rng, folder / f"{number}.png"), split=split) for viewer in viewers
        ]
    write_samples(folder / "samples.jsonl", samples)


@pytest.fixture
def config_file(parts: Path, tmp_path: Path) -> Path:
    return small_config(parts, tmp_path / "small.toml")


def small_config(parts: Path, path: Path) -> Path:
    path.write_text(f"""
name = "small"
samples = {json.dumps(str(parts / "samples/samples.jsonl"))}
image_encoder = {json.dumps(str(parts / "encoder"))}
image_size = 224
vlm = {json.dumps(str(parts / "vlm"))}

[network]
hidden_size = 16
subject_embedding_size = 12
num_heads = 2
encoder_layers = 1
decoder_layers = 1
image_channels = 16
text_channels = 64
grid_size = 7

[stage1]
steps = 6
batch_size = 4
accumulation = 2
modality_dropout = 0.2
checkpoint_every = 2
log_every = 1

[stage2]
steps = 4
batch_size = 3
checkpoint_every = 2
log_every = 1
bf16 = false
""")
    return path


def read(path: Path, *changes: str) -> TrainingConfig:
    return load_config(TrainingConfig, path, changes)


def log_of(folder: Path, name: str = LOG) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_end(one: Path, other: Path) -> None:
    """The same log, and the same checkpoint to the last bit."""
    assert log_of(other) == log_of(one)
    first, second = (load_file(folder / CHECKPOINT) for folder in (one, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(second[key], tensor) for key, tensor in first.items())


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())
