import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers import Tolerance, deper_json, read_deper_json


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "name": "photos/17.jpg",
        "caption": "A dog on a beach.",
        "subject": 3,
        "subject_name": "ana",
        "X": [0.5, 0.25],
        "Y": [0.5, 0.25],
        "T": [0.31, 0.2],
        "bboxes": [[0.4, 0.4, 0.6, 0.6], [0.2, 0.2, 0.3, 0.3]],
        "split": "train",
    } | changes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "photos").mkdir(parents=True)
    photo = Image.new("RGB", (80, 60))
    photo.save(folder / "photos" / "17.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: upright, it is 60 wide and 80 high
    photo.save(folder / "photos" / "turned.jpg", exif=exif)
    return folder


def write(folder: Path, content: object) -> Path:
    path = folder / "data.json"
    text = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
    path.write_bytes(text)
    return path


def test_an_entry_becomes_a_sample(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path, [entry(), entry(subject_name=None, split=None)])
    stream = read_deper_json(path, images)
    first, second = stream
    assert first.image == images.resolve() / "photos" / "17.jpg"
    assert (first.description, first.subject, first.split) == ("A dog on a beach.", "ana", "train")
    assert (second.subject, second.split) == ("3", None)
    assert [sample.subject for sample in read_deper_json(path, images, subjects="number")] == ["3", "3"]
    assert [(fixation.box, fixation.duration) for fixation in first.trajectory or ()] == [
        ((0.4, 0.4, 0.6, 0.6), 0.31),
        ((0.2, 0.2, 0.3, 0.3), 0.2),
    ]
    assert (first.source, stream.report.samples, stream.report.changed) == (f"{path}[0]", 2, {})


def test_milliseconds_are_refused_unless_they_are_meant(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path, [entry(T=[300, 250])])
    with pytest.raises(InvalidSampleError, match=r"data.json\[0\]: .*lasts 275 s.* milliseconds"):
        list(read_deper_json(path, images))
    (sample,) = read_deper_json(path, images, check_durations=False)
    assert [fixation.duration for fixation in sample.trajectory or ()] == [300, 250]


def test_entries_without_lists_are_kept_as_text(tmp_path: Path, images: Path) -> None:
    bare = {name: value for name, value in entry().items() if name not in ("X", "Y", "T", "bboxes")}
    path = write(tmp_path, [entry(), bare, entry(X=None, Y=None, T=None, bboxes=None)])
    stream = read_deper_json(path, images, without_trajectory="keep")
    assert [sample.trajectory is None for sample in stream] == [False, True, True]
    with pytest.raises(InvalidSampleError, match=r"data.json\[0\]: bboxes is missing"):
        list(read_deper_json(write(tmp_path, [bare | {"X": [0.5], "Y": [0.5], "T": [0.3]}]), images))


@pytest.mark.parametrize(("name", "size"), [("17", (80, 60)), ("turned", (60, 80))])
def test_pixels_are_of_the_upright_image(name: str, size: tuple[int, int], tmp_path: Path, images: Path) -> None:
    pixels = [0.5 * size[0], 0.25 * size[1], size[0], 0.75 * size[1]]
    path = write(tmp_path, [entry(name=f"photos/{name}.jpg", X=[1], Y=[1], T=[1], bboxes=[pixels])])
    (sample,) = read_deper_json(path, images, boxes="pixels")
    assert [fixation.box for fixation in sample.trajectory or ()] == [pytest.approx((0.5, 0.25, 1.0, 0.75))]
    with pytest.raises(InvalidSampleError, match=r"fixation 0: box .* far outside the image, read as fractions"):
        list(read_deper_json(path, images))
    with pytest.raises(InvalidSampleError, match=r"fixation 0: box .* within one pixel; it must be of fractions"):
        list(read_deper_json(write(tmp_path, [entry()]), images, boxes="pixels"))


def test_boxes_a_little_over_the_edge_are_clipped(tmp_path: Path, images: Path) -> None:
    stream = read_deper_json(write(tmp_path, [entry(X=[1], Y=[1], T=[1], bboxes=[[-0.05, 0.5, 0.2, 1.01]])]), images)
    (sample,) = stream
    assert [fixation.box for fixation in sample.trajectory or ()] == [(0, 0.5, 0.2, 1)]
    assert stream.report.changed["boxes clipped to the image"].count == 1


def test_entries_without_boxes_are_passed_over_or_kept(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path, [entry(), entry(X=[], Y=[], T=[], bboxes=[])])
    stream = read_deper_json(path, images)
    assert len(list(stream)) == 1
    assert stream.report.passed_over["no fixation"].count == 1
    assert [sample.trajectory is None for sample in read_deper_json(path, images, without_trajectory="keep")] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (5, "must be an object"),
        ({"name": "photos/17.jpg"}, "caption is missing"),
        (entry(name=17), "name must be the name of an image"),
        (entry(name="/etc/passwd"), "does not name a file inside"),
        (entry(subject_name=5), "subject_name must be text"),
        (entry(subject_name=None, subject="ana"), "subject must be a whole number"),
        (entry(caption=""), "description is empty"),
        (entry(split=1), "split must be text"),
        (entry(T=[0.3]), "2 X, 2 Y, 1 T, 2 bboxes: there must be as many"),
        (entry(T=[0.3, -1]), "fixation 1: duration -1"),
        (entry(T=[0.3, 5000]), "fixation 1: duration 5000"),
        (entry(T=[0.3, float("nan")]), "fixation 1: duration nan"),
        (entry(bboxes=[[0.4, 0.4, 0.6, 0.6], [0.3, 0.2, 0.2, 0.3]]), "fixation 1: box .* has no area"),
        (entry(bboxes=[[0.4, 0.4, 0.6, 0.6], [0.3, 0.2]]), "fixation 1: box must be 4 numbers"),
        (entry(bboxes=[[0.4, 0.4, 0.6, 0.6], None]), "fixation 1: box must be 4 numbers"),
        (entry(bboxes=[[0.4, 0.4, 0.6, "0.6"], [0.2, 0.2, 0.3, 0.3]]), "fixation 0: box.3. must be a number"),
    ],
)
def test_a_damaged_entry_is_named_or_tolerated(bad: Any, message: str, tmp_path: Path, images: Path) -> None:
    path = write(tmp_path, [entry(), bad, entry()])
    with pytest.raises(InvalidSampleError, match=rf"data.json\[1\]: .*{message}"):
        list(read_deper_json(path, images))
    assert len(list(read_deper_json(path, images, tolerance=Tolerance(damaged=1)))) == 2


