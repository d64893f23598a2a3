"""Localized Narratives (Pont-Tuset et al., 2020): people describe images aloud while their mouse follows what they say.

JSON Lines, one narration a line:

    {"dataset_id": "mscoco_train2017", "image_id": "137576", "annotator_id": 93, "caption": "In this image …",
     "timed_caption": [{"utterance": "In this", "start_time": 0.0, "end_time": 0.4}, …],
     "traces": [[{"x": 0.2086, "y": -0.0533, "t": 0.022}, …], …], "voice_recording": "…"}

x and y are fractions of the image from the top left, and leave [0, 1] where the pointer left the image; t is seconds. A
list of points is a stretch between entering the image and leaving it. `dataset_id` names the split of the image:
"train", "val" or "test". `timed_caption` may be missing.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.gaze import IDT, MIN_BOX, FixationMethod, find_fixations
from pydeper.readers.image_folder import ImageFolder
from pydeper.readers.records import field, json_lines, kind, parse_object
from pydeper.readers.stream import PassedOver, ReadReport, SampleStream, Tolerance, stream
from pydeper.readers.trajectories import Outside, Without, bring_inside, one_of, trajectory_of
from pydeper.readers.utterances import Utterance
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation

POINTER_STOPS = IDT(dispersion=0.1, min_duration=0.1)
"""How a pointer's stops are found: it circles what is talked about, so a stop is wider than one of the eyes."""

_SPLIT = re.compile(r"(?:^|[^a-z])(train|val|test)(?:idation)?(?![a-z])", re.IGNORECASE)
"""In a `dataset_id`, such as "mscoco_val2017"."""

_FIELDS = {"dataset_id", "image_id", "annotator_id", "caption", "timed_caption", "traces", "voice_recording"}


def read_localized_narratives(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    images: str | os.PathLike[str],
    *,
    image_pattern: str | None = None,
    method: FixationMethod = POINTER_STOPS,
    min_box: float = MIN_BOX,
    outside: Outside = "clip",
    without_trajectory: Without = "skip",
    keep_splits: bool = False,
    check_durations: bool = True,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
) -> SampleStream:
    """Reads Localized Narratives, a line at a time.

    Fixations are looked for in each stretch of points by itself. The subject is the `annotator_id`.

    Args:
        paths: The JSON Lines file or files (the shards of one set).
        images: The folder of the images.
        image_pattern: An image's name in that folder, with `{image_id}` and `{dataset_id}`. None: as the sets
            name them, "{image_id:0>12}.jpg" for COCO (`dataset_id` begins with "mscoco") and "{image_id}.jpg" else.
        method: How points become fixations: `IDT`, or `FixedWindows` (0.4 s).
        min_box: Smallest side of a box, as a fraction of the image's.
        outside: What becomes of points outside the image.
        without_trajectory: Lines without traces, as in files of captions alone, or in whose traces no fixation is
            found: "skip", or "keep" as text.
        keep_splits: Whether a sample's split is the published one of its image, "train", "val" or "test", which the end
            of its `dataset_id` names; False: samples have no split.
        check_durations: Whether to refuse trajectories whose median fixation lasts less than 0.01 s or more than 10 s,
            which are in another unit; False where they are meant.
        tolerance: How many damaged lines and missing images are passed over; none, unless told.

    Returns:
        The samples, read while they are asked for, and the report; with the utterances of `timed_caption`.

    Raises:
        InvalidArgumentError: An option is out of range.
        InvalidSampleError: The folder is not there. While iterating: a file cannot be read, or more than is tolerated
            is wrong; the message names file, line and field.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from pydeper import draw_scene
        >>> from pydeper.readers import read_localized_narratives
        >>> draw_scene([]).save("17.jpg")
        >>> trace = [{"x": 0.4, "y": 0.5, "t": 0.0}, {"x": 0.41, "y": 0.5, "t": 0.3}]
        >>> line = {"dataset_id": "flickr30k_train", "image_id": "17", "annotator_id": 93, "caption": "A star."}
        >>> _ = Path("narratives.jsonl").write_text(json.dumps({**line, "traces": [trace]}))
        >>> samples = read_localized_narratives("narratives.jsonl", images=".")
        >>> [(sample.subject, sample.description) for sample in samples]
        [('93', 'A star.')]
    """
    one_of("outside", outside, ("clip", "drop"))
    one_of("without_trajectory", without_trajectory, ("skip", "keep"))
    _check_pattern(image_pattern)
    files = [Path(paths)] if isinstance(paths, str | os.PathLike) else [Path(path) for path in paths]
    folder = ImageFolder(images)
    report = ReadReport(", ".join(map(str, files)))

    def read(line: bytes, place: str) -> Sample:
        record = parse_object(line)
        report.unread.update(sorted(record.keys() - _FIELDS))
        image = folder.find(_image_name(record, image_pattern))
        fixations: list[Fixation] = []
        strokes = [(bring_inside(points, outside, report, place), times) for points, times in _strokes(record)]
        for points, times in strokes:
            fixations += find_fixations(points, times, method, min_box=min_box, check_durations=check_durations)
        caption = field(record, "caption", str, "text")
        if not caption.strip():
            raise PassedOver("no description")
        sample = Sample(
            image=image,
            description=caption,
            trajectory=trajectory_of(fixations, without_trajectory, report, place, check_durations=check_durations),
            subject=str(field(record, "annotator_id", int, "a whole number")),
            split=_published_split(record) if keep_splits else None,
            source=place,
        )
        samples.utterances = _utterances(record, strokes, report, place)
        return sample

    samples = stream(itertools.chain.from_iterable(map(json_lines, files)), read, report, tolerance)
    return samples


