"""The cache of frozen features on disk: shared, killed, damaged, full."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from pydeper import InvalidImageError, Sample
from tests.support.images import random_image
from tests.support.processes import finish, running_python
from training.data.feature_cache import DiskStore, FeatureCacheError, MemoryStore, encoder_identity, open_store
from training.data.image_features import ImageFeatures
from training.data.images import SampleImages

KEYS = [f"{number:064x}" for number in range(0, 2**256, 2**250)][:20]


def store_at(folder: Path) -> DiskStore:
    return DiskStore(folder, "encoder", {})


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.safetensors"))


class Means:
    """An encoder that counts: the mean colour of each image."""

    def __init__(self) -> None:
        self.encoded = 0

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        self.encoded += len(pictures)
        return [torch.from_numpy(np.asarray(picture, np.float32).mean((0, 1))) for picture in pictures]


def image_files(folder: Path, count: int) -> list[Sample]:
    for number in range(count):
        random_image(20, 30, number).save(folder / f"{number}.png")
    return [Sample(image=folder / f"{number}.png", description="a", source=f"a:{number}") for number in range(count)]


# --- what is kept


@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 99),
)
def test_what_was_put_comes_back_to_the_last_bit(tmp_path_factory, shape, dtype, seed):
    features = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    folder = tmp_path_factory.mktemp("cache")
    store_at(folder).put(KEYS[0], features)
    for store in (store_at(folder), store_at(folder)):
        found = store.get(KEYS[0])
        assert found is not None
        assert found.dtype == dtype
        assert torch.equal(found, features)
    assert store.get(KEYS[1]) is None
    assert (KEYS[0] in store, KEYS[1] in store) == (True, False)


def test_features_come_from_mapped_pages_of_the_file(tmp_path):
    store = store_at(tmp_path)
    store.put(KEYS[0], torch.ones(1000, 1000))
    features = store.get(KEYS[0])
    assert features is not None
    assert str(files_of(tmp_path)[0]) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:5],
        lambda whole: whole[:-1],
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: b"\xff" * len(whole),
        lambda whole: whole.replace(b"crc32", b"crc33"),
        lambda whole: whole.replace(b"features", b"featurez"),
    ],
)
def test_a_damaged_entry_is_reported_and_computed_anew(tmp_path, damage):
    samples, means = image_files(tmp_path, 3), Means()
    images = SampleImages(samples)
    ImageFeatures(images, means, store_at(tmp_path / "cache")).fill()
    path = next(path for path in files_of(tmp_path / "cache") if images.key(1) in path.name)
    path.write_bytes(damage(path.read_bytes()))
    features = ImageFeatures(images, means, store_at(tmp_path / "cache"))
    with pytest.warns(UserWarning, match=rf"{images.key(1)}.safetensors: damaged \(.*computed anew"):
        found = features.of([0, 1, 2])
    assert means.encoded == 4
    assert torch.equal(torch.stack(found), torch.stack(Means()([sample.open_image() for sample in samples])))
    ImageFeatures(images, means, store_at(tmp_path / "cache")).of([0, 1, 2])
    assert means.encoded == 4


# --- who shares it


WRITER = """
import sys, torch
from pathlib import Path
from training.data.feature_cache import DiskStore
store = DiskStore(Path(sys.argv[1]), "encoder", {})
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    for key in sys.argv[3:]:
        store.put(key, torch.full((200_000,), float(int(key[:2], 16))))
