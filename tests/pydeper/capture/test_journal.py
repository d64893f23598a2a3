"""Nothing that was acknowledged is lost: torn lines, kills, full disks, sessions that go on or are refused."""

import errno
import os
import signal
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import pydeper
from pydeper import InvalidArgumentError, InvalidSampleError, PydeperError
from pydeper.capture.journal import Journal
from pydeper.capture.pictures import find_pictures
from pydeper.readers import read_recordings
from pydeper.readers.journal_lines import SkipLine
from tests.support.capture.command import agree, client, command, make_pictures, recording, serving, started


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_pictures(tmp_path / "pictures")
    return tmp_path


def record(home: Path, *indices: int) -> bytes:
    """Records pictures in a session of its own; returns the journal."""
    with serving(started(home / "pictures", home / "ana.jsonl")) as address, client(address) as page:
        agree(page)
        for i in indices:
            assert page.put(f"/api/pictures/{i}", json=recording(f"a{i}")).status_code == 200
    return (home / "ana.recordings.jsonl").read_bytes()


def descriptions(home: Path) -> int:
    session = started(home / "pictures", home / "ana.jsonl")
    session.close()
    return len(session.samples)


def test_a_journal_that_is_torn_anywhere_keeps_every_whole_line(home: Path) -> None:
    whole = record(home, 0, 1)
    journal = home / "ana.recordings.jsonl"
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in (last + 1, last + 200, len(whole) - 2):
        journal.write_bytes(whole[:end])
        assert len(list(read_recordings(journal))) == 1
        assert descriptions(home) == 1
        assert journal.read_bytes() == whole[:last]
        assert len(pydeper.read_samples(home / "ana.jsonl")) == 1
    journal.write_bytes(whole[:-1])  # only its line feed is missing, as editors leave it
    assert descriptions(home) == 2
    assert journal.read_bytes() == whole


def test_a_session_that_was_killed_in_its_first_line_begins_anew(home: Path) -> None:
    whole = record(home)
    (home / "ana.recordings.jsonl").write_bytes(whole[:20])
    assert descriptions(home) == 0


@given(st.binary(max_size=60), st.integers(0, 3))
def test_a_damaged_journal_is_read_or_refused_with_its_line(tmp_path_factory, junk: bytes, line: int) -> None:
    home = tmp_path_factory.mktemp("home")
    journal = home / "x.recordings.jsonl"
    lines = [b'{"kind": "skip", "picture": "0.png"}'] * 3
    lines.insert(line, junk)
    journal.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(PydeperError, match=r"x\.recordings\.jsonl"):
        Journal(journal)
    with pytest.raises(InvalidSampleError, match=r"x\.recordings\.jsonl"):
        read_recordings(journal)


