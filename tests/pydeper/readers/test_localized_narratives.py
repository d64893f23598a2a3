import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.gaze import FixedWindows
from pydeper.readers import Tolerance, read_localized_narratives
from pydeper.readers.localized_narratives import POINTER_STOPS

Lines = Callable[..., Path]


def stroke(x: float, y: float, start: float, count: int = 20) -> list[dict[str, float]]:
    return [{"x": x, "y": y, "t": start + 0.02 * i} for i in range(count)]


def narration(**changes: Any) -> dict[str, Any]:
    return {
        "dataset_id": "mscoco_train2017",
        "image_id": "137576",
        "annotator_id": 93,
        "caption": "In this image there is a dog.",
        "timed_caption": [{"utterance": "In this", "start_time": 0.0, "end_time": 0.4}],
        "traces": [stroke(0.2, 0.3, 0.0), stroke(0.7, 0.6, 1.0, 30)],
        "voice_recording": "coco_train/137576_93.ogg",
    } | changes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("000000137576.jpg", "1000092795.jpg"):
        Image.new("RGB", (8, 6)).save(folder / name)
    return folder


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    def write(*records: object, name: str = "ln.jsonl") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records))
        return path

    return write


def names(stream: Any) -> list[str]:
    return [Path(sample.image).name for sample in stream]


@pytest.mark.parametrize(
    ("dataset_id", "split"),
    [("mscoco_train2017", "train"), ("mscoco_val2017", "val"), ("Flickr30k_test", "test"), ("ade_validation", "val")],
)
def test_published_splits_are_kept_where_they_are_wanted(
    lines: Lines, images: Path, dataset_id: str, split: str
) -> None:
    path = lines(narration(dataset_id=dataset_id))
    pattern = "{image_id:0>12}.jpg"
    (sample,) = read_localized_narratives(path, images, image_pattern=pattern, keep_splits=True)
    assert sample.split == split
    (sample,) = read_localized_narratives(path, images, image_pattern=pattern)
    assert sample.split is None


def test_a_data_set_that_names_no_split(lines: Lines, images: Path) -> None:
    path = lines(narration(dataset_id="mscoco_restrained"))
    with pytest.raises(InvalidSampleError, match=r"ln.jsonl:1: dataset_id 'mscoco_restrained' names no split"):
        list(read_localized_narratives(path, images, keep_splits=True))


def test_a_narration_becomes_a_sample(lines: Lines, images: Path) -> None:
    path = lines(narration())
    stream = read_localized_narratives(path, images)
    (sample,) = stream
    assert sample.image == images.resolve() / "000000137576.jpg"
    assert (sample.description, sample.subject) == ("In this image there is a dog.", "93")
    assert sample.source == f"{path}:1"
    assert sample.trajectory is not None
    assert [fixation.duration for fixation in sample.trajectory] == pytest.approx([0.38, 0.58])
    assert [fixation.box for fixation in sample.trajectory] == [
        pytest.approx((0.165, 0.265, 0.235, 0.335)),
        pytest.approx((0.665, 0.565, 0.735, 0.635)),
    ]
    assert (stream.report.samples, stream.report.changed, stream.report.passed_over) == (1, {}, {})


def test_every_set_names_its_images_in_its_own_way(lines: Lines, images: Path) -> None:
    flickr = narration(dataset_id="Flickr30k_train", image_id="1000092795")
    assert names(read_localized_narratives(lines(narration(), flickr), images)) == [
        "000000137576.jpg",
        "1000092795.jpg",
    ]
    short = lines(narration(image_id="92795"))
    assert names(read_localized_narratives(short, images, image_pattern="10000{image_id}.jpg")) == ["1000092795.jpg"]


def test_shards_are_read_one_after_the_other(lines: Lines, images: Path) -> None:
    shards = [lines(narration(annotator_id=i), name=f"shard-{i}") for i in range(3)]
    assert [sample.subject for sample in read_localized_narratives(shards, images)] == ["0", "1", "2"]


