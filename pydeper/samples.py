"""Samples of one person: an image, what the person said about it, and how they looked at it (the paper's I, D, T)."""

import math
import numbers
import os
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pydeper import images
from pydeper.errors import InvalidImageError, InvalidSampleError
from pydeper.images import ImageLike

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


def _is_image(_sample: object, _field: object, value: Any) -> None:
    if not isinstance(value, str | bytes | os.PathLike | Image.Image | np.ndarray):
        raise InvalidSampleError(
            f"image must be a path, bytes, a PIL image or an H×W×3 uint8 array, not {type(value).__name__}"
        )
    if isinstance(value, str) and not value:
        raise InvalidSampleError("image is an empty path; give the path of an image file")


def _is_text(_sample: object, field: "attrs.Attribute[str]", value: object) -> None:
    if not isinstance(value, str):
        raise InvalidSampleError(
            f"{field.name} must be text, not {type(value).__name__} {reprlib.repr(value)}; "
            "leave it out (None) where there is none"
        )
    if not value.strip():
        raise InvalidSampleError(f"{field.name} is empty ({value[:20]!r}); leave it out (None) where there is none")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidSampleError(
            f"{field.name} holds half a surrogate pair at character {error.start}, which is no text; "
            "decode it again from its original bytes"
        ) from error


def _is_trajectory(_sample: object, _field: object, value: Any) -> None:
    if not isinstance(value, Trajectory):
        raise InvalidSampleError(
            f"trajectory must be a Trajectory, not {type(value).__name__}; use Trajectory.from_arrays(boxes, durations)"
        )


def _comparable(image: ImageLike) -> object:
    match image:
        case Image.Image():
            return image.mode, image.size, image.tobytes()
        case np.ndarray():
            return image.dtype.str, image.shape, image.tobytes()
        case bytes():
            return image
        case _:
            return os.fspath(image)


@attrs.frozen
class Sample:
    """One image with one person's description of it, their trajectory over it, or both (the paper's triplet I, D, T).

    A sample is light: the image is only opened, and judged, by `open_image`. A sample may lack its description or its
    trajectory, not both. A description may be of any length; a model reads the first `max_description_tokens` tokens
    of its config (256 in the paper), as it does the first `max_fixations` of a trajectory.

    Attributes:
        image: A path, the bytes of an image file, a PIL image, or an (H, W, 3) uint8 RGB array.
        description: What the person said or wrote.
        trajectory: How they looked; its boxes refer to the upright image (EXIF orientation applied).
        subject: Who they are.
        split: The part of a data set the sample belongs to, such as "train".
        source: Where the sample came from, such as "ana.jsonl:3"; errors name it, comparisons ignore it.

    Raises:
        InvalidSampleError: A value has the wrong type, a text is empty, or description and trajectory are both missing.
    """

    image: ImageLike = attrs.field(validator=_is_image, eq=_comparable)
    description: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text))
    trajectory: Trajectory | None = attrs.field(default=None, validator=attrs.validators.optional(_is_trajectory))
    subject: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text))
    split: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text))
    source: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text), eq=False)

    def __attrs_post_init__(self) -> None:
        if self.description is None and self.trajectory is None:
            raise InvalidSampleError("description and trajectory are both missing; give at least one")

    def open_image(self) -> Image.Image:
        """Opens the image: upright, in RGB (see `pydeper.images.open_image`).

        Raises:
            InvalidImageError: It cannot be read; the message begins with the sample's `source`.
        """
        try:
            return images.open_image(self.image)
        except InvalidImageError as error:
            raise InvalidImageError(f"{self._place}{error}") from error

    def plot(self, path: str | os.PathLike[str] | None = None) -> Image.Image:
        """Draws the trajectory over the image (see `pydeper.overlay.draw_trajectory`).

        Args:
            path: where to save the picture as well, in the format of its suffix.

        Returns:
            An RGB picture of the image's size, or enlarged where the image is small.

        Raises:
            InvalidSampleError: The sample has no trajectory.
            InvalidImageError: The image cannot be read.
            InvalidArgumentError: `path` has a suffix that is no image format, or its folder does not exist.
        """
        from pydeper import overlay

        if self.trajectory is None:
            raise InvalidSampleError(f"{self._place}the sample has no trajectory to draw; give it one")
        picture = overlay.draw_trajectory(self.open_image(), self.trajectory)
        if path is not None:
            overlay.save_picture(picture, path)
        return picture

    @property
    def _place(self) -> str:
        return "" if self.source is None else f"{self.source}: "
