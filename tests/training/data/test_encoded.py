"""Samples as the network reads them: caching of images, batches, modality dropout."""

import gc
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer

from pydeper import InvalidSampleError, Sample, Trajectory
from pydeper.errors import InvalidImageError
from tests.support.file_samples import CONFIG, Backbone, file_samples, people_samples
from training.data.encoded import encode_dataset
from training.data.sampling import batch_rows, by_length, dropped_modalities
from training.network.image_encoder import ImageEncoder
from training.tiny.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return build_tokenizer(["a red circle, then a blue star"] * 20, 400)


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


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    bucket=st.integers(1, 8),
    seed=st.integers(0, 99),
)
def test_buckets_share_out_the_very_samples_of_the_plain_walk(lengths, batch_size, bucket, seed):
    sizes = np.array(lengths)
    plain = [batch_rows(len(sizes), batch_size, seed, number) for number in range(3 * bucket)]
    found = [
        batch_rows(len(sizes), batch_size, seed, number, lengths=sizes, bucket=bucket) for number in range(3 * bucket)
    ]
    for start in range(0, 3 * bucket, bucket):
        window = slice(start, start + bucket)
        assert sorted(np.concatenate(plain[window])) == sorted(np.concatenate(found[window]))
        # Batches of like lengths: put in the order of their shortest, no batch reaches into the next.
        ranges = sorted((sizes[rows].min(), sizes[rows].max()) for rows in found[window])
        assert bucket == 1 or all(one[1] <= other[0] for one, other in itertools.pairwise(ranges))


def test_buckets_waste_less_on_padding_and_come_in_random_order():
    lengths = np.random.default_rng(0).integers(10, 256, 1000)

    def padding(bucket: int) -> float:
        batches = [batch_rows(1000, 32, 0, number, lengths=lengths, bucket=bucket) for number in range(32)]
        return 1 - sum(lengths[rows].sum() for rows in batches) / sum(32 * lengths[rows].max() for rows in batches)

    assert padding(1) > 0.4
    assert padding(16) < 0.1
    firsts = {int(by_length(np.arange(16), 16, seed, 0)[0, 0]) for seed in range(40)}
    assert len(firsts) > 8


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_broken_images_are_counted_named_and_left_out_up_to_the_limit(tokenizer, tmp_path, place):
    samples = file_samples(tmp_path, 5)
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / "3.png").unlink()
    cache = tmp_path / "cache" if place == "disk" else None
    encoder = ImageEncoder(Backbone())
    with pytest.raises(InvalidImageError, match=r"ana.jsonl:2: image '.*1.png' .*skip_broken_images"):
        encode_dataset(samples, tokenizer, encoder, CONFIG, feature_cache=cache)
    with pytest.warns(UserWarning, match=r"1\.png"), pytest.raises(InvalidImageError, match=r"3.png.*number 2"):
        encode_dataset(samples, tokenizer, encoder, CONFIG, feature_cache=cache, skip_broken_images=1)
    with pytest.warns(UserWarning, match=r"skipped: ana.jsonl:[24]: image"):
        data = encode_dataset(samples, tokenizer, encoder, CONFIG, feature_cache=cache, skip_broken_images=2)
    assert (len(data), len(data.images)) == (3, 3)
    assert list(data.descriptions) == [samples[i].description for i in (0, 2, 4)]
    good = encode_dataset([samples[i] for i in (0, 2, 4)], tokenizer, encoder, CONFIG)
    assert torch.equal(data.inputs([0, 1, 2]).image_tokens, good.inputs([0, 1, 2]).image_tokens)


def test_no_image_is_opened_where_all_features_are_cached(tokenizer, tmp_path, monkeypatch):
    samples, backbone = file_samples(tmp_path, 4), Backbone()
    first = encode_dataset(samples, tokenizer, ImageEncoder(backbone), CONFIG, feature_cache=tmp_path / "cache")
    monkeypatch.setattr("pydeper.images.open_image", lambda image: pytest.fail(f"{image} was opened"))
    again = encode_dataset(samples, tokenizer, ImageEncoder(backbone), CONFIG, feature_cache=tmp_path / "cache")
    assert backbone.images == 4
    assert torch.equal(first.inputs(range(4)).image_tokens, again.inputs(range(4)).image_tokens)


def test_memory_does_not_grow_with_the_pictures(tokenizer, tmp_path):
    """What stays of an image is its tokens, 48 bytes here, not its pixels."""

    def pictures() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Image.Image) for thing in gc.get_objects())

    samples, before = file_samples(tmp_path, 12), pictures()
    data = encode_dataset(samples, tokenizer, ImageEncoder(Backbone()), CONFIG)
    assert pictures() == before
    assert data.image_tokens.store.nbytes == 12 * 4 * 3 * 4


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
