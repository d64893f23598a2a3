"""Samples in WebDataset shards: written, read from folders and over HTTP, damaged, and trained on as they stream by."""

import gc
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from pydeper import InvalidImageError, Sample, Trajectory
from tests.support.file_samples import CONFIG, Backbone, file_samples
from tests.support.file_server import served
from tests.support.images import random_image
from tests.support.training_run import log_of
from training.__main__ import main
from training.data.encoded import encode_dataset
from training.data.images import content_key
from training.data.sampling import batch_rows
from training.data.shards import (
    OPEN_SHARDS,
    ShardError,
    ShardImages,
    read_samples,
    read_shard,
    read_shard_samples,
    write_shards,
)
from training.loop.checkpoints import is_finished
from training.network.image_encoder import ImageEncoder
from training.tiny.tokenizer import build_tokenizer

KEY = "0" * 64
TRAJECTORY = Trajectory.from_arrays([[0.1, 0.1, 0.2, 0.2], [0.5, 0.1, 0.7, 0.4]], [0.3, 0.25])


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Two people on six images of several kinds, one image a copy of another."""
    folder = tmp_path_factory.mktemp("images")
    samples = []
    for number, suffix in enumerate(["png", "jpg", "webp", "bmp", "png", "png"]):
        path = folder / f"image {number}.{suffix}"
        random_image(60, 40, 0 if number == 5 else number).save(path)
        samples += [
            Sample(image=path, description=f"ana sees {number}", subject="ana", trajectory=TRAJECTORY, split="train"),
            Sample(image=path, trajectory=TRAJECTORY, subject="ben"),
        ]
    return samples


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on the folder `tmp_path`; yields its address."""
    with served(tmp_path) as address:
        yield address


def told(samples: list[Sample]) -> set[tuple[object, ...]]:
    """What samples say, images by their content."""
    return {
        (
            content_key(sample.image if isinstance(sample.image, bytes) else Path(sample.image).read_bytes()),
            *rest(sample),
        )
        for sample in samples
    }


def rest(sample: Sample) -> tuple[object, ...]:
    return sample.description, sample.subject, sample.trajectory, sample.split


def told_by_shards(samples: list[Sample]) -> set[tuple[object, ...]]:
    images = ShardImages(samples)
    return {(images.key(number), *rest(sample)) for number, sample in enumerate(samples)}


@pytest.mark.parametrize("over_http", [False, True])
def test_what_was_packed_comes_back(people, tmp_path, server, over_http):
    written = write_shards(people, tmp_path / "shards")
    assert attrs.astuple(written) == (1, 5, 12, 0)
    address = f"{server}/shards" if over_http else str(tmp_path / "shards")
    samples = read_samples(address)
    assert told_by_shards(samples) == told(people)
    originals = {content_key(Path(sample.image).read_bytes()): sample.open_image() for sample in people}
    images = ShardImages(samples)
    for number in range(len(images)):
        assert images.open(number).tobytes() == originals[images.key(number)].tobytes()
    assert samples[0].source == f"{address}/index.jsonl:1"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset leaves its files open
def test_other_readers_of_webdataset_find_all_they_need(people, tmp_path):
    import webdataset

    write_shards(people, tmp_path / "shards")
    found = {}
    for path in sorted((tmp_path / "shards").glob("*.tar")):
        stream = webdataset.WebDataset(str(path), shardshuffle=False).decode("pil")
        found |= {record["__key__"]: record for record in stream}
    assert len(found) == 5
    for sample in people:
        record = found[content_key(Path(sample.image).read_bytes())]
        (picture,) = (value for value in record.values() if isinstance(value, Image.Image))
        assert np.array_equal(np.asarray(picture), np.asarray(sample.open_image()))
        assert sample.description in [told["description"] for told in record["json"]]
    gc.collect()


def test_the_same_samples_make_the_same_bytes_and_shards_keep_to_their_size(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 200, 200, 3), dtype=np.uint8)
    samples = [Sample(image=pixels, description=f"noise {i}", subject="ana") for i, pixels in enumerate(noise)]
    written = write_shards(samples, tmp_path / "one", shard_mib=1)
    write_shards(samples, tmp_path / "two", shard_mib=1)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(names) == written.shards + 1 > 4
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        assert (tmp_path / "one" / name).stat().st_size < 1.2 * 2**20
    order = [sample.description for sample in read_shard_samples(str(tmp_path / "one"))]
    assert order != [sample.description for sample in samples]  # shuffled over the shards
    assert sorted(order, key=str) == sorted((sample.description for sample in samples), key=str)


def test_broken_images_are_left_out_up_to_the_limit(people, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    broken = [Sample(image=tmp_path / "broken.png", description="?", source="ana.jsonl:9")] * 2
    with pytest.raises(InvalidImageError, match=r"ana.jsonl:9: image .*broken.png"):
        write_shards([*people, *broken], tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    with pytest.warns(UserWarning, match=r"skipped: ana.jsonl:9"):
        written = write_shards([*people, *broken], tmp_path / "shards", skip_broken_images=1)
    assert (written.samples, written.broken) == (12, 1)
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ShardError, match="zero samples"):
        write_shards(broken, tmp_path / "none", skip_broken_images=1)
    with pytest.raises(ShardError, match=r"holds index.jsonl already"):
        write_shards(people, tmp_path / "shards")


def cut(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def other_pixels(whole: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(whole)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for member in old:
            data = bytearray(old.extractfile(member).read())
            data[-1] ^= 1
            new.addfile(member, io.BytesIO(bytes(data)))
    return buffer.getvalue()


@pytest.mark.parametrize("over_http", [False, True])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "000000.tar: "),
        (other_pixels, r"000000.tar: .* is damaged; fetch or write the shard again"),
        (lambda whole: b"", "000000.tar: "),
        (None, r"000000.tar: cannot be read"),
    ],
)
def test_a_damaged_shard_is_named(people, tmp_path, server, over_http, damage, message):
    write_shards(people, tmp_path / "shards")
    samples = read_shard_samples(f"{server}/shards" if over_http else str(tmp_path / "shards"))
    path = tmp_path / "shards/000000.tar"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ShardError, match=message):
        ShardImages(samples).open(0)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"image": "a"}', '{"image": "0.tar/a.png", "samples": [{"description": "", "trajectory": null}]}'],
)
def test_a_damaged_index_is_named(people, tmp_path, line):
    write_shards(people, tmp_path / "shards")
    index = tmp_path / "shards/index.jsonl"
    index.write_text(index.read_text() + line)
    with pytest.raises(ShardError, match=r"index.jsonl:6: damaged \(.*write the shards again"):
        read_shard_samples(str(tmp_path / "shards"))


