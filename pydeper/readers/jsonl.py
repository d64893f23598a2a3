"""Samples as JSON Lines, the format of this project: one object a line, UTF-8.

    {"image": "photos/17.jpg", "description": "A dog …", "subject": "ana", "split": "train",
     "trajectory": [{"box": [0.1, 0.2, 0.4, 0.6], "duration": 0.31}, …]}

(on one line). `image` is a path relative to the file's folder, with forward slashes. `description` and `trajectory`
may be missing or null, not both; `subject` and `split` may be. Boxes are (x1, y1, x2, y2) as fractions of the upright
image, durations are seconds.
"""

import collections
import difflib
import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from pydeper.errors import InvalidSampleError
from pydeper.files.atomic import atomic_path, check_output
from pydeper.images import why_no_path
from pydeper.readers.image_folder import FileNames, canonical, relative_path
from pydeper.readers.records import json_lines, kind, parse_object
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation, Trajectory
from pydeper.untrusted import shown_path

_SAMPLE_FIELDS = ("image", "description", "subject", "trajectory", "split")
_FIXATION_FIELDS = ("box", "duration")


def read_samples(path: str | os.PathLike[str], *, check_durations: bool = True) -> list[Sample]:
    """Reads a samples file (JSON Lines, see this module).

    Images are checked to be there and opened later. An absolute image path is taken as it is. Blank lines, a byte order
    mark, Windows line ends, UTF-16 and files packed by gzip, bzip2 or xz are fine. A field that the format does not
    know is not read: one warning at the end tells the names and how often each was met; but where it looks like a
    missing field's name misspelt, it is an error.

    Args:
        path: The file.
        check_durations: Whether to refuse trajectories whose median fixation lasts less than 0.01 s or more than 10 s,
            which are in another unit; False where they are meant.

    Returns:
        One sample a line, in the file's order, each with its `source` (such as "ana.jsonl:3"); at least one.

    Raises:
        InvalidSampleError: The file cannot be read, holds no samples, or a line (named, with its field) is not valid or
            names an image that is not there.

    Examples:
        >>> from pydeper import demo_samples, read_samples, write_samples
        >>> write_samples("ana.jsonl", demo_samples("ana"))
        >>> samples = read_samples("ana.jsonl")
        >>> len(samples), samples[2].source
        (5, 'ana.jsonl:3')
    """
    path = Path(path)
    unread: collections.Counter[str] = collections.Counter()
    samples = []
    names = FileNames()
    try:
        folder = path.parent.resolve()
        for place, line in json_lines(path):
            samples.append(_read_line(line, place, folder, names, unread, check_durations))
    except InvalidSampleError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidSampleError(f"{path}: cannot be read ({error}); name a JSON Lines file of samples") from error
    if not samples:
        raise InvalidSampleError(f"{path}: holds zero samples; write one JSON object a line")
    if unread:
        listing = ", ".join(f"{name} ({count})" for name, count in unread.items())
        warnings.warn(f"{path}: fields that are not part of the format were not read: {listing}", stacklevel=2)
    return samples


def _read_line(
    line: bytes, source: str, folder: Path, names: FileNames, unread: collections.Counter[str], check_durations: bool
) -> Sample:
    try:
        record = parse_object(line)
        unread.update(_unknown_fields(record, _SAMPLE_FIELDS))
        trajectory = record.get("trajectory")
        return Sample(
            image=_image_path(record.get("image"), folder, names),
            description=record.get("description"),
            trajectory=None if trajectory is None else _trajectory(trajectory, unread, check_durations),
            subject=record.get("subject"),
            split=record.get("split"),
            source=source,
        )
    except InvalidSampleError as error:
        raise InvalidSampleError(f"{source}: {error}") from error


def _unknown_fields(record: dict[str, Any], known: tuple[str, ...], prefix: str = "") -> list[str]:
    missing = [name for name in known if name not in record]
    unknown = [name for name in record if name not in known]
    for name in unknown:
        if meant := difflib.get_close_matches(name.lower(), missing, n=1, cutoff=0.85):
            raise InvalidSampleError(f"unknown field {prefix}{name!r}: is {meant[0]!r} meant? Rename it")
    return [prefix + name for name in unknown]