def test_missing_images_and_damaged_ones(tmp_path: Path, images: Path) -> None:
    path = write(tmp_path, [entry(name="photos/18.jpg"), entry()])
    with pytest.raises(InvalidSampleError, match=r"data.json\[0\]: image 'photos/18.jpg' is not in"):
        list(read_deper_json(path, images))
    assert len(list(read_deper_json(path, images, tolerance=Tolerance(missing_images=1)))) == 1
    (images / "photos" / "18.jpg").write_bytes(b"no image")
    with pytest.raises(InvalidSampleError, match=r"data.json\[0\]: image .* is not an image file that can be read"):
        list(read_deper_json(path, images, boxes="pixels"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a list"),
        (b'{"name": 1}', "must be a list"),
        (b"[", r"\[0\]: not JSON"),
        (b'[{"name": "photos', r"\[0\]: not JSON"),
        (b"[5 6]", r"data.json\[0\]: must be an object .* not int 5"),
        (b"[] x", "goes on behind its list, with 'x'"),
        (b"[]", "not one sample"),
        (b"[{}, ]", r"data.json\[0\]: name is missing"),
        (b'[{"a": 1, "a": 2}]', r"\[0\]: the field 'a' is given 2 times"),
        (b'["\xff"]', "is not UTF-8"),
        (b"[" * 100_000, r"\[0\]: not JSON"),
    ],
)
def test_a_file_that_is_no_list_is_refused(content: bytes, message: str, tmp_path: Path, images: Path) -> None:
    with pytest.raises(InvalidSampleError, match=message):
        list(read_deper_json(write(tmp_path, content), images))


json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=8) | st.integers(-9, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=3), max_size=6), st.integers(1, 30), st.data()
)
def test_a_list_is_read_as_json_reads_it_however_it_is_cut(items: list[Any], chunk: int, data: st.DataObject) -> None:
    text = json.dumps(items, indent=data.draw(st.sampled_from([None, 2])), ensure_ascii=data.draw(st.booleans()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deper_json, "CHUNK", chunk)
        assert list(deper_json._items(io.StringIO(text + "\n"), Path("x"))) == items
        cut = text[: data.draw(st.integers(1, len(text) - 1))]
        with pytest.raises(InvalidSampleError, match="not JSON"):
            list(deper_json._items(io.StringIO(cut), Path("x")))


def test_choices_are_checked(tmp_path: Path, images: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="boxes must be one of 'normalised', 'pixels'"):
        read_deper_json(write(tmp_path, []), images, boxes="guess")  # type: ignore[arg-type]
    with pytest.raises(InvalidSampleError, match="absent: cannot be read"):
        list(read_deper_json(tmp_path / "absent", images))
