import json
import os
import sys
import time
from pathlib import Path

import pytest

from pydeper.bundle import checksums as verified
from pydeper.bundle.checksums import cache_folder, mismatched, sha256

LARGE = verified.LARGE


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and files that count as settled as soon as the clock has moved on."""
    monkeypatch.setenv("PYDEPER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verified, "SETTLED_AFTER", 0)
    return tmp_path / "cache" / "verified.json"


@pytest.fixture
def reads(monkeypatch):
    """The names of the files that are read, in the order of their reading."""
    names = []

    def counted(path):
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(verified, "sha256", counted)
    return names


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"\0" * LARGE)
    time.sleep(0.02)
    return path


def check(*paths, expected=None):
    return mismatched({path: expected or sha256(path) for path in paths}, trust_unchanged=True)


def test_a_large_file_is_read_once_and_a_small_one_always(weights, tmp_path, reads):
    small = tmp_path / "config.json"
    small.write_bytes(b"{}")
    for _ in range(3):
        assert check(weights, small) == []
    assert sorted(reads) == ["config.json"] * 3 + ["weights.onnx"]
    assert mismatched({weights: sha256(weights)}, trust_unchanged=False) == []
    assert reads.count("weights.onnx") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no time of change of status")
@pytest.mark.parametrize("way", ["in place", "replaced"])
def test_a_changed_byte_is_found_although_size_and_time_are_put_back(weights, way):
    expected = sha256(weights)
    before = weights.stat()
    assert check(weights, expected=expected) == []
    if way == "in place":
        with weights.open("r+b") as file:
            file.seek(LARGE // 2)
            file.write(b"\1")
    else:
        other = weights.with_name("other")
        other.write_bytes(b"\0" * (LARGE - 1) + b"\1")
        other.replace(weights)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert check(weights, expected=expected) == [weights]
    assert check(weights, expected=expected) == [weights]


def test_another_manifest_is_not_answered_from_the_cache(weights):
    assert check(weights) == []
    assert check(weights, expected="0" * 64) == [weights]


def test_wrong_files_come_in_order_and_are_not_remembered(tmp_path, reads):
    paths = [tmp_path / f"{i}.bin" for i in range(6)]
    for path in paths:
        path.write_bytes(bytes(LARGE))
    right = sha256(paths[0])
    digests = {path: right if i % 2 else "0" * 64 for i, path in enumerate(paths)}
    time.sleep(0.02)
    for _ in range(2):
        assert mismatched(digests, trust_unchanged=True) == paths[::2]
    assert sorted(reads) == sorted([p.name for p in paths] + [p.name for p in paths[::2]])


def test_a_file_that_is_still_new_is_not_remembered(weights, cache, monkeypatch):
    monkeypatch.setattr(verified, "SETTLED_AFTER", 3_600_000_000_000)
    assert check(weights) == []
    assert not cache.exists()


def test_a_link_is_known_by_the_file_it_leads_to(weights, reads):
    link = weights.with_name("link.onnx")
    link.symlink_to(weights)
    assert check(weights) == check(link) == []
    assert reads == ["weights.onnx"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"format_version": 1}',
        b'{"format_version": 1, "files": []}',
        b'{"format_version": 2, "files": {}}',
        b'{"format_version": 1, "files": {"\\u0000": 3, "relative": null, "\\ud800": []}}',
    ],
)
def test_a_damaged_cache_is_ignored_and_replaced(weights, cache, reads, content):
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert check(weights) == check(weights) == []
    assert reads == ["weights.onnx"]
    assert list(json.loads(cache.read_bytes())["files"]) == [str(weights)]


@pytest.mark.parametrize("stamp", [None, [], "x", {"size": 1}, [0, 0, 0, 0, 0, ""]])
def test_a_damaged_entry_is_no_answer(weights, cache, stamp):
    cache.parent.mkdir()
    cache.write_text(json.dumps({"format_version": 1, "files": {str(weights): stamp}}))
    assert check(weights, expected="0" * 64) == [weights]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_cache_that_others_may_write_is_no_answer(weights, cache, mode):
    assert check(weights) == []
    assert cache.stat().st_mode & 0o777 == 0o600
    assert json.loads(cache.read_bytes())["files"] != {}
    forged = cache.read_text().replace(sha256(weights), "0" * 64)
    cache.write_text(forged)
    assert check(weights, expected="0" * 64) == []  # who can write the cache can make any file pass
    cache.chmod(mode)
    assert check(weights, expected="0" * 64) == [weights]


def test_a_link_that_moves_while_files_are_read_is_not_remembered_for_the_other_file(weights, cache, monkeypatch):
    other = weights.with_name("other.onnx")
    other.write_bytes(b"\1" * LARGE)
    link = weights.with_name("link.onnx")
    link.symlink_to(weights)
    right = sha256(weights)
    time.sleep(0.02)

    def moving(path):
        link.unlink()
        link.symlink_to(other)
        return sha256(path)

    monkeypatch.setattr(verified, "sha256", moving)
    assert check(link, expected=right) == []
    monkeypatch.setattr(verified, "sha256", sha256)
    assert list(json.loads(cache.read_bytes())["files"]) == [str(weights)]
    assert check(link, expected=right) == [link]


def test_files_that_are_gone_are_forgotten(weights, cache):
    other = weights.with_name("other.onnx")
    other.write_bytes(bytes(LARGE))
    time.sleep(0.02)
    assert check(weights) == []
    weights.unlink()
    assert check(other) == []
    assert list(json.loads(cache.read_bytes())["files"]) == [str(other)]


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(weights, cache, reads, monkeypatch):
    cache.parent.touch()  # a file stands where the folder should be
    assert check(weights) == check(weights) == []
    assert reads == ["weights.onnx"] * 2

    def nowhere():
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("PYDEPER_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    assert check(weights) == []


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PYDEPER_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, folder in (("linux", "xdg"), ("win32", "local"), ("darwin", "Library/Caches")):
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == tmp_path / folder / "pydeper"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "pydeper"