"""


@contextmanager
def writer(folder: Path, turns: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that writes all entries so many times over."""
    with running_python("-c", WRITER, str(folder), str(turns), *KEYS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def assert_whole(folder: Path) -> int:
    """Every entry that can be seen is right, without a warning. Returns how many they are."""
    store = store_at(folder)
    found = {key: store.get(key) for key in KEYS}
    for key, features in found.items():
        assert features is None or torch.equal(features, torch.full((200_000,), float(int(key[:2], 16))))
    return sum(features is not None for features in found.values())


def test_two_processes_write_the_same_entries_while_a_third_reads(tmp_path):
    with writer(tmp_path, 10) as first, writer(tmp_path, 10) as second:
        while first.poll() is None or second.poll() is None:
            assert_whole(tmp_path)
        for process in (first, second):
            finish(process)
    assert assert_whole(tmp_path) == len(KEYS)


def test_a_killed_writer_leaves_a_valid_cache_and_its_remains_are_swept(tmp_path):
    with writer(tmp_path, 10_000) as process:
        while len(files_of(tmp_path)) < 5:
            assert process.poll() is None
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert assert_whole(tmp_path) >= 3
    remains = tmp_path / "encoder" / "00" / ".deadbeef.0.safetensors"
    remains.write_bytes(b"half")
    store_at(tmp_path)
    assert remains.exists()  # it may be another process's work
    os.utime(remains, (0, 0))
    store_at(tmp_path)
    assert not remains.exists()


@pytest.mark.parametrize("vanish", [lambda path: path.rename(path.with_name("00.safetensors")), Path.unlink])
@pytest.mark.parametrize("age", ["young", "old"])
def test_a_temporary_file_may_vanish_between_listing_and_sweeping(tmp_path, monkeypatch, vanish, age):
    """Its writer, a run beside this one, renames it when it is whole, or removes it where writing fails."""
    store_at(tmp_path).put(KEYS[0], torch.ones(2))
    temporary = tmp_path / "encoder" / KEYS[0][:2] / ".deadbeef.0.safetensors"
    temporary.write_bytes(b"half")
    if age == "old":
        os.utime(temporary, (0, 0))
    listing = Path.glob

    def list_and_vanish(folder: Path, pattern: str) -> Iterator[Path]:
        for path in list(listing(folder, pattern)):
            vanish(path)
            yield path

    monkeypatch.setattr(Path, "glob", list_and_vanish)
    store = store_at(tmp_path)
    assert not temporary.exists()
    assert torch.equal(store.get(KEYS[0]), torch.ones(2))


# --- whose features they are


def test_identity_tells_weights_architecture_and_preprocessing_apart():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    same = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    same.load_state_dict(encoder.state_dict())
    settings = {"size": 448, "mean": (0.5, 0.5, 0.5)}
    known = encoder_identity(encoder, settings)
    assert encoder_identity(same, dict(reversed(settings.items()))) == known
    assert encoder_identity(encoder, settings | {"size": 224}) != known
    assert encoder_identity(encoder.bfloat16(), settings) != known
    with torch.no_grad():
        same[1].bias[1] += 1e-6
    assert encoder_identity(same, settings) != known
    assert encoder_identity(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), settings) != known


def test_encoders_share_a_folder_without_mixing(tmp_path):
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    open_store(tmp_path, one, {}).put(KEYS[0], torch.ones(2))
    assert KEYS[0] not in open_store(tmp_path, other, {})
    assert KEYS[0] in open_store(tmp_path, one, {})
    assert isinstance(open_store(None, one, {}), MemoryStore)


def test_an_image_is_known_by_its_content_wherever_it_lies(tmp_path):
    first, second = image_files(tmp_path, 2)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    content = (tmp_path / "0.png").read_bytes()
    pixels = np.asarray(first.open_image())
    pictures = [tmp_path / "copy.png", str(tmp_path / "copy.png"), content, pixels, Image.fromarray(pixels)]
    images = SampleImages([first, second, *(Sample(image=image, description="a") for image in pictures)])
    keys = [images.key(number) for number in range(len(images))]
    assert len({keys[0], *keys[2:5]}) == 1  # the bytes of a file
    assert keys[5] == keys[6]  # pixels
    assert len(set(keys)) == 3


def test_a_changed_picture_is_computed_anew(tmp_path):
    samples, means = image_files(tmp_path, 2), Means()
    ImageFeatures(SampleImages(samples), means, store_at(tmp_path / "cache")).fill()
    random_image(20, 30, 99).save(tmp_path / "1.png")
    features = ImageFeatures(SampleImages(samples), means, store_at(tmp_path / "cache"))
    assert torch.equal(features[1], Means()([samples[1].open_image()])[0])
    assert means.encoded == 3


def test_the_least_recently_used_go_first_and_the_bound_holds():
    store: MemoryStore[np.ndarray] = MemoryStore(3000)
    for key in "abc":
        store.put(key, np.zeros(1000, np.uint8))
    assert store.get("a") is not None
    store.put("d", np.zeros(1000, np.uint8))
    assert [key in store for key in "abcd"] == [True, False, True, True]
    store.put("e", np.zeros(3001, np.uint8))
    assert "e" not in store
    assert store.nbytes == 3000


# --- what goes wrong


def test_a_folder_that_cannot_be_written_is_an_error_that_says_so(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FeatureCacheError, match=r"feature_cache: .*file.* cannot be written .*another folder"):
        store_at(tmp_path / "file")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = store_at(tmp_path)
    monkeypatch.setattr("training.data.feature_cache.save_file", full)
    with pytest.raises(FeatureCacheError, match=r"No space left on device.*free space there"):
        store.put(KEYS[0], torch.ones(2))
    assert not files_of(tmp_path)


def test_an_image_that_vanishes_is_an_error_in_the_words_of_the_sdk(tmp_path):
    samples = image_files(tmp_path, 2)
    (tmp_path / "1.png").unlink()
    features = ImageFeatures(SampleImages(samples), Means(), MemoryStore())
    assert features.of([0])[0].shape == (3,)
    with pytest.raises(InvalidImageError, match=re.escape("a:1: image") + ".*does not exist"):
        features.of([0, 1])
