"""How somebody looked at an image: fixations in their order (the paper's T, b_i and τ_i)."""

import math
import numbers
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.samples.boxes import MIN_BOX, Box, box_around
from pydeper.samples.durations import likely_unit, why_implausible

MAX_DURATION = 3600.0
"""The longest fixation taken, in seconds: an hour is a mistaken unit, not a fixation."""

_BOX_FORM = "a box is (x1, y1, x2, y2): left, top, right, bottom, as fractions of the upright image"
_POINT_FORM = "a point is x from the left and y from the top, as fractions of the upright image"


def _number(value: object, name: str, remedy: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidSampleError(f"{name} must be a number, not {type(value).__name__} {reprlib.repr(value)}; {remedy}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _four_numbers(value: Sequence[float] | NDArray[np.floating]) -> Box:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidSampleError(
            f"box must be 4 numbers, not {type(value).__name__} {reprlib.repr(value)}; {_BOX_FORM}"
        )
    if len(value) != 4:
        raise InvalidSampleError(f"box must be 4 numbers, not {len(value)}: {reprlib.repr(value)}; {_BOX_FORM}")
    x1, y1, x2, y2 = (_number(number, f"box[{i}]", _BOX_FORM) for i, number in enumerate(value))
    return x1, y1, x2, y2


def _to_box(value: Sequence[float] | NDArray[np.floating]) -> Box:
    box = x1, y1, x2, y2 = _four_numbers(value)
    if not all(0 <= number <= 1 for number in box):
        raise InvalidSampleError(
            f"box {box} leaves [0, 1]; {_BOX_FORM} (divide pixels by its width and height, and clip what lies outside: "
            "Fixation.clipped)"
        )
    if not (x1 < x2 and y1 < y2):
        raise InvalidSampleError(f"box {box} has no area: x1 must be below x2 and y1 below y2; {_BOX_FORM}")
    return box


def _clipped(value: Sequence[float] | NDArray[np.floating]) -> Box:
    box = x1, y1, x2, y2 = _four_numbers(value)
    if not (x1 < x2 and y1 < y2):
        raise InvalidSampleError(f"box {box} has no area: x1 must be below x2 and y1 below y2; {_BOX_FORM}")
    if not (x1 < 1 and y1 < 1 and x2 > 0 and y2 > 0):
        raise InvalidSampleError(f"box {box} lies outside the image altogether; leave the fixation out; {_BOX_FORM}")
    return max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0)


def _to_duration(value: float) -> float:
    duration = _number(value, "duration", "give seconds")
    if not 0 < duration <= MAX_DURATION:
        unit = likely_unit(duration)
        looks = f", and this looks like {unit}" if duration > MAX_DURATION and unit else ""
        raise InvalidSampleError(
            f"duration {duration} is not within (0, {MAX_DURATION:.0f}] seconds; give seconds{looks}"
        )
    return duration


@attrs.frozen
class Fixation:
    """One stop of the eyes: where, and for how long (the paper's b_i and τ_i).

    Attributes:
        box: (x1, y1, x2, y2), left, top, right and bottom as fractions of the upright image; 0 ≤ x1 < x2 ≤ 1 and
            0 ≤ y1 < y2 ≤ 1.
        duration: Seconds, above 0 and at most `MAX_DURATION`.

    Raises:
        InvalidSampleError: A value is not a number, or out of these ranges.

    Examples:
        >>> from pydeper import Fixation
        >>> Fixation(box=(0.1, 0.2, 0.4, 0.6), duration=0.31)
        Fixation(box=(0.1, 0.2, 0.4, 0.6), duration=0.31)
    """

    box: Box = attrs.field(converter=_to_box)
    duration: float = attrs.field(converter=_to_duration)

    @classmethod
    def at(cls, x: float, y: float, duration: float, size: float | tuple[float, float] = MIN_BOX) -> "Fixation":
        """Makes a fixation of the point that was looked at: a box around it, clipped to the image.

        Args:
            x: From the left, as a fraction of the upright image's width, in [0, 1].
            y: From the top, as a fraction of its height, in [0, 1].
            duration: Seconds.
            size: Width and height of the box, as fractions of the image's, in (0, 1]; one number for both, or two.

        Raises:
            InvalidSampleError: A value is not a number or out of its range.
            InvalidArgumentError: `size` is.

        Examples:
            >>> from pydeper import Fixation
            >>> Fixation.at(0.5, 0.25, duration=0.31, size=0.25)
            Fixation(box=(0.375, 0.125, 0.625, 0.375), duration=0.31)
        """
        point = (_number(x, "x", _POINT_FORM), _number(y, "y", _POINT_FORM))
        if not all(0 <= value <= 1 for value in point):
            raise InvalidSampleError(f"the point {point} lies outside the image; {_POINT_FORM}")
        sizes = (size, size) if isinstance(size, numbers.Real) else size
        try:
            width, height = (float(value) for value in sizes)  # type: ignore[union-attr]
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(f"size must be one number or two, not {reprlib.repr(size)}") from error
        if not (0 < width <= 1 and 0 < height <= 1):
            raise InvalidArgumentError(f"size must be within (0, 1], fractions of the image, not {size!r}")
        box = box_around(point, point, (width, height))
        assert box is not None  # its centre is inside
        return cls(box, duration)

    @classmethod
    def clipped(cls, box: Sequence[float], duration: float) -> "Fixation":
        """Makes a fixation of a box that may leave the image: what lies outside is cut off.

        Args:
            box: (x1, y1, x2, y2) as fractions of the upright image, x1 < x2 and y1 < y2.
            duration: Seconds.

        Raises:
            InvalidSampleError: No part of the box lies inside the image, or a value is not valid.

        Examples:
            >>> from pydeper import Fixation
            >>> Fixation.clipped((-0.1, 0.2, 0.3, 0.4), duration=0.31)
            Fixation(box=(0.0, 0.2, 0.3, 0.4), duration=0.31)
        """
        return cls(_clipped(box), duration)