def test_a_full_disk_leaves_the_journal_as_it_was(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = record(home, 0)
    journal = Journal(home / "ana.recordings.jsonl")
    write = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 10:
            return write(file, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(PydeperError, match="no space left"):
            journal.append(SkipLine(picture="0.png"))
        assert journal.path.read_bytes() == before
    journal.append(SkipLine(picture="0.png"))
    journal.close()
    assert journal.path.read_bytes().startswith(before)


def test_the_command_says_that_the_disk_is_full_and_goes_on(home: Path) -> None:
    journal = home / "ana.recordings.jsonl"
    with command(home / "pictures", "-o", home / "ana.jsonl", limit=8000) as (_, address), client(address) as page:
        agree(page)
        assert page.put("/api/pictures/0", json=recording("a")).status_code == 200
        before = journal.read_bytes()
        long = recording("b", description="long " * 1000)
        for _ in range(2):
            answer = page.put("/api/pictures/1", json=long)
            assert (answer.status_code, answer.json()["code"]) == (507, "no-space")
        assert journal.read_bytes() == before
        assert page.post("/api/pictures/1/skip").status_code == 204


def test_a_killed_command_goes_on_where_it_was(home: Path) -> None:
    arguments = (home / "pictures", "-o", home / "ana.jsonl")
    with command(*arguments) as (process, address), client(address) as page:
        agree(page, publish=True)
        page.put("/api/pictures/0", json=recording("a"))
        # Killed within a request: half of the body has been sent.
        with pytest.raises(httpx.HTTPError):
            page.put("/api/pictures/1", content=_half_a_body(process))
    with command(*arguments) as (process, address), client(address, "after") as page:
        session = page.get("/api/session").json()
        assert [picture["status"] for picture in session["pictures"]] == ["recorded", "open", "open", "kept back"]
        assert session["consent"]["publish"] is True
        for _ in range(2):  # what was not acknowledged is sent again
            assert page.put("/api/pictures/0", json=recording("a")).status_code == 200
        page.put("/api/pictures/1", json=recording("b"))
        with pytest.raises(InvalidArgumentError, match="another `pydeper capture`"):
            started(home / "pictures", home / "ana.jsonl")
        page.close()
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0, printed
        assert f"{home / 'ana.jsonl'}: 2 samples" in printed
    assert (home / "ana.recordings.jsonl").read_text().count('"kind": "recording"') == 2


def _half_a_body(process):
    yield b'{"description": "A'
    process.kill()
    process.wait()
    for _ in range(100):
        yield b" " * 2**16


def test_what_is_not_of_the_session_is_refused_and_left_alone(home: Path) -> None:
    before = record(home, 0)
    pictures, out = home / "pictures", home / "ana.jsonl"
    make_pictures(home / "others")
    for message, folder, options in (
        ("not of 'ben'", pictures, {"subject": "ben"}),
        ("with the pictures of", home / "others", {}),
        ("leave out --order", pictures, {"settings": {"order": "random"}}),
        ("blur must be", pictures, {"settings": {"blur": -1}}),
    ):
        with pytest.raises(InvalidArgumentError, match=message):
            started(folder, out, **options)
    (pictures / "0.png").rename(pictures / "new.png")
    with pytest.raises(InvalidArgumentError, match=r"0\.png is gone or damaged"):
        started(pictures, out)
    assert (home / "ana.recordings.jsonl").read_bytes() == before
    (home / "ana.recordings.jsonl").unlink()
    samples = out.read_bytes()
    with pytest.raises(InvalidArgumentError, match="is not overwritten"):
        started(pictures, out)
    assert out.read_bytes() == samples
    assert not (home / "ana.recordings.jsonl").exists()


def test_settings_may_change_and_the_order_stays(home: Path) -> None:
    first = started(home / "pictures", home / "a.jsonl", settings={"order": "random", "seed": 3, "mode": "trace"})
    first.close()
    again = started(home / "pictures", home / "a.jsonl", settings={"blur": 8})
    again.close()
    assert (again.settings.mode, again.settings.blur) == ("trace", 8)
    assert again.about.pictures == first.about.pictures
    assert sorted(again.about.pictures) == ["0.png", "1.png", "2.png", "3.png"]


def test_damaged_images_are_named_and_a_folder_without_one_is_refused(home: Path) -> None:
    (home / "pictures" / "cut.png").write_bytes((home / "pictures" / "0.png").read_bytes()[:80])
    (home / "pictures" / "notes.txt").write_text("no image")
    sound, damaged = find_pictures(home / "pictures")
    assert len(sound) == 4
    assert [(picture.name, "damaged" in picture.reason) for picture in damaged] == [("cut.png", True)]
    (home / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        with pytest.raises(InvalidArgumentError, match=folder):
            find_pictures(home / folder)


def test_the_last_of_three_pictures_is_kept_back_and_none_of_two(tmp_path: Path) -> None:
    for count, last in ((2, "open"), (3, "kept back")):
        folder = make_pictures(tmp_path / f"{count}", count)
        session = started(folder, tmp_path / f"{count}.jsonl")
        session.close()
        assert session.status(count - 1) == last
    with pytest.raises(InvalidArgumentError, match="keep_back"):
        started(folder, tmp_path / "new.jsonl", settings={"keep_back": 3})
    assert not (tmp_path / "new.recordings.jsonl").exists()


def test_the_reader_takes_a_moved_picture_folder(home: Path) -> None:
    record(home, 0, 1)
    (home / "pictures").rename(home / "moved")
    with pytest.raises(InvalidSampleError, match="is no folder"):
        read_recordings(home / "ana.recordings.jsonl")
    samples = list(read_recordings(home / "ana.recordings.jsonl", images=home / "moved"))
    with Image.open(samples[1].image) as image:
        assert image.size == (41, 30)