def test_a_place_without_shards_is_named(tmp_path, server):
    for address in (str(tmp_path), server):
        with pytest.raises(ShardError, match=r"index.jsonl: cannot be read .*python -m training shard"):
            read_shard_samples(address)


# --- training on shards


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return file_samples(tmp_path_factory.mktemp("many"), 24)


def small_shards(samples: list[Sample], folder: Path) -> list[Sample]:
    """Shards of a few images, which are not of one size."""
    size = sum(Path(sample.image).stat().st_size for sample in samples) / (3 * OPEN_SHARDS)
    assert write_shards(samples, folder, shard_mib=size / 2**20).shards > 2 * OPEN_SHARDS
    return read_shard_samples(str(folder))


def test_streamed_features_are_those_of_files_and_each_shard_is_read_once_an_epoch(many, tmp_path, monkeypatch):
    tokenizer = build_tokenizer(["a red circle"] * 9, 300)
    sharded = small_shards(many, tmp_path / "shards")
    read: list[str] = []
    monkeypatch.setattr("training.data.shards.read_shard", lambda shard: read.append(shard) or read_shard(shard))
    streamed = encode_dataset(sharded, tokenizer, ImageEncoder(Backbone()), CONFIG)
    assert streamed.shard_of is not None
    assert read == []  # nothing is fetched before it is needed
    plain = encode_dataset(many, tokenizer, ImageEncoder(Backbone()), CONFIG)
    place = {text: row for row, text in enumerate(plain.descriptions)}
    seen: list[int] = []
    for number in range(8):
        rows = streamed.batch_rows(len(streamed), 3, 0, number)
        same = [place[streamed.descriptions[row]] for row in rows]
        assert torch.equal(streamed.inputs(rows).image_tokens, plain.inputs(same).image_tokens)
        seen += rows.tolist()
    assert sorted(seen) == list(range(24))
    assert len(read) == len(set(read)) == len(set(streamed.shard_of.tolist()))


def test_epochs_differ_and_samples_of_several_shards_mix():
    shard_of = np.repeat(np.arange(10), 20)
    first, second = (
        np.concatenate([batch_rows(200, 20, 0, number + start, shard_of=shard_of) for number in range(10)])
        for start in (0, 10)
    )
    assert sorted(first) == sorted(second) == list(range(200))
    assert first.tolist() != second.tolist()
    mixed = [len(set(shard_of[first[start : start + 20]])) for start in range(0, 200, 20)]
    assert max(mixed) == OPEN_SHARDS - 1


def test_with_a_cache_shards_are_read_once_for_all_runs(many, tmp_path, monkeypatch):
    tokenizer, backbone = build_tokenizer(["a red circle"] * 9, 300), Backbone()
    sharded = small_shards(many, tmp_path / "shards")
    data = encode_dataset(sharded, tokenizer, ImageEncoder(backbone), CONFIG, feature_cache=tmp_path / "cache")
    assert data.shard_of is None
    for path in (tmp_path / "shards").glob("*.tar"):
        path.unlink()
    again = encode_dataset(sharded, tokenizer, ImageEncoder(backbone), CONFIG, feature_cache=tmp_path / "cache")
    assert torch.equal(again.inputs(range(24)).image_tokens, data.inputs(range(24)).image_tokens)
    # The files that the shards were made of are known by the same content.
    encode_dataset(many, tokenizer, ImageEncoder(backbone), CONFIG, feature_cache=tmp_path / "cache")
    assert backbone.images == 24


def test_both_stages_train_on_shards_over_http(config_file, parts, tmp_path, server, capsys):
    samples = str(parts / "samples/samples.jsonl")
    assert main(["shard", samples, "--out", str(tmp_path / "shards")]) == 0
    assert "18 samples of 6 images in 1 shard" in capsys.readouterr().out
    shards = ["--set", f"samples={server}/shards"]
    assert main(["stage1", "--config", str(config_file), "--out", str(tmp_path / "run"), *shards]) == 0
    assert len(log_of(tmp_path / "run/stage-1")) == 6
    assert main(["stage2", "--config", str(config_file), "--out", str(tmp_path / "run"), *shards]) == 2
    assert "feature_cache: stage 2 on shards needs one" in capsys.readouterr().err
    cache = ["--set", f"feature_cache={tmp_path / 'cache'}"]
    assert main(["stage2", "--config", str(config_file), "--out", str(tmp_path / "run"), *shards, *cache]) == 0
    assert len(log_of(tmp_path / "run/stage-2")) == 4
    assert json.loads((next((tmp_path / "cache").iterdir()) / "about.json").read_text())["preprocessing"]
    assert is_finished(tmp_path / "run/stage-2", 4)
