"""capgaze (He et al., 2019): five people describe photographs aloud before an eye tracker.

    FOLDER/gaze_converted_2/{1..5}/gaze/ID.npy     raw gaze, about 49 points a second
    FOLDER/transcribed_text/{1..5}/ID.json         {"text": what was said}
    FOLDER/images/ID.jpg

A gaze file holds a pickled dict: `time_stamp`, a list of numbers; `left_eye` and `right_eye`, lists as long of (x, y)
as fractions of the image or None; `dominant_eye`, 0 for left and 1 for right.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidSampleError
from pydeper.gaze import IDT, MIN_BOX, FixationMethod, find_fixations
from pydeper.readers.image_folder import ImageFolder
from pydeper.readers.records import field, kind, parse_object
from pydeper.readers.restricted_pickle import load_object
from pydeper.readers.stream import PassedOver, ReadReport, SampleStream, Tolerance, stream
from pydeper.readers.trajectories import Outside, Without, bring_inside, one_of, trajectory_of
from pydeper.samples.sample import Sample

Eye: TypeAlias = Literal["dominant", "mean"]

EYE_STOPS = IDT(dispersion=0.05, min_duration=0.1)
"""How the eyes' stops are found."""

MAX_GAP = 0.1
"""Longest time between two points of a stop, in seconds: five of the tracker's."""

# The files do not say in which unit they count; at tens of points a second the three cannot be mistaken.
_UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6}
_INTERVAL = (2e-3, 0.5)


def read_capgaze(
    folder: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    eye: Eye = "dominant",
    method: FixationMethod = EYE_STOPS,
    min_box: float = MIN_BOX,
    outside: Outside = "drop",
    without_trajectory: Without = "skip",
    without_description: Without = "skip",
    check_durations: bool = True,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
) -> SampleStream:
    """Reads capgaze, a recording at a time, ordered by person and image.

    Where the chosen eye was lost, the other one's point is taken; where both were, there is a gap, which no fixation
    spans. The pickles are read without letting them run anything. The subject is the person's number.

    Args:
        folder: Holds `gaze_converted_2` and `transcribed_text`.
        images: The folder of the images, `ID.jpg`; None: `images` in `folder`.
        eye: The dominant one, or the "mean" of both.
        method: How points become fixations.
        min_box: Smallest side of a box, as a fraction of the image's.
        outside: What becomes of points outside the image.
        without_trajectory: Recordings without a fixation, or without a point: "skip", or "keep" as text.
        without_description: Recordings without a transcription: "skip", or "keep" as gaze.
        check_durations: Whether to refuse trajectories whose median fixation lasts less than 0.01 s or more than 10 s,
            which are in another unit; False where they are meant.
        tolerance: How many damaged recordings and missing images are passed over; none, unless told.

    Returns:
        The samples, read while they are asked for, and the report.

    Raises:
        InvalidArgumentError: An option is none of its choices.
        InvalidSampleError: A folder is not there. While iterating: more than is tolerated is wrong; the message names
            the file and the field.

    Examples:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from pydeper import draw_scene
        >>> from pydeper.readers import read_capgaze
        >>> for folder in ("images", "gaze_converted_2/1/gaze", "transcribed_text/1"):
        ...     Path(folder).mkdir(parents=True)
        >>> draw_scene([]).save("images/17.jpg")
        >>> _ = Path("transcribed_text/1/17.json").write_text('{"text": "A star."}')
        >>> eye = [(0.4, 0.5)] * 50
        >>> gaze = {"time_stamp": list(range(0, 1000, 20)), "left_eye": eye, "right_eye": eye, "dominant_eye": 0}
        >>> np.save("gaze_converted_2/1/gaze/17.npy", gaze)
        >>> [(sample.subject, sample.description) for sample in read_capgaze(".")]
        [('1', 'A star.')]
    """
    one_of("eye", eye, ("dominant", "mean"))
    one_of("outside", outside, ("clip", "drop"))
    one_of("without_trajectory", without_trajectory, ("skip", "keep"))
    one_of("without_description", without_description, ("skip", "keep"))
    folder = Path(folder)
    found = ImageFolder(folder / "images" if images is None else images)
    report = ReadReport(str(folder))

    def read(path: Path, place: str) -> Sample:
        subject = path.parent.parent.name
        image = found.find(f"{path.stem}.jpg")
        description = _transcription(folder / "transcribed_text" / subject / f"{path.stem}.json")
        if description is None:
            if without_description == "skip":
                raise PassedOver("no transcription")
            report.change("samples without a description", place)
        points, times = _gaze(path, eye, report, place)
        if not len(points) and without_trajectory == "skip":
            raise PassedOver("no gaze points")
        settled = bring_inside(points, outside, report, place)
        fixations = find_fixations(
            settled, times, method, min_box=min_box, max_gap=MAX_GAP, check_durations=check_durations
        )
        trajectory = trajectory_of(fixations, without_trajectory, report, place, check_durations=check_durations)
        return Sample(image=image, description=description, trajectory=trajectory, subject=subject, source=place)

    return stream(_recordings(folder / "gaze_converted_2"), read, report, tolerance)


