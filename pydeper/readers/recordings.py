"""Recordings of the capture page -> samples: raw points become fixations, here as with every other reader."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pydeper.errors import InvalidSampleError
from pydeper.gaze import MIN_BOX, FixationMethod, find_fixations
from pydeper.images import ImageLike
from pydeper.readers.image_folder import ImageFolder
from pydeper.readers.journal_lines import Line, Recording, SessionLine, SkipLine, from_record, parse_line
from pydeper.readers.localized_narratives import POINTER_STOPS
from pydeper.readers.records import json_lines
from pydeper.readers.stream import ReadReport, SampleStream, Tolerance, stream
from pydeper.readers.trajectories import Outside, Without, bring_inside, one_of, trajectory_of
from pydeper.samples.sample import Sample

MAX_GAP = 0.5
"""The longest time between two points of one fixation, in seconds: the page records a point for every frame."""

_Record: TypeAlias = Recording | InvalidSampleError


def read_recordings(
    path: str | os.PathLike[str],
    method: FixationMethod | None = None,
    *,
    images: str | os.PathLike[str] | None = None,
    min_box: float = MIN_BOX,
    outside: Outside = "clip",
    without_trajectory: Without = "keep",
    tolerance: Tolerance = Tolerance(),  # noqa: B008 - frozen
) -> SampleStream:
    r"""Reads the journal of a capture page, such as ``ana.recordings.jsonl``.

    Only the last recording of each picture gives a sample; what it replaced, and what was skipped, is counted in the
    report, and so is a last line that was cut short when the page's server was killed.

    Args:
        path: The journal; see `pydeper.readers.journal_lines` for its format.
        method: How points become fixations; None: `IDT` as for the pointer of Localized Narratives.
        images: The folder of the pictures; None: the one that the journal names.
        min_box: Smallest side of a box, as a fraction of the picture's.
        outside: What becomes of points outside the picture.
        without_trajectory: Recordings without a fixation: "keep" as text, or "skip".
        tolerance: How many damaged lines and missing pictures are passed over; none, unless told.

    Returns:
        The samples, in the order in which they were recorded, and the report.

    Raises:
        InvalidArgumentError: An option is out of range.
        InvalidSampleError: The file cannot be read, does not begin with its session, or the folder is not there. While
            iterating: more than is tolerated is wrong; the message names file, line and field.

    Examples:
        >>> import json
        >>> from pathlib import Path
        >>> from pydeper import draw_scene
        >>> from pydeper.readers import read_recordings
        >>> draw_scene([]).save("star.png")
        >>> session = {
        ...     "kind": "session", "format_version": 1, "session": "s1", "subject": "ana",
        ...     "created": "2026-11-22T10:00:00Z", "images": ".", "settings": {}, "pictures": ["star.png"],
        ...     "pydeper_version": "0.1.0",
        ... }
        >>> recording = {
        ...     "kind": "recording", "picture": "star.png", "description": "A star.", "mode": "trace",
        ...     "points": [[0.4, 0.5, 0.0], [0.4, 0.5, 0.3]], "input": "mouse", "image_size": [336, 336],
        ...     "shown_size": [336, 336], "screen": [1920, 1080], "device_pixel_ratio": 1,
        ...     "started": "2026-11-22T10:00:05Z", "duration": 9.5, "blur": None, "radius": None, "attempt": "a1",
        ...     "page_version": "1",
        ... }
        >>> _ = Path("ana.recordings.jsonl").write_text(f"{json.dumps(session)}\n{json.dumps(recording)}\n")
        >>> [(sample.subject, sample.description) for sample in read_recordings("ana.recordings.jsonl")]
        [('ana', 'A star.')]
    """
    one_of("outside", outside, ("clip", "drop"))
    one_of("without_trajectory", without_trajectory, ("skip", "keep"))
    path = Path(path)
    report = ReadReport(str(path))
    lines = _parsed(path, report)
    if not lines or not isinstance(session := lines[0][1], SessionLine):
        problem = f" ({lines[0][1]})" if lines and isinstance(lines[0][1], InvalidSampleError) else ""
        raise InvalidSampleError(
            f"{path}: does not begin with the line of a session{problem}; name a journal that `pydeper capture` wrote"
        )
    folder = ImageFolder(path.parent / session.images if images is None else images)

    def read(record: _Record, place: str) -> Sample:
        if isinstance(record, InvalidSampleError):
            raise record
        return _sample(
            record,
            folder.find(str(record.picture)),
            session.subject,
            place,
            report,
            method=method,
            min_box=min_box,
            outside=outside,
            without_trajectory=without_trajectory,
        )

    return stream(_last_of_each(lines, report), read, report, tolerance)


def sample_from_recording(
    recording: Mapping[str, Any] | Recording,
    image: ImageLike,
    method: FixationMethod | None = None,
    *,
    subject: str | None = None,
    min_box: float = MIN_BOX,
    outside: Outside = "clip",
) -> Sample:
    """Makes a sample of one recording, such as an app receives from the element ``<pydeper-capture>``.

    Args:
        recording: The detail of the element's event ``pydeper-done``, with the fields of
            `pydeper.readers.journal_lines.Recording`.
        image: The picture that was shown.
        method: How points become fixations; None: `IDT` as for the pointer of Localized Narratives.
        subject: Who was recorded.
        min_box: Smallest side of a box, as a fraction of the picture's.
        outside: What becomes of points outside the picture.

    Returns:
        The sample; without a trajectory where the points hold no fixation.

    Raises:
        InvalidSampleError: A field (named) is missing, unknown or does not hold what it promises.
        InvalidArgumentError: An option is out of range.

    Examples:
        >>> from pydeper import demo_image
        >>> from pydeper.readers import sample_from_recording
        >>> recording = {
        ...     "description": "A green cross.", "points": [[0.4, 0.5, 0.0], [0.4, 0.5, 0.3]], "mode": "trace",
        ...     "input": "mouse", "image_size": [336, 336], "shown_size": [336, 336], "screen": [1920, 1080],
        ...     "device_pixel_ratio": 1, "started": "2026-11-22T10:00:05Z", "duration": 9.5, "blur": None,
        ...     "radius": None, "attempt": "a1",
        ... }
        >>> sample_from_recording(recording, demo_image(), subject="ana").trajectory.durations
        array([0.3], dtype=float32)
    """
    one_of("outside", outside, ("clip", "drop"))
    if isinstance(recording, Mapping):
        recording = from_record(Recording, {name: value for name, value in recording.items() if name != "kind"})
    elif not isinstance(recording, Recording):
        raise InvalidSampleError(f"a recording must be an object of fields, not {type(recording).__name__}")
    return _sample(
        recording, image, subject, None, ReadReport("recording"), method=method, min_box=min_box, outside=outside
    )


def _sample(
    recording: Recording,
    image: ImageLike,
    subject: str | None,
    place: str | None,
    report: ReadReport,
    *,
    method: FixationMethod | None,
    min_box: float,
    outside: Outside,
    without_trajectory: Without = "keep",
) -> Sample:
    # The times are seconds by the format, and milliseconds would hold no fixation, every frame being a gap. So a
    # person who rests on one spot for longer than fixations of the eyes last is taken at their word.
    table = np.array(recording.points, dtype=np.float64).reshape(-1, 3)  # None becomes NaN
    settled = bring_inside(table[:, :2], outside, report, place or "")
    fixations = find_fixations(
        settled,
        table[:, 2],
        POINTER_STOPS if method is None else method,
        min_box=min_box,
        max_gap=MAX_GAP,
        check_durations=False,
    )
    return Sample(
        image=image,
        description=recording.description,
        trajectory=trajectory_of(fixations, without_trajectory, report, place or "", check_durations=False),
        subject=subject,
        source=place,
    )


def _parsed(path: Path, report: ReadReport) -> list[tuple[str, Line | InvalidSampleError]]:
    """Each line of the journal, or what is wrong with it."""
    lines: list[tuple[str, Line | InvalidSampleError]] = []
    for place, line in json_lines(path):
        try:
            lines.append((place, parse_line(line)))
        except InvalidSampleError as error:
            if line.endswith(b"\n"):
                lines.append((place, error))
            else:
                report.pass_over("cut short while it was written", place)
    return lines


def _last_of_each(lines: list[tuple[str, Line | InvalidSampleError]], report: ReadReport) -> list[tuple[str, _Record]]:
    """The damaged lines, and the last recording of each picture."""
    last: dict[str, int] = {
        str(line.picture): i for i, (_, line) in enumerate(lines) if isinstance(line, Recording | SkipLine)
    }
    records: list[tuple[str, _Record]] = []
    for i, (place, line) in enumerate(lines):
        if isinstance(line, InvalidSampleError) or (isinstance(line, Recording) and last[str(line.picture)] == i):
            records.append((place, line))
        elif isinstance(line, Recording):
            report.pass_over("replaced by a later line", place)
        elif isinstance(line, SkipLine) and last[line.picture] == i:
            report.pass_over("skipped by the person", place)
    return records
