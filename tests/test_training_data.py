"""Samples as the network reads them: caching of images, batches, modality dropout."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import nn

from pydeper import InvalidSampleError, Sample, Trajectory
from pydeper.config import ImageEncoderInfo, PersonaEncoderConfig
from training.data.encoded import batch_rows, dropped_modalities, encode_dataset
from training.data.simulated import sample_scene, sample_viewer
from training.network.image_encoder import ImageEncoder
from training.tiny.tokenizer import build_tokenizer


class Backbone(nn.Module):
    """A stand-in backbone that counts the images it is shown: 2×2 means, behind a pooled token."""

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"hidden_sizes": [3]})()
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


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(["a red circle, then a blue star"] * 20, 400)


def people_samples(shared_image: bool) -> list[Sample]:
    rng = np.random.default_rng(0)
    scene = sample_scene(rng)
    image = scene.draw()
    samples = []
    for name in ("cem", "ana", "ana"):
        own = scene if shared_image else sample_scene(rng)
        viewer = sample_viewer(rng, name)
        samples.append(viewer.sample(own, rng, image=image if shared_image else own.draw()))
    return samples


def test_an_image_that_people_share_is_encoded_once(tokenizer):
    backbone = Backbone()
    data = encode_dataset(people_samples(shared_image=True), tokenizer, ImageEncoder(backbone), CONFIG)
    assert backbone.images == len(data.images) == 1
    assert data.image_of.tolist() == [0, 0, 0]
    assert data.subjects == ("ana", "cem")
    assert data.subject_of.tolist() == [1, 0, 0]


def test_batches_hold_the_right_image_text_and_trajectory(tokenizer):
    samples = people_samples(shared_image=False)
    data = encode_dataset(samples, tokenizer, ImageEncoder(Backbone()), CONFIG, batch_size=2)
    inputs = data.inputs([2, 0])
    for row, index in enumerate((2, 0)):
        words, stops = inputs.attention_mask[row].sum(), inputs.fixation_mask[row].sum()
        assert tokenizer.decode(inputs.input_ids[row, :words].tolist()) == samples[index].description
        assert torch.equal(inputs.boxes[row, :stops], torch.from_numpy(samples[index].trajectory.boxes))
        assert torch.equal(inputs.durations[row, :stops], torch.from_numpy(samples[index].trajectory.durations))
        assert torch.equal(inputs.image_tokens[row], data.image_tokens[index])
    without = data.inputs([2, 0], ["text", "trajectory"])
    assert without.attention_mask.sum(-1).tolist() == [0, inputs.attention_mask[1].sum()]
    assert without.fixation_mask.sum(-1).tolist() == [inputs.fixation_mask[0].sum(), 0]


def test_a_sample_without_a_subject_is_named(tokenizer):
    nobody = Sample(image=people_samples(True)[0].image, description="a star", source="ana.jsonl:7")
    with pytest.raises(InvalidSampleError, match=r"ana.jsonl:7: subject: missing"):
        encode_dataset([nobody], tokenizer, ImageEncoder(Backbone()), CONFIG)


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 99))
def test_every_epoch_visits_every_row_once_in_an_order_of_its_own(count, batch_size, seed):
    batches = -(-3 * count // batch_size)
    walk = np.concatenate([batch_rows(count, batch_size, seed, number) for number in range(batches)])[: 3 * count]
    epochs = walk.reshape(3, count)
    assert (np.sort(epochs, axis=1) == np.arange(count)).all()
    assert count < 8 or not (epochs[0] == epochs[1]).all()


def test_modality_dropout_never_takes_what_is_alone(tokenizer):
    full = people_samples(True)[0]
    trajectory = Trajectory.from_arrays([[0.1, 0.1, 0.2, 0.2]], [0.3])
    samples = [
        full,
        Sample(image=full.image, description="a star", subject="ana"),
        Sample(image=full.image, trajectory=trajectory, subject="ana"),
    ]
    data = encode_dataset(samples, tokenizer, ImageEncoder(Backbone()), CONFIG)
    drawn = [dropped_modalities(data.samples, 0.3, np.random.default_rng(seed)) for seed in range(2000)]
    first, *alone = (np.array(column, dtype=object) for column in zip(*drawn, strict=True))
    assert all(what is None for column in alone for what in column)
    for modality in ("text", "trajectory"):
        assert 0.25 < (first == modality).mean() < 0.35
    assert dropped_modalities(data.samples, 0.0, np.random.default_rng(0)) == [None, None, None]