def _check_pattern(pattern: str | None) -> None:
    if pattern is None:
        return
    try:
        if pattern.format(image_id="1", dataset_id="a") == pattern.format(image_id="2", dataset_id="a"):
            raise ValueError("it does not hold {image_id}")
    except (ValueError, LookupError, AttributeError) as error:
        raise InvalidArgumentError(
            f"image_pattern {pattern!r} cannot be used ({error}); write such as '{{image_id:0>12}}.jpg'"
        ) from error


def _image_name(record: dict[str, Any], pattern: str | None) -> str:
    image_id = field(record, "image_id", str, "text")
    dataset_id = field(record, "dataset_id", str, "text")
    if pattern is None:
        pattern = "{image_id:0>12}.jpg" if dataset_id.startswith("mscoco") else "{image_id}.jpg"
    return pattern.format(image_id=image_id, dataset_id=dataset_id)


def _published_split(record: dict[str, Any]) -> str:
    dataset_id = field(record, "dataset_id", str, "text")
    if (found := _SPLIT.search(dataset_id)) is None:
        raise InvalidSampleError(
            f"dataset_id {dataset_id!r} names no split (train, val or test), so the published splits cannot be "
            "followed; take the narratives as they were published, or make splits of your own"
        )
    return found[1].lower()


_Stroke: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]


def _utterances(
    record: dict[str, Any], strokes: list[_Stroke], report: ReadReport, place: str
) -> tuple[Utterance, ...]:
    """The utterances, each with the box of the points that lie between its start and its end."""
    if record.get("timed_caption") is None:
        return ()
    points = np.concatenate([np.empty((0, 2)), *(points for points, _ in strokes)])
    times = np.concatenate([np.empty(0), *(times for _, times in strokes)])
    inside = np.isfinite(points).all(axis=1)
    points, times = points[inside], times[inside]
    try:
        return tuple(_utterance(entry, points, times) for entry in record["timed_caption"])
    except (TypeError, LookupError, ValueError, OverflowError):
        report.change("timed captions that are not {utterance, start_time, end_time} left out", place)
        return ()


def _utterance(entry: Any, points: NDArray[np.float64], times: NDArray[np.float64]) -> Utterance:
    text, start, end = entry["utterance"], entry["start_time"], entry["end_time"]
    if not (
        type(text) is str and type(start) in _NUMBERS and type(end) in _NUMBERS and -np.inf < start <= end < np.inf
    ):
        raise ValueError
    meanwhile = points[np.searchsorted(times, start, "left") : np.searchsorted(times, end, "right")]
    if not len(meanwhile):
        return Utterance(text, float(start), float(end))
    (x1, y1), (x2, y2) = meanwhile.min(axis=0), meanwhile.max(axis=0)
    return Utterance(text, float(start), float(end), (float(x1), float(y1), float(x2), float(y2)))


def _strokes(record: dict[str, Any]) -> Iterator[_Stroke]:
    """Points (N, 2) and times (N,) of each stretch that holds any."""
    end = -np.inf
    traces = [] if record.get("traces") is None else field(record, "traces", list, "a list of lists of {x, y, t}")
    for i, stroke in enumerate(traces):
        if not isinstance(stroke, list):
            raise InvalidSampleError(f"traces[{i}] must be a list of {{x, y, t}}, not {kind(stroke)}")
        if not stroke:
            continue
        rows = np.array([_point(point, i, j) for j, point in enumerate(stroke)], dtype=np.float64)
        if not np.isfinite(rows).all():
            j, axis = np.argwhere(~np.isfinite(rows))[0].tolist()
            raise InvalidSampleError(f"traces[{i}][{j}].{'xyt'[axis]} is {rows[j, axis]}; it must be a number")
        times = np.concatenate([[end], rows[:, 2]])
        if (back := np.flatnonzero(times[1:] < times[:-1])).size:
            j = int(back[0])
            raise InvalidSampleError(f"traces[{i}][{j}].t goes backwards, from {times[j]} to {times[j + 1]}")
        end = times[-1]
        yield rows[:, :2], rows[:, 2]


def _point(point: Any, i: int, j: int) -> tuple[float, float, float]:
    try:
        x, y, t = point["x"], point["y"], point["t"]
    except (TypeError, KeyError, IndexError):
        raise InvalidSampleError(f"traces[{i}][{j}] must be {{x, y, t}}, not {kind(point)}") from None
    if type(x) in _NUMBERS and type(y) in _NUMBERS and type(t) in _NUMBERS:
        return x, y, t
    raise InvalidSampleError(f"traces[{i}][{j}] must hold three numbers, not {kind(point)}")


_NUMBERS = {int, float}
