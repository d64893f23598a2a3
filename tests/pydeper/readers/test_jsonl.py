import json
import math
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pydeper.errors import InvalidSampleError, PydeperError
from pydeper.readers import read_samples, write_samples
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation, Trajectory

BOX = (0.1, 0.2, 0.4, 0.6)
TRAJECTORY = Trajectory([Fixation(BOX, 0.3), Fixation((0, 0, 1, 1), 1)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 6), "red").save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


@pytest.fixture
def file(folder: Path) -> Callable[..., Path]:
    """Writes lines (text, bytes, or objects to be written as JSON) to a samples file."""

    def write(*lines: object, end: bytes = b"\n", start: bytes = b"") -> Path:
        encoded = [
            line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        ]
        path = folder / "ana.jsonl"
        path.write_bytes(start + b"".join(line + end for line in encoded))
        return path

    return write


def test_reading(file: Callable[..., Path], folder: Path) -> None:
    path = file(
        {"image": "photos/a.png", "description": "Zwei Hunde – 两只狗", "subject": "ana", "split": "train"},
        {"image": "photos/b.png", "trajectory": [{"box": BOX, "duration": 0.3}, {"box": [0, 0, 1, 1], "duration": 1}]},
        {"image": str(folder / "photos/a.png"), "description": "a dog", "trajectory": None, "subject": None},
    )
    first, second, third = samples = read_samples(path)
    assert first == Sample(folder / "photos/a.png", "Zwei Hunde – 两只狗", subject="ana", split="train")
    assert second == Sample(folder / "photos/b.png", trajectory=TRAJECTORY)
    assert third == Sample(folder / "photos/a.png", "a dog")
    assert [sample.source for sample in samples] == [f"{path}:{line}" for line in (1, 2, 3)]
    assert first.open_image().size == (8, 6)