def _recordings(folder: Path) -> Iterator[tuple[str, Path]]:
    try:
        people = sorted((path for path in folder.iterdir() if path.is_dir()), key=_natural)
        for person in people:
            for path in sorted((person / "gaze").glob("*.npy"), key=_natural):
                yield str(path), path
    except OSError as error:
        raise InvalidSampleError(f"{folder}: cannot be read ({error}); name the folder that holds it") from error


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(digits or 0), text) for text, digits in re.findall(r"(\D*)(\d*)", path.name)]


def _transcription(path: Path) -> str | None:
    try:
        text = field(parse_object(path.read_bytes()), "text", str, "text")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidSampleError(f"{path}: cannot be read ({error})") from error
    except InvalidSampleError as error:
        raise InvalidSampleError(f"{path}: {error}") from error
    return text if text.strip() else None


def _gaze(path: Path, eye: Eye, report: ReadReport, place: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 2), NaN where both eyes were lost, and times (N,) in seconds."""
    record = load_object(path)
    if not isinstance(record, dict):
        raise InvalidSampleError(f"holds {kind(record)}, not a dict of time_stamp, left_eye, right_eye, dominant_eye")
    for name in ("time_stamp", "left_eye", "right_eye", "dominant_eye"):
        if name not in record:
            raise InvalidSampleError(f"{name} is missing")
    stamps, left, right = (_list(record, name) for name in ("time_stamp", "left_eye", "right_eye"))
    if not len(stamps) == len(left) == len(right):
        raise InvalidSampleError(f"{len(stamps)} time_stamp, {len(left)} left_eye and {len(right)} right_eye differ")
    dominant = record["dominant_eye"]
    if not isinstance(dominant, int | np.integer) or dominant not in (0, 1):
        raise InvalidSampleError(f"dominant_eye must be 0 (left) or 1 (right), not {kind(dominant)}")
    first, second = _eye(left, "left_eye"), _eye(right, "right_eye")
    chosen, other = (second, first) if dominant else (first, second)
    if eye == "mean":
        chosen, other = (first + second) / 2, np.where(np.isnan(first), second, first)
    lost = np.isnan(chosen[:, 0])
    found = lost & ~np.isnan(other[:, 0])
    report.change("points taken from the eye that was not lost", place, int(found.sum()))
    report.change("points at which both eyes were lost", place, int((lost & ~found).sum()))
    return np.where(found[:, None], other, chosen), _seconds(stamps, report, place)


def _list(record: dict[str, Any], name: str) -> list[Any]:
    value = record[name]
    if not isinstance(value, list | tuple | np.ndarray):
        raise InvalidSampleError(f"{name} must be a list, not {kind(value)}")
    return list(value)


def _eye(points: list[Any], name: str) -> NDArray[np.float64]:
    rows = np.full((len(points), 2), np.nan)
    for i, point in enumerate(points):
        if point is None:
            continue
        try:
            x, y = (float(value) for value in point)
        except (TypeError, ValueError) as error:
            raise InvalidSampleError(f"{name}[{i}] must be (x, y) or None, not {kind(point)}") from error
        if np.isfinite(x) and np.isfinite(y):
            rows[i] = x, y
    return rows


def _seconds(stamps: list[Any], report: ReadReport, place: str) -> NDArray[np.float64]:
    try:
        times = np.array([float(stamp) for stamp in stamps])
    except (TypeError, ValueError) as error:
        raise InvalidSampleError(f"time_stamp must be numbers ({error})") from error
    if not len(times):
        return times
    steps = np.diff(times)
    interval = float(np.median(steps)) if len(steps) else np.nan
    for unit, length in _UNITS.items():
        if _INTERVAL[0] <= interval * length <= _INTERVAL[1]:
            report.change(f"recordings whose time_stamp was read as {unit}", place)
            seconds: NDArray[np.float64] = (times - times[0]) * length
            return seconds
    raise InvalidSampleError(
        f"time_stamp advances by {interval:g} at a time, which is no tracker's interval in seconds, milliseconds or "
        "microseconds"
    )
