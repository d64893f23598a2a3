import collections
import contextlib
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers import Tolerance, read_capgaze
from pydeper.readers.restricted_pickle import load_object

RATE = 49
HERE = [(0.3, 0.4)] * 20


def recording(**changes: Any) -> dict[str, Any]:
    return {
        "time_stamp": [5.0 + i / RATE for i in range(len(HERE))],
        "left_eye": HERE,
        "right_eye": [(0.7, 0.6)] * len(HERE),
        "dominant_eye": 0,
        "duration": 1.0,
    } | changes


def add(folder: Path, person: str, image: str, gaze: Any = None, text: str | None = "a dog") -> Path:
    path = folder / "gaze_converted_2" / person / "gaze" / f"{image}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(recording() if gaze is None else gaze, dtype=object), allow_pickle=True)
    if text is not None:
        words = folder / "transcribed_text" / person / f"{image}.json"
        words.parent.mkdir(parents=True, exist_ok=True)
        words.write_text(json.dumps({"text": text}))
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (8, 6)).save(folder / "images" / f"{image}.jpg")
    return path


def boxes(stream: Any) -> list[Any]:
    return [fixation.box for sample in stream for fixation in sample.trajectory]


def test_recordings_become_samples_in_the_order_of_people_and_images(tmp_path: Path) -> None:
    for person, image in (("10", "2008_2"), ("2", "2008_10"), ("2", "2008_9")):
        add(tmp_path, person, image, text=f"{person} saw {image}")
    stream = read_capgaze(tmp_path, min_box=0.1)
    samples = list(stream)
    assert [sample.description for sample in samples] == ["2 saw 2008_9", "2 saw 2008_10", "10 saw 2008_2"]
    assert [sample.subject for sample in samples] == ["2", "2", "10"]
    assert samples[0].image == tmp_path.resolve() / "images" / "2008_9.jpg"
    (fixation,) = samples[0].trajectory or ()
    assert fixation.box == pytest.approx((0.25, 0.35, 0.35, 0.45))
    assert fixation.duration == pytest.approx(19 / RATE)
    assert stream.report.changed["recordings whose time_stamp was read as seconds"].count == 3


@pytest.mark.parametrize(("scale", "unit"), [(1, "seconds"), (1e3, "milliseconds"), (1e6, "microseconds")])
def test_the_unit_of_time_follows_from_the_interval(scale: float, unit: str, tmp_path: Path) -> None:
    add(tmp_path, "1", "a", recording(time_stamp=[scale * (7.0 + i / RATE) for i in range(20)]))
    stream = read_capgaze(tmp_path)
    (sample,) = stream
    assert [fixation.duration for fixation in sample.trajectory or ()] == pytest.approx([19 / RATE])
    assert list(stream.report.changed) == [f"recordings whose time_stamp was read as {unit}"]


def test_the_dominant_eye_is_taken_and_the_other_where_it_was_lost(tmp_path: Path) -> None:
    add(tmp_path, "1", "a", recording(dominant_eye=1))
    assert boxes(read_capgaze(tmp_path, min_box=0.1)) == [pytest.approx((0.65, 0.55, 0.75, 0.65))]
    assert boxes(read_capgaze(tmp_path, min_box=0.1, eye="mean")) == [pytest.approx((0.45, 0.45, 0.55, 0.55))]

    left: list[Any] = [*HERE[:8], None, (np.nan, 0.1), None, *HERE[11:]]
    right: list[Any] = [None] * 9 + [(0.31, 0.41)] + [None] * 10
    add(tmp_path, "1", "a", recording(left_eye=left, right_eye=right, dominant_eye=np.int64(0)))
    stream = read_capgaze(tmp_path, min_box=0.01)
    (sample,) = stream
    assert [fixation.duration for fixation in sample.trajectory or ()] == pytest.approx([7 / RATE, 8 / RATE])
    assert stream.report.changed["points taken from the eye that was not lost"].count == 1
    assert stream.report.changed["points at which both eyes were lost"].count == 2
    mean = read_capgaze(tmp_path, eye="mean")
    assert len(boxes(mean)) == 2


