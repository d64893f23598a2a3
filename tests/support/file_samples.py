"""Drawn samples, in memory and in files, and a stand-in for the image encoder that counts what it is shown."""

import types
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import nn

from pydeper import Sample
from pydeper.bundle.config import ImageEncoderInfo, PersonaEncoderConfig
from training.tiny.world.rendering import render
from training.tiny.world.sampling import sample_scene
from training.tiny.world.viewers import sample_viewer


class Backbone(nn.Module):
    """A stand-in backbone that counts the images it is shown: 2×2 means, behind a pooled token."""

    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(hidden_sizes=[3])
        self.weight = nn.Parameter(torch.ones(()))
        self.images = 0

    def forward(self, pixel_values: torch.Tensor) -> object:
        self.images += len(pixel_values)
        tokens = nn.functional.adaptive_avg_pool2d(pixel_values, 2).flatten(2).transpose(1, 2)
        return type("Output", (), {"last_hidden_state": torch.cat((tokens.mean(1, keepdim=True), tokens), 1)})()


CONFIG = PersonaEncoderConfig(
    fingerprint="none",
    subject_embedding_size=8,
    image_encoder=ImageEncoderInfo(name="means", licence="none"),
    image_size=32,
    image_mean=(0.5, 0.5, 0.5),
    image_std=(0.5, 0.5, 0.5),
    max_fixations=30,
    max_description_tokens=256,
    modalities=("text+trajectory", "text", "trajectory"),
)


def people_samples(shared_image: bool) -> list[Sample]:
    rng = np.random.default_rng(0)
    scene = sample_scene(rng)
    image = render(scene)
    samples = []
    for name in ("cem", "ana", "ana"):
        own = scene if shared_image else sample_scene(rng)
        viewer = sample_viewer(rng, name)
        samples.append(viewer.sample(own, rng, image=image if shared_image else render(own)))
    return samples


def file_samples(folder: Path, count: int) -> list[Sample]:
    rng = np.random.default_rng(1)
    samples = []
    for number in range(count):
        scene = sample_scene(rng)
        render(scene).save(folder / f"{number}.png")
        drawn = sample_viewer(rng, "ana").sample(scene, rng, image=folder / f"{number}.png")
        samples.append(attrs.evolve(drawn, source=f"ana.jsonl:{number + 1}"))
    return samples
