"""Noise on training samples and virtual people: what changes, what stays, and that all processes draw alike."""

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pydeper.persona.preprocess import EncodedSample
from tests.support.file_samples import CONFIG, Backbone, file_samples
from training.config import ConfigError, NoiseConfig, Stage1Config, VirtualPeopleConfig
from training.data.augmentation import VirtualPeople, VirtualPerson, noise
from training.data.batches import Stage1Batches
from training.data.encoded import EncodedDataset, encode_dataset
from training.data.loader import BatchLoader
from training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from training.errors import TrainingError
from training.network.image_encoder import ImageEncoder

SAMPLES = 12


@st.composite
def encoded(draw: Callable) -> EncodedSample:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    words, fixations = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    corners = np.sort(rng.random((fixations, 2, 2)), axis=1).reshape(fixations, 4)
    return EncodedSample(
        pixel_values=None,
        input_ids=rng.integers(100, size=words),
        boxes=corners.astype(np.float32),
        durations=rng.uniform(0.05, 1, fixations).astype(np.float32),
    )


def assert_same(one: EncodedSample, other: EncodedSample) -> None:
    assert one.input_ids.tolist() == other.input_ids.tolist()
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-6)
    np.testing.assert_allclose(one.durations, other.durations, rtol=1e-6)


def assert_readable(sample: EncodedSample) -> None:
    assert (sample.boxes.dtype, sample.durations.dtype) == (np.float32, np.float32)
    assert ((sample.boxes >= 0) & (sample.boxes <= 1)).all()
    assert (sample.boxes[:, :2] <= sample.boxes[:, 2:]).all()
    assert (sample.durations > 0).all()


@given(encoded(), st.integers(0, 50))
def test_noise_changes_what_it_is_asked_to_and_always_alike(sample, place):
    config = NoiseConfig(words=0.5, boxes=0.1, durations=0.3)
    changed = noise(config, 1, 2)(place, sample)
    assert_readable(changed)
    assert_same(changed, noise(config, 1, 2, first=place)(0, sample))
    words = sample.input_ids.tolist()
    kept = changed.input_ids.tolist()
    assert kept[:1] == words[:1]
    rest = iter(words)
    assert all(word in rest for word in kept)  # in their order
    assert len(changed.boxes) == len(changed.durations) == len(sample.durations)
    assert_same(noise(NoiseConfig(), 1, 2)(place, sample), sample)


def test_noise_is_as_strong_as_it_says():
    count = 4000
    sample = EncodedSample(
        pixel_values=None,
        input_ids=np.arange(count),
        boxes=np.tile(np.float32([0.4, 0.4, 0.6, 0.6]), (count, 1)),
        durations=np.full(count, 0.5, np.float32),
    )
    changed = noise(NoiseConfig(words=0.3, boxes=0.02, durations=0.2), 0, 0)(0, sample)
    assert len(changed.input_ids) / count == pytest.approx(0.7, abs=0.03)
    assert (changed.boxes - sample.boxes).std() == pytest.approx(0.02, rel=0.05)
    np.testing.assert_allclose(np.ptp(changed.boxes[:, [0, 2]], axis=1), 0.2, atol=1e-6)  # a box keeps its size
    assert np.log(changed.durations / sample.durations).std() == pytest.approx(0.2, rel=0.05)


@given(encoded(), st.integers(0, 99), st.floats(0, 3))
def test_a_virtual_person_looks_in_the_same_order_for_as_long_or_less(sample, seed, strength):
    person = VirtualPerson.draw(np.random.default_rng(seed), strength)
    looked = person.looks(sample)
    assert_readable(looked)
    assert looked.input_ids.tolist() == sample.input_ids.tolist()
    count = len(looked.durations)
    assert len(looked.boxes) == count
    assert count <= len(sample.durations)
    if len(sample.durations):
        assert count >= 1
        pace = np.full(count, person.pace)
        pace[0] *= person.first
        np.testing.assert_allclose(looked.durations, pace * sample.durations[:count], rtol=1e-5)
        assert looked.durations[:-1].sum() < sample.durations.sum()
    assert_same(VirtualPerson.draw(np.random.default_rng(seed), 0).looks(sample), sample)


def test_a_virtual_person_moves_boxes_about_the_middle_and_keeps_their_size():
    sample = EncodedSample(
        pixel_values=None,
        input_ids=np.zeros(0, np.int64),
        boxes=np.float32([[0.4, 0.4, 0.6, 0.6], [0.6, 0.4, 0.8, 0.6]]),
        durations=np.float32([0.2, 0.2]),
    )
    looked = VirtualPerson(1.0, 1.0, 1.0, np.array([0.5, 2.0]), np.array([0.1, -0.1])).looks(sample)
    np.testing.assert_allclose(looked.boxes, [[0.5, 0.3, 0.7, 0.5], [0.6, 0.3, 0.8, 0.5]], atol=1e-6)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(1, 5), st.integers(1, 8))
