"""The JSON that the paper's released code reads: one list of samples.

    [{"name": "photos/17.jpg", "caption": "A dog …", "subject": 3, "subject_name": "ana", "split": "train",
      "X": [0.51, …], "Y": [0.74, …], "T": [0.31, …], "bboxes": [[0.49, 0.66, 0.56, 0.82], …]}, …]

X and Y are the fixations' centres, T their durations in seconds, `bboxes` their boxes (x1, y1, x2, y2). Boxes say where
somebody looked, so X and Y are only checked to be as many. Boxes are fractions of the image, or pixels: which, the file
does not say and nothing here guesses.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

from pydeper.errors import InvalidSampleError
from pydeper.images import upright_size
from pydeper.readers.files import open_text
from pydeper.readers.image_folder import ImageFolder
from pydeper.readers.records import field, kind, unique
from pydeper.readers.stream import ReadReport, SampleStream, Tolerance, stream
from pydeper.readers.trajectories import Without, one_of, trajectory_of
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation

Boxes: TypeAlias = Literal["normalised", "pixels"]

Subjects: TypeAlias = Literal["name", "number"]

CHUNK = 1 << 20
"""Characters that are read at a time."""

_FIELDS = {"name", "caption", "subject", "subject_name", "X", "Y", "T", "bboxes", "split"}

_LISTS = ("X", "Y", "T", "bboxes")

_SPACE = re.compile(r"[ \t\r\n]*")

# Further out than this, a box is not a little over the edge: it is pixels, or nonsense.
_MARGIN = 0.1


def read_deper_json(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    boxes: Boxes = "normalised",
    subjects: Subjects = "name",
    without_trajectory: Without = "skip",
    check_durations: bool = True,
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
) -> SampleStream:
    """Reads the released code's JSON, an entry at a time.

    `split` is kept. Boxes that go over the image's edge by up to a tenth of it are clipped, and counted.

    Args:
        path: The file.
        images: The folder that `name` is relative to.
        boxes: "normalised", or "pixels" of the upright image, whose size is then read from its file.
        subjects: What people are called by: "name", which is `subject_name`, or the number `subject` where there is
            none; or "number", which is `subject` for everybody.
        without_trajectory: Entries whose lists are empty, null or not there: "skip", or "keep" as text.
        check_durations: Whether to refuse trajectories whose median fixation lasts less than 0.01 s or more than 10 s,
            which are in another unit; False where they are meant.
        tolerance: How many damaged entries and missing images are passed over; none, unless told.

    Returns:
        The samples, read while they are asked for, and the report. Their places are such as "data.json[3]".

    Raises:
        InvalidArgumentError: An option is none of its choices.
        InvalidSampleError: The folder is not there. While iterating: the file is not such a list, or more than is
            tolerated is wrong; the message names file, entry and field.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from pydeper import draw_scene
        >>> from pydeper.readers import read_deper_json
        >>> draw_scene([]).save("star.png")
        >>> gaze = {"X": [0.5], "Y": [0.5], "T": [0.31], "bboxes": [[0.4, 0.4, 0.6, 0.6]]}
        >>> entry = {"name": "star.png", "caption": "A star.", "subject": 3, "subject_name": "ana", "split": "train"}
        >>> _ = Path("data.json").write_text(json.dumps([entry | gaze]))
        >>> [(sample.subject, sample.split) for sample in read_deper_json("data.json", images=".")]
        [('ana', 'train')]
    """
    one_of("boxes", boxes, ("normalised", "pixels"))
    one_of("subjects", subjects, ("name", "number"))
    one_of("without_trajectory", without_trajectory, ("skip", "keep"))
    path = Path(path)
    folder = ImageFolder(images)
    report = ReadReport(str(path))

    def read(entry: Any, place: str) -> Sample:
        if not isinstance(entry, dict):
            raise InvalidSampleError(f"must be an object {{…}}, not {kind(entry)}")
        report.unread.update(sorted(entry.keys() - _FIELDS))
        image = folder.find(field(entry, "name", str, "the name of an image"))
        size = upright_size(image) if boxes == "pixels" else (1, 1)
        caption = field(entry, "caption", str, "text")
        fixations = _fixations(entry, size, report, place)
        return Sample(
            image=image,
            description=caption,
            trajectory=trajectory_of(fixations, without_trajectory, report, place, check_durations=check_durations),
            subject=_subject(entry, subjects),
            split=entry.get("split"),
            source=place,
        )

    return stream(_entries(path), read, report, tolerance)


def _subject(entry: dict[str, Any], subjects: Subjects) -> str:
    if subjects == "name" and entry.get("subject_name") is not None:
        return str(field(entry, "subject_name", str, "text"))
    return str(field(entry, "subject", int, "a whole number"))


def _fixations(entry: dict[str, Any], size: tuple[int, int], report: ReadReport, place: str) -> list[Fixation]:
    if all(entry.get(name) is None for name in _LISTS):
        return []
    lists = {name: field(entry, name, list, "a list") for name in _LISTS}
    if len({len(values) for values in lists.values()}) > 1:
        lengths = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise InvalidSampleError(f"{lengths}: there must be as many of each")
    fixations = []
    for i, (box, duration) in enumerate(zip(lists["bboxes"], lists["T"], strict=True)):
        try:
            fixations.append(Fixation(_inside(box, size, report, place), duration))
        except InvalidSampleError as error:
            raise InvalidSampleError(f"fixation {i}: {error}") from error
    return fixations


def _inside(box: Any, size: tuple[int, int], report: ReadReport, place: str) -> Any:
    """The box as fractions of the image; what is no box is left for `Fixation` to refuse."""
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        return box
    x1, y1, x2, y2 = (value / size[i % 2] for i, value in enumerate(box))
    if not all(-_MARGIN <= value <= 1 + _MARGIN for value in (x1, y1, x2, y2)):
        units = "fractions of the image" if size == (1, 1) else f"pixels of an image of {size[0]}×{size[1]}"
        raise InvalidSampleError(f"box {box} lies far outside the image, read as {units}; say which boxes are given")
    if size != (1, 1) and max(box) <= 1:
        raise InvalidSampleError(f"box {box} lies within one pixel; it must be of fractions: say which boxes are given")
    clipped = tuple(min(max(value, 0.0), 1.0) for value in (x1, y1, x2, y2))
    if clipped != (x1, y1, x2, y2):
        report.change("boxes clipped to the image", place)
    return clipped


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path, "name a JSON file") as file:
        for number, entry in enumerate(_items(file, path)):
            yield f"{path}[{number}]", entry


def _items(file: TextIO, path: Path) -> Iterator[Any]:
    """The items of a JSON list, with no more of the file in memory than one of them needs."""
    decoder = json.JSONDecoder(object_pairs_hook=unique)
    text = file.read(CHUNK).lstrip()
    if not text.startswith("["):
        raise InvalidSampleError(f"{path}: must be a list […] of samples, but begins with {text[:20]!r}")
    done, count, chunk = 1, 0, CHUNK
    while True:
        try:
            start = _skip_space(text, done)
            if text.startswith("]", start):
                break
            if count:
                if not text.startswith(",", start):
                    raise ValueError("expected ',' or ']'")
                start = _skip_space(text, start + 1)
            item, done = decoder.raw_decode(text, start)
        except InvalidSampleError as error:
            raise InvalidSampleError(f"{path}[{count}]: {error}") from error
        except (ValueError, RecursionError) as error:
            # Perhaps the text ends within the item. Twice as much each time: a long item is read in linear time.
            if not (more := file.read(chunk)):
                raise InvalidSampleError(f"{path}[{count}]: not JSON ({error}); fetch the file again") from error
            text, done, chunk = text[done:] + more, 0, 2 * chunk
        else:
            count, chunk = count + 1, CHUNK
            yield item
    if more := (text[start + 1 :] + file.read(CHUNK)).strip():
        raise InvalidSampleError(f"{path}: goes on behind its list, with {more[:20]!r}; fetch the file again")


def _skip_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return start if match is None else match.end()