def _image_path(value: object, folder: Path, names: FileNames) -> Path:
    if not isinstance(value, str) or not value:
        raise InvalidSampleError(f"image must be the path of an image file, not {kind(value)}")
    if reason := why_no_path(value):
        raise InvalidSampleError(f"image {shown_path(value)} {reason}, and name its file here")
    path = canonical(folder / value)
    try:
        path = canonical(names.find(folder, PurePosixPath(value)))
        found, problem = path.is_file(), "is not there" if not path.exists() else "is not a file"
    except OSError as error:
        found, problem = False, f"cannot be one's path: {error.strerror}"
    if not found:
        hint = " with forward slashes" if "\\" in value else ""
        where = f" (as {path})" if len(value) < 1000 else ""
        raise InvalidSampleError(f"image {shown_path(value)} {problem}{where}; give a path relative to this file{hint}")
    return path


def _trajectory(value: object, unread: collections.Counter[str], check_durations: bool) -> Trajectory:
    if not isinstance(value, list):
        raise InvalidSampleError(f'trajectory must be a list of {{"box": …, "duration": …}}, not {kind(value)}')
    fixations = []
    for i, item in enumerate(value):
        try:
            if not isinstance(item, dict):
                raise InvalidSampleError(f'must be {{"box": …, "duration": …}}, not {kind(item)}')
            unread.update(_unknown_fields(item, _FIXATION_FIELDS, "trajectory."))
            for name in _FIXATION_FIELDS:
                if name not in item:
                    raise InvalidSampleError(f"{name} is missing; give it, or leave the fixation out")
            fixations.append(Fixation(item["box"], item["duration"]))
        except InvalidSampleError as error:
            raise InvalidSampleError(f"trajectory[{i}]: {error}") from error
    try:
        return Trajectory(fixations, check_durations=check_durations)
    except InvalidSampleError as error:
        raise InvalidSampleError(f"trajectory: {error}") from error


def write_samples(path: str | os.PathLike[str], samples: Iterable[Sample]) -> None:
    """Writes samples to a file that `read_samples` reads back as equal samples.

    The file appears whole or not at all, in place of what was there. Image paths are written relative to its folder,
    whether or not the image is there yet; `source` is not written.

    Args:
        path: The file; its folder must exist.
        samples: One or more samples whose images are paths.

    Raises:
        InvalidSampleError: There are no samples, one (named by its index) is not a sample or holds its image in
            memory, or the file cannot be written.
        InvalidArgumentError: The file is an image of one of the samples.

    Examples:
        >>> from pydeper import Sample, draw_scene, read_samples, write_samples
        >>> draw_scene([]).save("empty.png")
        >>> write_samples("ana.jsonl", [Sample("empty.png", "There is nothing.", subject="ana")])
        >>> read_samples("ana.jsonl")[0].description
        'There is nothing.'
    """
    path = Path(path)
    folder = path.parent.resolve()
    listed = list(samples)
    lines = [sample_line(sample, i, folder) for i, sample in enumerate(listed)]
    if path.exists():
        check_output(
            path, {os.fspath(sample.image) for sample in listed if isinstance(sample.image, str | os.PathLike)}
        )
    if not lines:
        raise InvalidSampleError(f"{path}: there are zero samples to write; give at least one")
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(b"".join(lines))
    except OSError as error:
        raise InvalidSampleError(f"{path}: cannot be written ({error}); name a file in a folder that exists") from error


def sample_line(sample: Sample, index: int, folder: Path) -> bytes:
    """The line that stands for a sample in a samples file that is in `folder`; see `write_samples` for the errors."""
    if not isinstance(sample, Sample):
        raise InvalidSampleError(f"samples[{index}] must be a Sample, not {kind(sample)}")
    if not isinstance(sample.image, str | os.PathLike):
        raise InvalidSampleError(
            f"samples[{index}]: the image is in memory ({type(sample.image).__name__}); save it and give its path"
        )
    record = {
        "image": relative_path(canonical(Path(sample.image)), folder),
        "description": sample.description,
        "subject": sample.subject,
        "trajectory": None if sample.trajectory is None else _fixations(sample.trajectory),
        "split": sample.split,
    }
    present = {name: value for name, value in record.items() if value is not None}
    try:
        return json.dumps(present, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise InvalidSampleError(
            f"samples[{index}]: the image path {record['image']!r} is not Unicode; rename the file"
        ) from error


def _fixations(trajectory: Trajectory) -> list[dict[str, Any]]:
    return [{"box": fixation.box, "duration": fixation.duration} for fixation in trajectory]