def test_samples_come_one_by_one(lines: Lines, images: Path) -> None:
    stream = read_localized_narratives(lines(narration(), b"{broken"), images)
    assert next(stream).subject == "93"
    assert stream.report.samples == 1
    with pytest.raises(InvalidSampleError, match=r"ln.jsonl:2: not JSON"):
        next(stream)


def test_no_fixation_spans_two_stretches(lines: Lines, images: Path) -> None:
    halves = narration(traces=[stroke(0.2, 0.3, 0.0), [], stroke(0.2, 0.3, 0.5)])
    (sample,) = read_localized_narratives(lines(halves), images)
    assert sample.trajectory is not None
    assert len(sample.trajectory) == 2


def test_windows_are_an_option(lines: Lines, images: Path) -> None:
    (sample,) = read_localized_narratives(lines(narration()), images, method=FixedWindows(0.2))
    assert sample.trajectory is not None
    assert [round(fixation.duration, 6) for fixation in sample.trajectory] == [0.2, 0.18, 0.2, 0.2, 0.18]


def test_points_outside_are_moved_to_the_edge_or_left_out(lines: Lines, images: Path) -> None:
    path = lines(narration(traces=[stroke(1.05, 0.5, 0.0), stroke(0.5, 0.5, 1.0)]))
    clipped = read_localized_narratives(path, images, min_box=0.1)
    (sample,) = clipped
    assert sample.trajectory is not None
    assert sample.trajectory.fixations[0].box == pytest.approx((0.95, 0.45, 1.0, 0.55))
    (tally,) = clipped.report.changed.values()
    assert (tally.count, tally.first) == (20, [f"{path}:1"])

    dropped = read_localized_narratives(path, images, outside="drop")
    (sample,) = dropped
    assert sample.trajectory is not None
    assert len(sample.trajectory) == 1
    assert dropped.report.changed["points outside the image left out"].count == 20


def test_each_utterance_has_the_box_of_the_pointer_meanwhile(lines: Lines, images: Path) -> None:
    said = [("In this", 0.0, 0.25), ("image there", 0.25, 0.75), ("is", 1.0, 1.0), ("a dog.", 9.0, 9.5)]
    timed = [{"utterance": text, "start_time": start, "end_time": end} for text, start, end in said]
    moving = [{"x": 0.125 * i, "y": 0.5, "t": 0.125 * i} for i in range(5)]
    told = narration(timed_caption=timed, traces=[moving, stroke(1.2, 0.4, 1.0)])
    path = lines(told, narration(timed_caption=[]))
    stream = read_localized_narratives(path, images)
    assert stream.utterances == ()
    next(stream)
    assert [(one.text, one.start, one.end) for one in stream.utterances] == said
    assert [one.box for one in stream.utterances] == [
        (0.0, 0.5, 0.25, 0.5),
        (0.25, 0.5, 0.5, 0.5),
        (1.0, 0.4, 1.0, 0.4),
        None,
    ]
    next(stream)
    assert stream.utterances == ()
    dropped = read_localized_narratives(path, images, outside="drop", without_trajectory="keep")
    next(dropped)
    assert dropped.utterances[2].box is None


@pytest.mark.parametrize(
    "timed",
    [
        "In this",
        7,
        {"utterance": "In"},
        ["In"],
        [{"utterance": "In", "start_time": 0.0}],
        [{"utterance": 3, "start_time": 0.0, "end_time": 1.0}],
        [{"utterance": "In", "start_time": "0", "end_time": 1.0}],
        [{"utterance": "In", "start_time": 2.0, "end_time": 1.0}],
        [{"utterance": "In", "start_time": float("nan"), "end_time": 1.0}],
        [{"utterance": "In", "start_time": 0.0, "end_time": float("inf")}],
        [{"utterance": "In", "start_time": 0.0, "end_time": 10**400}],
        [None],
    ],
)
def test_a_damaged_timed_caption_is_left_out_and_counted(timed: object, lines: Lines, images: Path) -> None:
    path = lines(narration(timed_caption=timed))
    stream = read_localized_narratives(path, images)
    assert next(stream).description == "In this image there is a dog."
    assert stream.utterances == ()
    (tally,) = stream.report.changed.values()
    assert (tally.count, tally.first) == (1, [f"{path}:1"])


