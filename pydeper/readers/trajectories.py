"""What readers of gaze decide alike: points outside the image, and records without a trajectory."""

from collections.abc import Iterable
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers.stream import PassedOver, ReadReport
from pydeper.samples.durations import why_implausible
from pydeper.samples.trajectory import Fixation, Trajectory

T = TypeVar("T")

Outside: TypeAlias = Literal["clip", "drop"]
"""What becomes of a point outside the image: moved to its edge, or left out as if it had not been recorded."""

Without: TypeAlias = Literal["skip", "keep"]
"""What becomes of a record that lacks its trajectory, or its description: passed over, or a sample of the other."""


def one_of(name: str, value: T, allowed: tuple[T, ...]) -> T:
    """Checks an argument that is a choice.

    Raises:
        InvalidArgumentError: It is none of those.
    """
    if value not in allowed:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    return value


_FAR = 10.0
"""No gaze at an image is further away, in sides of the image."""


def refuse_pixels(points: Iterable[tuple[float, float]]) -> None:
    """Checks that points may be fractions of an image.

    Raises:
        InvalidSampleError: Each of them is ten images away.
    """
    distances = [max(abs(x), abs(y)) for x, y in points]
    if distances and min(distances) > _FAR:
        raise InvalidSampleError(
            f"all positions lie far outside the image, read as fractions of it, from {min(distances):g} on; they look "
            "like pixels: say their units, or divide by the image's width and height"
        )


def bring_inside(points: NDArray[np.float64], outside: Outside, report: ReadReport, place: str) -> NDArray[np.float64]:
    """Deals with points (N, 2) outside [0, 1], and reports how many there were; NaN stays NaN."""
    away: NDArray[np.bool_] = np.any((points < 0) | (points > 1), axis=1)
    if not away.any():
        return points
    refuse_pixels((x, y) for x, y in points.tolist() if x == x and y == y)
    count = int(away.sum())
    if outside == "clip":
        report.change("points outside the image moved to its edge", place, count)
        return np.clip(points, 0.0, 1.0)
    report.change("points outside the image left out", place, count)
    return np.where(away[:, None], np.nan, points)


def trajectory_of(
    fixations: list[Fixation],
    without: Without,
    report: ReadReport,
    place: str,
    *,
    check_durations: bool,
    unit: str = "s",
) -> Trajectory | None:
    """The trajectory of a record's fixations, its durations (read as `unit`) checked as in `Trajectory`.

    Returns:
        None where there are none and such records are kept.

    Raises:
        PassedOver: There are none, and such records are skipped.
        InvalidSampleError: With `check_durations`, their median duration is no fixation's.
    """
    if fixations:
        if check_durations and (problem := why_implausible([look.duration for look in fixations], unit)):
            raise InvalidSampleError(problem)
        return Trajectory(fixations, check_durations=check_durations)
    if without == "skip":
        raise PassedOver("no fixation")
    report.change("samples without a trajectory", place)
    return None
