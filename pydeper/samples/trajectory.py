"""How somebody looked at an image: fixations in their order (the paper's T, b_i and τ_i)."""

import math
import numbers
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydeper.errors import InvalidSampleError

Box: TypeAlias = tuple[float, float, float, float]

MAX_DURATION = 3600.0
"""The longest fixation taken, in seconds: an hour is a mistaken unit, not a fixation."""

_BOX_FORM = "a box is (x1, y1, x2, y2): left, top, right, bottom, as fractions of the upright image"


def _number(value: object, name: str, remedy: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidSampleError(f"{name} must be a number, not {type(value).__name__} {reprlib.repr(value)}; {remedy}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _to_box(value: Sequence[float] | NDArray[np.floating]) -> Box:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise InvalidSampleError(
            f"box must be 4 numbers, not {type(value).__name__} {reprlib.repr(value)}; {_BOX_FORM}"
        )
    if len(value) != 4:
        raise InvalidSampleError(f"box must be 4 numbers, not {len(value)}: {reprlib.repr(value)}; {_BOX_FORM}")
    x1, y1, x2, y2 = (_number(number, f"box[{i}]", _BOX_FORM) for i, number in enumerate(value))
    box = (x1, y1, x2, y2)
    if not all(0 <= number <= 1 for number in box):
        raise InvalidSampleError(
            f"box {box} leaves [0, 1]; {_BOX_FORM} (divide pixels by its width and height, and clip what lies outside)"
        )
    if not (x1 < x2 and y1 < y2):
        raise InvalidSampleError(f"box {box} has no area: x1 must be below x2 and y1 below y2; {_BOX_FORM}")
    return box


def _to_duration(value: float) -> float:
    duration = _number(value, "duration", "give seconds")
    if not 0 < duration <= MAX_DURATION:
        raise InvalidSampleError(f"duration {duration} is not within (0, {MAX_DURATION:.0f}] seconds; give seconds")
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
    """

    box: Box = attrs.field(converter=_to_box)
    duration: float = attrs.field(converter=_to_duration)


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

    Attributes:
        fixations: One or more `Fixation`.

    Raises:
        InvalidSampleError: There is no fixation, or something that is none.
    """

    fixations: tuple[Fixation, ...] = attrs.field(converter=_to_fixations)

    @classmethod
    def from_arrays(cls, boxes: ArrayLike, durations: ArrayLike) -> "Trajectory":
        """Builds a trajectory from boxes (M, 4), as in `Fixation.box`, and durations (M,) in seconds, M ≥ 1.

        Raises:
            InvalidSampleError: The shapes do not fit, or a fixation (named by its index) is not valid.
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
                fixations.append(Fixation(box, duration))
            except InvalidSampleError as error:
                raise InvalidSampleError(f"fixation {i}: {error}") from None
        return cls(fixations)

    @property
    def boxes(self) -> NDArray[np.float32]:
        """The boxes as a new array (M, 4)."""
        return np.array([fixation.box for fixation in self.fixations], dtype=np.float32)

    @property
    def durations(self) -> NDArray[np.float32]:
        """The durations in seconds as a new array (M,)."""
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