def test_files_of_captions_alone_are_kept_as_text(lines: Lines, images: Path) -> None:
    captions = [narration(annotator_id=who) for who in (7, 8)]
    for caption in captions:
        del caption["traces"], caption["timed_caption"], caption["voice_recording"]
    stream = read_localized_narratives(lines(*captions), images, without_trajectory="keep")
    assert [(sample.subject, sample.trajectory) for sample in stream] == [("7", None), ("8", None)]
    assert stream.report.changed["samples without a trajectory"].count == 2
    with pytest.raises(InvalidSampleError, match="passed over: 2 × no fixation"):
        list(read_localized_narratives(lines(*captions), images))


@pytest.mark.parametrize("method", [POINTER_STOPS, FixedWindows(0.4)])
def test_milliseconds_are_refused_unless_they_are_meant(method: Any, lines: Lines, images: Path) -> None:
    points = [{"x": 0.5, "y": 0.5, "t": 20 * i} for i in range(100)]
    path = lines(narration(traces=[points]))
    with pytest.raises(InvalidSampleError, match=r"ln\.jsonl:1: .* milliseconds"):
        list(read_localized_narratives(path, images, method=method))
    assert len(list(read_localized_narratives(path, images, method=method, check_durations=False))) == 1


@pytest.mark.parametrize("traces", [None, [], [[]], [[{"x": 0.1, "y": 0.1, "t": 0.0}]]])
def test_a_line_without_fixations_is_passed_over_or_kept_as_text(traces: Any, lines: Lines, images: Path) -> None:
    path = lines(narration(), narration(traces=traces, caption="Text."))
    stream = read_localized_narratives(path, images)
    assert len(list(stream)) == 1
    assert stream.report.passed_over["no fixation"].first == [f"{path}:2"]

    kept = read_localized_narratives(path, images, without_trajectory="keep")
    assert [sample.trajectory is None for sample in kept] == [False, True]
    assert kept.report.changed["samples without a trajectory"].count == 1


def test_a_line_without_words_is_passed_over(lines: Lines, images: Path) -> None:
    stream = read_localized_narratives(lines(narration(), narration(caption="  ")), images)
    assert len(list(stream)) == 1
    assert stream.report.passed_over["no description"].count == 1


def test_fields_that_are_not_part_of_the_format_are_counted(lines: Lines, images: Path) -> None:
    stream = read_localized_narratives(lines(narration(mood="good"), narration(mood="bad")), images)
    assert len(list(stream)) == 2
    assert stream.report.unread == {"mood": 2}
    assert "not read: mood (2)" in str(stream.report)


