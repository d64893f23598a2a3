"""Raw gaze or pointer points -> fixations: where somebody stopped to look, and for how long.

Two ways, each a small class: `IDT`, which finds the stops (the dispersion-threshold identification of Salvucci and
Goldberg, 2000), and `FixedWindows`, which cuts time into equal pieces. How the paper made its boxes of mouse traces is
not published; here a box is the bounding box of the points.

    >>> trajectory_from_points(points, times, IDT(dispersion=0.05))
"""

import collections
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.samples.boxes import MIN_BOX, box_around
from pydeper.samples.durations import LONGEST, likely_unit
from pydeper.samples.trajectory import Fixation, Trajectory

__all__ = [
    "IDT",
    "MIN_BOX",
    "FixationMethod",
    "FixedWindows",
    "Points",
    "PointsLike",
    "box_around",
    "find_fixations",
    "trajectory_from_points",
]

Points: TypeAlias = NDArray[np.float64]
PointsLike: TypeAlias = ArrayLike | Sequence[Sequence[float] | None]


def _positive(_: object, field: "attrs.Attribute[float]", value: float) -> None:
    if not value > 0:
        raise InvalidArgumentError(f"{field.name} must be above 0, not {value!r}")


class FixationMethod(Protocol):
    """How points without gaps become fixations."""

    def stops(self, points: Points, times: NDArray[np.float64]) -> Iterator[tuple[slice, float]]:
        """Gives each stop's points as a slice and its duration in seconds (above 0), in their order.

        Args:
            points: (N, 2), N ≥ 1, finite.
            times: (N,) seconds, never decreasing.
        """
        ...


@attrs.frozen
class IDT:
    """Identification by dispersion threshold: a stop is a stretch of points that stay close together for long enough.

    Dispersion is (max x - min x) + (max y - min y). From the first point that is left, the longest stretch whose
    dispersion does not exceed the threshold is taken; if it lasts `min_duration` or longer (last time - first time),
    it is a stop and the search goes on behind it, else it goes on one point later. The point that breaks the threshold
    belongs to what follows.

    Attributes:
        dispersion: Largest dispersion of a stop, in fractions of the image's sides.
        min_duration: Shortest stop, in seconds.

    Examples:
        >>> from pydeper.gaze import IDT, trajectory_from_points
        >>> points = [(0.2, 0.3), (0.21, 0.3), (0.2, 0.31), (0.7, 0.6), (0.71, 0.6)]
        >>> looked = trajectory_from_points(points, [0.0, 0.1, 0.2, 0.3, 0.5], IDT(dispersion=0.05, min_duration=0.1))
        >>> [fixation.duration for fixation in looked]
        [0.2, 0.2]
    """

    dispersion: float = attrs.field(default=0.05, validator=_positive)
    min_duration: float = attrs.field(default=0.1, validator=_positive)

    def stops(self, points: Points, times: NDArray[np.float64]) -> Iterator[tuple[slice, float]]:
        """See `FixationMethod`; linear in the number of points.

        Examples:
            >>> import numpy as np
            >>> from pydeper.gaze import IDT
            >>> points = np.array([(0.2, 0.3), (0.21, 0.3), (0.7, 0.6), (0.71, 0.6)])
            >>> list(IDT().stops(points, np.array([0.0, 0.5, 1.0, 1.25])))
            [(slice(0, 2, None), 0.5), (slice(2, 4, None), 0.25)]
        """
        ends = _reach(points, self.dispersion)
        clock = times.tolist()
        start = 0
        while start < len(ends):
            duration = clock[ends[start] - 1] - clock[start]
            if duration >= self.min_duration:
                yield slice(start, ends[start]), duration
                start = ends[start]
            else:
                start += 1


def _reach(points: Points, dispersion: float) -> list[int]:
    """For each point, the end (exclusive) of the longest stretch from it on that stays within the dispersion."""
    # One queue for each of the four extremes, its values falling: the first is the largest of the stretch.
    signed = [(x, -x, y, -y) for x, y in points.tolist()]
    queues: list[collections.deque[int]] = [collections.deque() for _ in range(4)]
    ends = []
    end = 0
    for start in range(len(signed)):
        while end < len(signed):
            largest = [
                max(signed[end][i], signed[queue[0]][i]) if queue else signed[end][i] for i, queue in enumerate(queues)
            ]
            if sum(largest) > dispersion:
                break
            for i, queue in enumerate(queues):
                while queue and signed[queue[-1]][i] <= signed[end][i]:
                    queue.pop()
                queue.append(end)
            end += 1
        ends.append(end)
        for queue in queues:
            if queue[0] == start:
                queue.popleft()
    return ends