def test_gaze_off_the_image_is_a_gap(tmp_path: Path) -> None:
    add(tmp_path, "1", "a", recording(left_eye=[*HERE[:10], (1.2, 0.5), *HERE[11:]]))
    stream = read_capgaze(tmp_path)
    assert len(boxes(stream)) == 2
    assert stream.report.changed["points outside the image left out"].count == 1


def test_what_is_missing_is_passed_over_or_kept(tmp_path: Path) -> None:
    add(tmp_path, "1", "a")
    add(tmp_path, "1", "b", text=None)
    add(tmp_path, "1", "c", recording(left_eye=[None] * 20, right_eye=[None] * 20))
    add(tmp_path, "1", "d", recording(left_eye=[], right_eye=[], time_stamp=[]))
    add(tmp_path, "1", "e", text="  ")
    stream = read_capgaze(tmp_path)
    assert len(list(stream)) == 1
    assert {reason: tally.count for reason, tally in stream.report.passed_over.items()} == {
        "no transcription": 2,
        "no fixation": 1,
        "no gaze points": 1,
    }
    kept = list(read_capgaze(tmp_path, without_description="keep", without_trajectory="keep"))
    assert [(sample.description is None, sample.trajectory is None) for sample in kept] == [
        (False, False),
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(
    ("gaze", "message"),
    [
        ([1, 2], "holds list"),
        ({"left_eye": []}, "time_stamp is missing"),
        (recording(left_eye=5), "left_eye must be a list, not int 5"),
        (recording(left_eye=HERE[1:]), "20 time_stamp, 19 left_eye and 20 right_eye differ"),
        (recording(left_eye=[(0.1,)] * 20), r"left_eye\[0\] must be \(x, y\) or None"),
        (recording(right_eye=["no"] * 20), r"right_eye\[0\] must be \(x, y\) or None"),
        (recording(dominant_eye=2), "dominant_eye must be 0"),
        (recording(dominant_eye="left"), "dominant_eye must be 0"),
        (recording(time_stamp=["soon"] * 20), "time_stamp must be numbers"),
        (recording(time_stamp=[1.0] * 20), "time_stamp advances by 0 at a time"),
        (recording(time_stamp=[1000.0 * i for i in range(20)]), "time_stamp advances by 1000 at a time"),
        (recording(time_stamp=[1.0 * i for i in range(20)]), "time_stamp advances by 1 at a time"),
        (recording(time_stamp=[*(i / RATE for i in range(19)), 0.1]), r"times\[19\] goes backwards"),
        (recording(time_stamp=[*(i / RATE for i in range(19)), np.nan]), "is not a finite number|advances by nan"),
    ],
)
def test_a_damaged_recording_is_named_or_tolerated(gaze: Any, message: str, tmp_path: Path) -> None:
    path = add(tmp_path, "1", "a")
    box = np.empty((), dtype=object)
    box[()] = gaze
    np.save(path, box, allow_pickle=True)
    add(tmp_path, "2", "b")
    with pytest.raises(InvalidSampleError, match=f"a.npy: .*({message})"):
        list(read_capgaze(tmp_path))
    stream = read_capgaze(tmp_path, tolerance=Tolerance(damaged=1))
    assert [sample.subject for sample in stream] == ["2"]


def test_a_damaged_transcription_is_named(tmp_path: Path) -> None:
    add(tmp_path, "1", "a")
    words = tmp_path / "transcribed_text" / "1" / "a.json"
    for content, message in (("{", "not JSON"), ('{"txt": "a"}', "text is missing"), ('{"text": 1}', "must be text")):
        words.write_text(content)
        with pytest.raises(InvalidSampleError, match=f"a.json: .*{message}"):
            list(read_capgaze(tmp_path))


def test_folders_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidSampleError, match="images: is no folder"):
        read_capgaze(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(InvalidSampleError, match="gaze_converted_2: cannot be read"):
        list(read_capgaze(tmp_path))
    (tmp_path / "gaze_converted_2").mkdir()
    with pytest.raises(InvalidSampleError, match="not one sample"):
        list(read_capgaze(tmp_path))
    with pytest.raises(InvalidArgumentError, match="eye must be one of 'dominant', 'mean'"):
        read_capgaze(tmp_path, eye="left")  # type: ignore[arg-type]


# The pickles


def write_npy(path: Path, payload: bytes, descr: str = "'|O'", shape: str = "()") -> Path:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + payload)
    return path


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_a_malicious_pickle_runs_nothing_and_is_named(tmp_path: Path) -> None:
    flag = tmp_path / "owned"
    path = add(tmp_path, "1", "a", recording(left_eye=Malicious(flag)))
    with pytest.raises(InvalidSampleError, match=r"a.npy: its pickle names \S*pathlib\S*, which is not read"):
        list(read_capgaze(tmp_path))
    assert not flag.exists()
    np.load(path, allow_pickle=True)  # what reading it without care does
    assert flag.exists()


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "names os.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "names builtins.eval"),
        (b"c__builtin__\ngetattr\n.", "names __builtin__.getattr"),
        (b"cnumpy\nload\n(S'x'\ntR.", "names numpy.load"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
        (b"cnumpy\nndarray\n(I1000000000000\ntR.", "takes no arguments|no .npy file"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.", "no numpy array does"),
        (b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'O8'\ntRS'x'\ntR.", "a scalar is made of"),
        (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.", "bytes are encoded as 'rot13'"),
        (b"Pother\n.", "refers to something outside it"),
        (b"\x80\x04\x95", "is no .npy file that holds an object"),
        (b"", "is no .npy file that holds an object"),
        (b"Nr\xff\xff\xff\x7f.", "numbers an object 2147483647; it is made to fill memory"),
        (pickle.dumps(5), "holds int, not one object"),
        (pickle.dumps(collections.OrderedDict()), "names collections.OrderedDict"),
    ],
)
def test_pickles_may_name_nothing_but_what_arrays_are_made_of(payload: bytes, message: str, tmp_path: Path) -> None:
    path = write_npy(tmp_path / "a.npy", payload)
    with pytest.raises(InvalidSampleError, match=message):
        load_object(path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x09\x00xx"])
def test_what_is_no_npy_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(InvalidSampleError, match=r"is no \.npy file that holds an object"):
        load_object(path)
    np.save(path, np.zeros(3))
    with pytest.raises(InvalidSampleError, match=r"an array of shape \(3,\) and type float64"):
        load_object(path)
    with pytest.raises(InvalidSampleError, match=r"is no \.npy file"):
        load_object(tmp_path / "absent.npy")


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_arrays_scalars_and_plain_containers_are_read_whatever_wrote_them(
    core: str, protocol: int, tmp_path: Path
) -> None:
    value = {
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "objects": np.array([None, (0.5, 0.25), "é"], dtype=object),
        "scalar": np.float64(0.125),
        "flag": np.bool_(True),
        "dtype": np.dtype("<i4"),
        "list": [1, 2.5, None, True, {"a": (1, 2)}, b"bytes"],
    }
    box = np.empty((), dtype=object)
    box[()] = value
    payload = pickle.dumps(box, protocol)
    if protocol < 4:  # later ones give a length before the name
        payload = payload.replace(b"numpy._core.multiarray", f"{core}.multiarray".encode())
    loaded = load_object(write_npy(tmp_path / "a.npy", payload))
    assert np.array_equal(loaded["array"], value["array"])
    assert loaded["objects"].tolist() == value["objects"].tolist()
    assert (loaded["scalar"], loaded["flag"], loaded["dtype"]) == (0.125, True, np.dtype("<i4"))
    assert loaded["list"] == value["list"]


@given(st.data())
def test_a_damaged_pickle_is_refused_or_read_and_never_anything_else(data: st.DataObject) -> None:
    box = np.empty((), dtype=object)
    box[()] = {"left_eye": np.zeros((3, 2)), "n": np.float64(1), "text": ["é", (1, None)]}
    payload = bytearray(pickle.dumps(box, data.draw(st.sampled_from([0, 2, 4]))))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(InvalidSampleError):
        load_object(write_npy(Path(folder) / "a.npy", bytes(payload[: data.draw(st.integers(0, len(payload)))])))


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    payload = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01)cnumpy\ndtype\n"
        b"U\x02O8K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]}U\x08left_eye]"
        b"G?\xe0\x00\x00\x00\x00\x00\x00G?\xd0\x00\x00\x00\x00\x00\x00\x86asatb."
    )
    assert load_object(write_npy(tmp_path / "a.npy", payload)) == {"left_eye": [(0.5, 0.25)]}