POINT = {"x": 0.1, "y": 0.2, "t": 1.0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"dataset_id": ', "not JSON"),
        (b"[1, 2]", "must be an object"),
        (b'{"caption": "\xff"}', "byte 14 is not UTF-8"),
        (b'{"caption": "a", "caption": "b"}', "'caption' is given 2 times"),
        ({"caption": "a"}, "image_id is missing"),
        (narration(image_id=137576), "image_id must be text, not int 137576"),
        (narration(image_id="../137576", dataset_id="ade"), "does not name a file inside"),
        (narration(annotator_id="93"), "annotator_id must be a whole number, not str '93'"),
        (narration(annotator_id=True), "annotator_id must be a whole number, not bool True"),
        (narration(caption=None), "caption must be text, not null"),
        (narration(traces={}), "traces must be a list of lists"),
        (narration(traces=[POINT]), r"traces\[0\] must be a list"),
        (narration(traces=[[POINT, {"x": 1, "y": 2}]]), r"traces\[0\]\[1\] must be {x, y, t}, not dict"),
        (narration(traces=[[POINT, [1, 2, 3]]]), r"traces\[0\]\[1\] must be {x, y, t}, not list"),
        (narration(traces=[[POINT | {"x": "1"}]]), r"traces\[0\]\[0\] must hold three numbers"),
        (narration(traces=[[POINT], [POINT, POINT | {"y": float("nan")}]]), r"traces\[1\]\[1\].y is nan"),
        (narration(traces=[[POINT | {"t": float("inf")}]]), r"traces\[0\]\[0\].t is inf"),
        (narration(traces=[[POINT, POINT | {"t": 0.9}]]), r"traces\[0\]\[1\].t goes backwards, from 1.0 to 0.9"),
        (narration(traces=[[POINT], [POINT | {"t": 0.9}]]), r"traces\[1\]\[0\].t goes backwards, from 1.0 to 0.9"),
    ],
)
def test_a_damaged_line_is_named_or_tolerated(line: Any, message: str, lines: Lines, images: Path) -> None:
    path = lines(narration(), line, narration())
    with pytest.raises(InvalidSampleError, match=rf"ln.jsonl:2: .*{message}"):
        list(read_localized_narratives(path, images))
    stream = read_localized_narratives(path, images, tolerance=Tolerance(damaged=1))
    assert len(list(stream)) == 2
    assert stream.report.passed_over["damaged record"].first[0].startswith(f"{path}:2: ")


def test_tolerance_has_its_limit(lines: Lines, images: Path) -> None:
    path = lines(narration(), b"{", b"{", b"{")
    with pytest.raises(InvalidSampleError, match=r"ln.jsonl:4: .*number 3 of its kind; 2 are tolerated"):
        list(read_localized_narratives(path, images, tolerance=Tolerance(damaged=2, missing_images=9)))
    for bad in (-1, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="must be a whole number"):
            Tolerance(damaged=bad)  # type: ignore[arg-type]


def test_missing_images_have_a_tolerance_of_their_own(lines: Lines, images: Path) -> None:
    path = lines(narration(image_id="1"), narration(), narration(image_id="2"))
    with pytest.raises(InvalidSampleError, match=r"ln.jsonl:1: image '000000000001.jpg' is not in"):
        list(read_localized_narratives(path, images, tolerance=Tolerance(damaged=9)))
    stream = read_localized_narratives(path, images, tolerance=Tolerance(missing_images=2))
    assert len(list(stream)) == 1
    assert stream.report.passed_over["image is missing"].count == 2


def test_a_file_that_gives_nothing_is_an_error(lines: Lines, images: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSampleError, match="not one sample"):
        list(read_localized_narratives(lines(), images))
    with pytest.raises(InvalidSampleError, match=r"(?s)not one sample.*passed over: 1 × no fixation"):
        list(read_localized_narratives(lines(narration(traces=[])), images))
    with pytest.raises(InvalidSampleError, match="absent: cannot be read"):
        list(read_localized_narratives(tmp_path / "absent", images))
    with pytest.raises(InvalidSampleError, match="absent: is no folder"):
        read_localized_narratives(lines(narration()), tmp_path / "absent")


@pytest.mark.parametrize("pattern", ["photo.jpg", "{id}.jpg", "{image_id", "{}", "{image_id.x}.jpg"])
def test_a_pattern_must_name_the_image(pattern: str, lines: Lines, images: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="image_pattern"):
        read_localized_narratives(lines(narration()), images, image_pattern=pattern)


def test_choices_are_checked(lines: Lines, images: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="outside must be one of 'clip', 'drop', not 'keep'"):
        read_localized_narratives(lines(narration()), images, outside="keep")  # type: ignore[arg-type]