def test_each_virtual_person_is_made_of_one_real_person(counts, people, samples):
    rows_of = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    drawn = VirtualPeople.draw(rows_of, people, samples, 1.0, np.random.default_rng(0))
    assert drawn.people.tolist() == np.repeat(np.arange(people), samples).tolist()
    whose = np.repeat(np.arange(len(counts)), counts)
    for person in range(people):
        own = drawn.rows[drawn.people == person]
        assert len(set(whose[own])) == 1
        if samples <= counts[whose[own[0]]]:
            assert len(set(own)) == samples


# --- in the batches of stage 1


@pytest.fixture
def data(tokenizer: Tokenizer, tmp_path: Path) -> EncodedDataset:
    samples = file_samples(tmp_path, SAMPLES)
    return encode_dataset(samples, tokenizer, ImageEncoder(Backbone()), CONFIG, feature_cache=tmp_path / "features")


def batches(
    data: EncodedDataset, group: ProcessGroup = SINGLE_PROCESS, *, batch_size: int = 4, workers: int = 0
) -> Stage1Batches:
    config = Stage1Config(
        steps=4,
        batch_size=batch_size,
        noise=NoiseConfig(words=0.3, boxes=0.05, durations=0.2),
        virtual_people=VirtualPeopleConfig(weight=1.0, people=3, samples=2),
        workers=workers,
    )
    return Stage1Batches(data=data, config=config, seed=7, group=group, count=SAMPLES - 3)


def test_two_processes_draw_what_one_draws_with_twice_the_batch(data):
    one = batches(data, batch_size=8)[2]
    halves = [batches(data, ProcessGroup(rank=rank, world_size=2))[2] for rank in (0, 1)]
    durations = [row[row > 0].tolist() for half in halves for row in half.inputs.durations]
    assert durations == [row[row > 0].tolist() for row in one.inputs.durations]
    for half in halves:
        assert np.array_equal(half.virtual.people, one.virtual.people)
        assert torch.equal(half.virtual.inputs.boxes, one.virtual.inputs.boxes)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # a machine with one core
def test_workers_draw_the_same_virtual_people(data):
    alone, worked = batches(data)[0], batches(data, workers=1)
    with BatchLoader(worked, worked.config) as loader:
        batch = loader.take(0, torch.device("cpu"))
    assert torch.equal(batch.inputs.boxes, alone.inputs.boxes)
    assert torch.equal(batch.virtual.inputs.durations, alone.virtual.inputs.durations)


def test_virtual_people_are_made_of_training_samples_without_their_words(data):
    made = batches(data)
    inputs = made[0].virtual.inputs
    assert not inputs.attention_mask.any()
    assert inputs.fixation_mask.any(dim=1).all()
    real = {len(sample.durations) for sample in data.samples[: made.count]}
    assert int(inputs.fixation_mask.sum(dim=1).max()) <= max(real)


def test_virtual_people_need_somebody_who_looked(data):
    blind = [attrs.evolve(sample, boxes=sample.boxes[:0], durations=sample.durations[:0]) for sample in data.samples]
    with pytest.raises(TrainingError, match="no training sample has one; set their weight to 0"):
        batches(attrs.evolve(data, samples=blind))[0]


def test_every_view_shows_each_sample_whole_and_each_half_alone(data):
    config = Stage1Config(steps=1, batch_size=4, every_view=True)
    batch = Stage1Batches(data=data, config=config, seed=7, group=SINGLE_PROCESS, count=SAMPLES)[0]
    rows = batch.rows[:4]
    assert batch.rows.tolist() == [*rows, *rows, *rows]
    text, gaze = batch.inputs.attention_mask.any(dim=1), batch.inputs.fixation_mask.any(dim=1)
    both = [len(data.samples[row].input_ids) > 0 and len(data.samples[row].durations) > 0 for row in rows]
    for place, (row, complete) in enumerate(zip(rows, both, strict=True)):
        views = [(bool(text[place + 4 * view]), bool(gaze[place + 4 * view])) for view in range(3)]
        sample = data.samples[row]
        alone = (len(sample.input_ids) > 0, len(sample.durations) > 0)
        assert views == ([(True, True), (True, False), (False, True)] if complete else [alone] * 3)


def test_every_view_and_modality_dropout_exclude_each_other():
    with pytest.raises(ConfigError, match="set modality_dropout = 0"):
        attrs.evolve(Stage1Config(steps=1, every_view=True), modality_dropout=0.1)