def test_images_are_found_from_any_working_folder(
    file: Callable[..., Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file({"image": "photos/a.png", "description": "a dog"})
    monkeypatch.chdir(folder)
    (sample,) = read_samples("ana.jsonl")
    assert sample.source == "ana.jsonl:1"
    monkeypatch.chdir(folder.parent)
    assert sample.open_image().size == (8, 6)


def test_marks_blank_lines_and_line_ends(file: Callable[..., Path]) -> None:
    line = {"image": "photos/a.png", "description": "one\u2028line"}
    raw = json.dumps(line, ensure_ascii=False)
    path = file("", raw, "  \t", raw, "", start=b"\xef\xbb\xbf", end=b"\r\n")
    samples = read_samples(path)
    assert [sample.source for sample in samples] == [f"{path}:2", f"{path}:4"]
    assert samples[0].description == "one\u2028line"
    assert len(read_samples(file(raw, start=b"\xef\xbb\xbf", end=b""))) == 1


GOOD: dict[str, Any] = {"image": "photos/a.png", "description": "a dog"}
LOOK: dict[str, Any] = {"box": BOX, "duration": 0.3}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'image': 'a.png'}", r"not JSON \(.*each line must be one whole object: \{'image'"),
        ('{"image": "photos/a.png",', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"image": "photos/a.png", "description": "a", "id": ' + "9" * 5000 + "}", "not JSON"),
        (b'{"image": "caf\xe9.png"}', "byte 15 is not UTF-8; save the file as UTF-8"),
        ('{"image": "a.png"}'.encode("utf-16"), "byte 1 is not UTF-8"),
        ([GOOD], "must be an object.*not list"),
        ('"dog"', "not str 'dog'"),
        ("null", "not null"),
        ("17", "not int 17"),
        ('{"image": "photos/a.png", "description": "a", "description": "b"}', "'description' is given 2 times"),
        ('{"image": "photos/a.png", "trajectory": [{"box": [0,0,1,1], "duration": 1, "box": 2}]}', "'box' is given 2"),
        ({"description": "a dog"}, "image must be the path of an image file, not null"),
        ({**GOOD, "image": 3}, "image must be the path of an image file, not int 3"),
        ({**GOOD, "image": ""}, "image must be"),
        ({**GOOD, "image": "photos/c.png"}, r"image 'photos/c\.png' is not there \(as /.*photos/c\.png\)"),
        ({**GOOD, "image": "photos"}, "image 'photos' is not a file"),
        ({**GOOD, "image": "photos\\a.png"}, "with forward slashes"),
        ({**GOOD, "image": "x" * 5000}, "too long"),
        ({**GOOD, "image": "a\0b"}, "is not there"),
        ({**GOOD, "image": "https://example.org/a.png"}, "is an address; addresses are not fetched: download"),
        ({**GOOD, "image": "/nowhere/a.png"}, r"image '/nowhere/a\.png' is not there"),
        ({"image": "photos/a.png"}, "description and trajectory are both missing"),
        ({**GOOD, "description": " "}, "description is empty"),
        ({**GOOD, "description": ["a"]}, "description must be text, not list"),
        ('{"image": "photos/a.png", "description": NaN}', "description must be text, not float nan"),
        ('{"image": "photos/a.png", "description": "half \\ud83d"}', "surrogate"),
        ({**GOOD, "subject": 3}, "subject must be text, not int 3"),
        ({**GOOD, "split": False}, "split must be text, not bool False"),
        ({**GOOD, "trajectory": {}}, 'trajectory must be a list of {"box"'),
        ({**GOOD, "trajectory": []}, r"at least one fixation.*leave it out"),
        ({**GOOD, "trajectory": [LOOK, [0, 0, 1, 1]]}, r"trajectory\[1\]: must be .* not list"),
        ({**GOOD, "trajectory": [LOOK, {"box": BOX}]}, r"trajectory\[1\]: duration is missing"),
        ({**GOOD, "trajectory": [{"duration": 1}]}, r"trajectory\[0\]: box is missing"),
        ({**GOOD, "trajectory": [{**LOOK, "box": [0, 0, 9, 1]}]}, r"trajectory\[0\]: box .* leaves \[0, 1\]"),
        ({**GOOD, "trajectory": [{**LOOK, "duration": "1"}]}, r"trajectory\[0\]: duration must be a number, not str"),
        ({**GOOD, "trajectory": [{**LOOK, "duration": math.nan}]}, r"trajectory\[0\]: duration nan"),
        ({**GOOD, "trajectory": [{**LOOK, "duration": -math.inf}]}, r"trajectory\[0\]: duration -inf"),
        ('{"image": "photos/a.png", "trajectory": [{"box": [0,0,1,1], "duration": 1e999}]}', "duration inf"),
        ({"image": "photos/a.png", "discription": "x", "trajectory": [LOOK]}, "'discription': is 'description' meant"),
        ({"image": "photos/a.png", "Description": "x", "trajectory": [LOOK]}, "'Description': is 'description' meant"),
        ({**GOOD, "trajectory": [{"bbox": BOX, "duration": 1}]}, r"trajectory\[0\]: .*trajectory\.'bbox': is 'box'"),
    ],
)
def test_bad_lines_are_named(file: Callable[..., Path], line: object, message: str) -> None:
    path = file(GOOD, "", line, GOOD)
    with pytest.raises(InvalidSampleError, match=message) as caught:
        read_samples(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert len(str(caught.value)) < 500 or "x" * 100 in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"\n \n")
    cases: list[tuple[str | Path, str]] = [
        (tmp_path / "none.jsonl", r"none\.jsonl: cannot be read.*No such file.*name a JSON Lines file"),
        (tmp_path, r"cannot be read.*directory"),
        (empty, r"empty\.jsonl: holds zero samples"),
        ("a\0b", "cannot be read"),
    ]
    for path, message in cases:
        with pytest.raises(InvalidSampleError, match=message):
            read_samples(path)


def test_unknown_fields_are_reported_once(file: Callable[..., Path]) -> None:
    path = file({**GOOD, "id": 1}, {**GOOD, "id": math.nan, "note": "x"}, {**GOOD, "trajectory": [{**LOOK, "eye": 0}]})
    with pytest.warns(UserWarning, match=r"not read: id \(2\), note \(1\), trajectory\.eye \(1\)") as caught:
        samples = read_samples(path)
    assert len(samples) == 3
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=r"images \(1\)"):
        read_samples(file({**GOOD, "images": 3}))  # not misspelt: "image" is there


def test_milliseconds_are_refused_unless_they_are_meant(file: Callable[..., Path]) -> None:
    path = file({**GOOD, "trajectory": [{**LOOK, "duration": 250}, {**LOOK, "duration": 410}]})
    with pytest.raises(InvalidSampleError, match=r"ana\.jsonl:1: trajectory: .* looks like milliseconds"):
        read_samples(path)
    (sample,) = read_samples(path, check_durations=False)
    assert [fixation.duration for fixation in sample.trajectory or ()] == [250, 410]


@pytest.mark.parametrize(("on_disk", "in_file"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_letters_may_be_composed_or_not(on_disk: Any, in_file: Any, file: Callable[..., Path], folder: Path) -> None:
    name = "größe/café.png"
    image = folder / unicodedata.normalize(on_disk, name)
    image.parent.mkdir()
    Image.new("RGB", (8, 6)).save(image)
    (sample,) = read_samples(file({**GOOD, "image": unicodedata.normalize(in_file, name)}))
    assert sample.image == image


def test_a_data_uri_does_not_fill_the_message(file: Callable[..., Path]) -> None:
    for image in ("data:image/png;base64," + "iVBORw0KGgo" * 50_000, "iVBORw0KGgo" * 50_000):
        with pytest.raises(InvalidSampleError, match=r"ana\.jsonl:1: image .*characters") as caught:
            read_samples(file({**GOOD, "image": image}))
        assert len(str(caught.value)) < 400


# Writing


@st.composite
def trajectories(draw: st.DrawFn) -> Trajectory:
    side = st.floats(0, 1)
    interval = st.tuples(side, side).map(sorted).filter(lambda pair: pair[0] < pair[1])
    duration = st.floats(0, 3600, exclude_min=True)
    looks = draw(st.lists(st.tuples(interval, interval, duration), min_size=1, max_size=3))
    return Trajectory(
        [Fixation((x1, y1, x2, y2), seconds) for (x1, x2), (y1, y2), seconds in looks], check_durations=False
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)


@given(st.lists(st.tuples(texts, trajectories(), st.none() | texts, st.integers(0, 2)), min_size=1, max_size=3))
@settings(max_examples=50)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, Trajectory, str | None, int]]
) -> None:
    root = tmp_path_factory.getbasetemp().resolve()
    image = root / "photo – 1.png"
    if not image.exists():
        Image.new("RGB", (2, 2)).save(image)
    samples = [
        Sample(image, None if lacks == 1 else text, None if lacks == 2 else trajectory, subject, subject, source="x")
        for text, trajectory, subject, lacks in drawn
    ]
    path = root / "sub" / "samples.jsonl"
    path.parent.mkdir(exist_ok=True)
    write_samples(path, samples)
    assert read_samples(path, check_durations=False) == samples
    assert json.loads(path.read_bytes().split(b"\n")[0])["image"] == "../photo – 1.png"