@attrs.frozen
class FixedWindows:
    """Equal pieces of time; within one, whatever was looked at is one fixation.

    A point holds until the next one, so a pointer that rests without reporting points is where it was. The last piece
    is as long as what is left; a single point lasts no time and makes no fixation.

    Attributes:
        duration: Length of a piece, in seconds.

    Examples:
        >>> from pydeper.gaze import FixedWindows, trajectory_from_points
        >>> points = [(0.2, 0.3), (0.21, 0.3), (0.7, 0.6), (0.71, 0.6)]
        >>> looked = trajectory_from_points(points, [0.0, 0.5, 1.0, 1.25], FixedWindows(duration=0.5))
        >>> [fixation.duration for fixation in looked]
        [0.5, 0.5, 0.25]
    """

    duration: float = attrs.field(default=0.4, validator=_positive)

    def stops(self, points: Points, times: NDArray[np.float64]) -> Iterator[tuple[slice, float]]:
        """See `FixationMethod`.

        Examples:
            >>> import numpy as np
            >>> from pydeper.gaze import FixedWindows
            >>> points = np.array([(0.2, 0.3), (0.21, 0.3), (0.7, 0.6), (0.71, 0.6)])
            >>> list(FixedWindows(duration=0.5).stops(points, np.array([0.0, 0.5, 1.0, 1.25])))
            [(slice(0, 1, None), 0.5), (slice(1, 2, None), 0.5), (slice(2, 4, None), 0.25)]
        """
        begin, end = float(times[0]), float(times[-1])
        for left in begin + self.duration * np.arange(np.ceil((end - begin) / self.duration)):
            right = min(float(left) + self.duration, end)
            if right > left:
                first = int(np.searchsorted(times, left, side="right")) - 1
                last = int(np.searchsorted(times, right, side="right" if right == end else "left"))
                yield slice(first, last), right - float(left)


def find_fixations(
    points: PointsLike,
    times: ArrayLike,
    method: FixationMethod | None = None,
    *,
    min_box: float = MIN_BOX,
    max_gap: float | None = None,
    check_durations: bool = True,
) -> list[Fixation]:
    """Turns points into fixations.

    A fixation's box is the bounding box of its points, grown about its centre to `min_box` where it is smaller, and
    clipped to the image. Nothing spans a gap: a missing point, or more than `max_gap` seconds between two.

    Args:
        points: (N, 2) x and y as fractions of the upright image, from the top left; None or NaN where one is missing.
            They may lie outside [0, 1]; a fixation whose box does so altogether is left out.
        times: (N,) seconds from any origin, never decreasing.
        method: `IDT` (with its defaults where None) or `FixedWindows`.
        min_box: Smallest side of a box, in (0, 1].
        max_gap: Longest time between two points that belong together, in seconds; None: any, as for a pointer, which
            reports no points while it rests.
        check_durations: Whether to refuse times that cannot be seconds: the median time from one of three or more
            points to the next is above 10 s.

    Returns:
        Any number of fixations, in their order.

    Raises:
        InvalidArgumentError: `min_box` or `max_gap` is out of range.
        InvalidSampleError: The shapes do not fit, something is not a number, time is missing or goes backwards, or
            times cannot be seconds.

    Examples:
        >>> from pydeper.gaze import find_fixations
        >>> points = [(0.25, 0.5), (0.25, 0.5), None, (0.75, 0.5), (0.75, 0.5)]
        >>> for fixation in find_fixations(points, [0.0, 0.25, 0.5, 0.75, 1.25], min_box=0.125):
        ...     print(fixation.box, fixation.duration)
        (0.1875, 0.4375, 0.3125, 0.5625) 0.25
        (0.6875, 0.4375, 0.8125, 0.5625) 0.5
    """
    if not 0 < min_box <= 1:
        raise InvalidArgumentError(f"min_box must be in (0, 1], not {min_box!r}")
    if max_gap is not None and not max_gap > 0:
        raise InvalidArgumentError(f"max_gap must be above 0 seconds, not {max_gap!r}; None allows any")
    method = IDT() if method is None else method
    where, when = _points(points), _times(times)
    if len(where) != len(when):
        raise InvalidSampleError(f"there are {len(where)} points and {len(when)} times; give one time a point")
    if check_durations:
        _check_pace(when)
    fixations = []
    for run in _runs(where, when, max_gap):
        for stop, duration in method.stops(where[run], when[run]):
            stretch = where[run][stop]
            box = box_around(stretch.min(axis=0).tolist(), stretch.max(axis=0).tolist(), min_box)
            if box is not None:
                fixations.append(Fixation(box, duration))
    return fixations