def _to_fixations(value: Iterable[Fixation]) -> tuple[Fixation, ...]:
    try:
        fixations = tuple(value)
    except TypeError as error:
        raise InvalidSampleError(f"fixations must be a sequence of Fixation, not {type(value).__name__}") from error
    for i, fixation in enumerate(fixations):
        if not isinstance(fixation, Fixation):
            raise InvalidSampleError(
                f"fixations[{i}] is not a Fixation but {type(fixation).__name__} {reprlib.repr(fixation)}; "
                "write Fixation(box=…, duration=…), or use Trajectory.from_arrays"
            )
    if not fixations:
        raise InvalidSampleError("a trajectory has at least one fixation; where none was recorded, leave it out (None)")
    return fixations


@attrs.frozen
class Trajectory:
    """How somebody looked at an image: fixations in the order they happened (the paper's T).

    It may be of any length; a model reads the first `max_fixations` of its config (30 in the paper) and no more.

    Durations in milliseconds are the usual mistake, and nothing later would show it. So a trajectory is refused whose
    median fixation lasts less than 0.01 s or more than 10 s, unless you say that it is meant.

    Attributes:
        fixations: One or more `Fixation`.
        check_durations: Whether to refuse durations that cannot be seconds; False where they are meant. Comparisons
            ignore it.

    Raises:
        InvalidSampleError: There is no fixation, or something that is none, or the median duration is no fixation's.

    Examples:
        >>> from pydeper import Fixation, Trajectory
        >>> looked = Trajectory([Fixation.at(0.3, 0.4, duration=0.25), Fixation.at(0.7, 0.6, duration=0.4)])
        >>> [fixation.duration for fixation in looked]
        [0.25, 0.4]
    """

    fixations: tuple[Fixation, ...] = attrs.field(converter=_to_fixations)
    check_durations: bool = attrs.field(default=True, kw_only=True, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.check_durations and (problem := why_implausible([look.duration for look in self.fixations])):
            raise InvalidSampleError(problem)

    @classmethod
    def from_arrays(
        cls, boxes: ArrayLike, durations: ArrayLike, *, clip: bool = False, check_durations: bool = True
    ) -> "Trajectory":
        """Builds a trajectory from boxes (M, 4), as in `Fixation.box`, and durations (M,) in seconds, M ≥ 1.

        Args:
            boxes: (x1, y1, x2, y2) of each fixation, as fractions of the upright image.
            durations: Seconds.
            clip: Whether boxes may leave the image, and are then clipped to it (see `Fixation.clipped`).
            check_durations: As in `Trajectory`.

        Raises:
            InvalidSampleError: The shapes do not fit, a fixation (named by its index) is not valid, or the median
                duration is no fixation's.

        Examples:
            >>> from pydeper import Trajectory
            >>> looked = Trajectory.from_arrays([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.7, 0.8]], [0.25, 0.5])
            >>> len(looked)
            2
        """
        box_array, duration_array = _numeric_array(boxes, "boxes"), _numeric_array(durations, "durations")
        if box_array.ndim != 2 or box_array.shape[1] != 4 or duration_array.shape != box_array.shape[:1]:
            raise InvalidSampleError(
                f"boxes of shape {box_array.shape} and durations of shape {duration_array.shape} do not fit; "
                "give (M, 4) and (M,)"
            )
        fixations = []
        for i, (box, duration) in enumerate(zip(box_array.tolist(), duration_array.tolist(), strict=True)):
            try:
                fixations.append(Fixation.clipped(box, duration) if clip else Fixation(box, duration))
            except InvalidSampleError as error:
                raise InvalidSampleError(f"fixation {i}: {error}") from None
        return cls(fixations, check_durations=check_durations)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """The boxes as a new array (M, 4).

        Examples:
            >>> from pydeper import Trajectory
            >>> Trajectory.from_arrays([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.7, 0.8]], [0.25, 0.5]).boxes
            array([[0.1, 0.2, 0.3, 0.4],
                   [0.5, 0.5, 0.7, 0.8]], dtype=float32)
        """
        return np.array([fixation.box for fixation in self.fixations], dtype=np.float32)

    @property
    def durations(self) -> NDArray[np.float32]:
        """The durations in seconds as a new array (M,).

        Examples:
            >>> from pydeper import Trajectory
            >>> Trajectory.from_arrays([[0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.7, 0.8]], [0.25, 0.5]).durations
            array([0.25, 0.5 ], dtype=float32)
        """
        return np.array([fixation.duration for fixation in self.fixations], dtype=np.float32)

    def __len__(self) -> int:
        return len(self.fixations)

    def __iter__(self) -> Iterator[Fixation]:
        return iter(self.fixations)


def _numeric_array(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InvalidSampleError(f"{name} is not a rectangular array of numbers ({error})") from error
    if array.dtype.kind not in "fiu":
        raise InvalidSampleError(f"{name} must hold numbers, not {array.dtype} (shape {array.shape})")
    return array