def test_written_paths_hold_when_the_folder_moves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    write_samples("ana.jsonl", [Sample("photos/a.png", "a dog"), Sample(Path("photos/../photos/b.png"), "a cat")])
    moved = folder.rename(folder.with_name(f"{folder.name} moved"))
    assert [sample.image for sample in read_samples(moved / "ana.jsonl")] == [
        moved / "photos/a.png",
        moved / "photos/b.png",
    ]


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_links(folder: Path) -> None:
    (folder / "photos/link.png").symlink_to("a.png")
    (folder / "far" / "away").mkdir(parents=True)
    (folder / "near").symlink_to(folder / "far" / "away")
    path = folder / "near" / "ana.jsonl"
    write_samples(path, [Sample(folder / "photos/link.png", "a dog")])
    (sample,) = read_samples(path)
    assert sample.image == folder.resolve() / "photos/link.png"
    assert read_samples(folder / "far/away/ana.jsonl") == [sample]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "ana.jsonl"
    write_samples(path, [Sample(folder / "photos/a.png", "old")])
    before = path.read_bytes(), sorted(folder.iterdir())

    def full_disk(self: Path, _target: Path) -> None:
        assert self.parent == folder
        assert self.exists()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(InvalidSampleError, match="No space left"):
        write_samples(path, [Sample(folder / "photos/a.png", "new")])
    assert (path.read_bytes(), sorted(folder.iterdir())) == before


def test_what_cannot_be_written(folder: Path) -> None:
    path = folder / "ana.jsonl"
    good = Sample(folder / "photos/a.png", "a dog")
    in_memory = Sample(np.zeros((2, 2, 3), np.uint8), "a dog")
    odd_name = Sample(os.fsdecode(b"caf\xe9.png"), "a dog")
    for target, samples, message in [
        (path, [], "zero samples to write"),
        (path, [good, "dog"], r"samples\[1\] must be a Sample, not str"),
        (path, [good, in_memory], r"samples\[1\]: the image is in memory \(ndarray\); save it"),
        (path, [odd_name], r"samples\[0\]: the image path .* is not Unicode"),
        (folder / "none" / "ana.jsonl", [good], "cannot be written.*folder that exists"),
        (folder / "photos", [good], "cannot be written"),
    ]:
        with pytest.raises(InvalidSampleError, match=message):
            write_samples(target, samples)  # type: ignore[arg-type]
    assert sorted(entry.name for entry in folder.iterdir()) == ["photos"]


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_any_bytes_give_samples_or_our_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    with pytest.raises(PydeperError, match=r"any\.jsonl:"):
        read_samples(path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["box", "duration"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["image", "description", "subject", "trajectory", "split"]), json_values))
@settings(max_examples=100)
def test_any_object_gives_samples_or_our_error(tmp_path_factory: pytest.TempPathFactory, record: Any) -> None:
    root = tmp_path_factory.getbasetemp()
    Image.new("RGB", (2, 2)).save(root / "x.png")
    path = root / "any.jsonl"
    path.write_text(json.dumps(record | {"image": "x.png"}))
    try:
        (sample,) = read_samples(path)
    except InvalidSampleError as error:
        message = str(error)
    else:
        message = f"{sample.source}: "
    assert message.startswith(f"{path}:1: ")