def trajectory_from_points(
    points: PointsLike,
    times: ArrayLike,
    method: FixationMethod | None = None,
    *,
    min_box: float = MIN_BOX,
    max_gap: float | None = None,
    check_durations: bool = True,
) -> Trajectory:
    """Turns points into a trajectory; the arguments and errors are those of `find_fixations`.

    Raises:
        InvalidSampleError: Also where there is no fixation, and, with `check_durations`, where the fixations' median
            duration is no fixation's (see `Trajectory`).

    Examples:
        >>> from pydeper.gaze import trajectory_from_points
        >>> looked = trajectory_from_points([(0.2, 0.3), (0.21, 0.3), (0.7, 0.6), (0.71, 0.6)], [0.0, 0.5, 1.0, 1.25])
        >>> [fixation.duration for fixation in looked]
        [0.5, 0.25]
    """
    fixations = find_fixations(points, times, method, min_box=min_box, max_gap=max_gap, check_durations=check_durations)
    if not fixations:
        raise InvalidSampleError(
            f"{len(_times(times))} points hold no fixation; check that times are seconds and points fractions of the "
            "image, or choose a larger dispersion or a shorter min_duration"
        )
    return Trajectory(fixations, check_durations=check_durations)


def _points(points: Any) -> Points:
    if isinstance(points, Sequence):
        points = [(np.nan, np.nan) if point is None else point for point in points]
    array = _float_array(points, "points")
    array = array.reshape(0, 2) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 2:
        raise InvalidSampleError(f"points of shape {array.shape} are not (N, 2); give x and y of each")
    return array


def _times(times: ArrayLike) -> NDArray[np.float64]:
    array = _float_array(times, "times")
    if array.ndim != 1:
        raise InvalidSampleError(f"times of shape {array.shape} are not (N,); give one number a point")
    if not np.isfinite(array).all():
        raise InvalidSampleError(f"times[{int(np.argmin(np.isfinite(array)))}] is not a finite number; give seconds")
    if (back := np.flatnonzero(np.diff(array) < 0)).size:
        i = int(back[0]) + 1
        raise InvalidSampleError(f"times[{i}] goes backwards, from {array[i - 1]} to {array[i]}; sort the points")
    return array


def _check_pace(times: NDArray[np.float64]) -> None:
    if len(times) < 3 or (step := float(np.median(np.diff(times)))) <= LONGEST:
        return
    raise InvalidSampleError(
        f"from one point to the next {step:g} s pass (median), so no fixation can be found; times look like "
        f"{likely_unit(10 * step) or 'another unit'}: give seconds, or say check_durations=False where they are meant"
    )


def _float_array(values: Any, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values)
        if array.size and array.dtype.kind not in "fiuO":
            raise TypeError(f"{array.dtype}")
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidSampleError(f"{name} is not a rectangular array of numbers ({error})") from error


def _runs(points: Points, times: NDArray[np.float64], max_gap: float | None) -> Iterator[slice]:
    """The stretches of points without a gap."""
    present: NDArray[np.bool_] = np.isfinite(points[:, 0]) & np.isfinite(points[:, 1])
    joined = present[1:] & present[:-1]
    if max_gap is not None:
        joined &= np.diff(times) <= max_gap
    borders = [0, *(np.flatnonzero(~joined) + 1).tolist(), len(points)]
    for start, end in itertools.pairwise(borders):
        if start < end and present[start]:
            yield slice(start, end)
