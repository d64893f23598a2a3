"""A sample: an image, what one person said about it, and how they looked at it (the paper's I, D, T)."""

import os
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from PIL import Image

from pydeper import images
from pydeper.errors import InvalidArgumentError, InvalidImageError, InvalidSampleError
from pydeper.files.atomic import check_output
from pydeper.images import ImageLike
from pydeper.samples import overlay
from pydeper.samples.trajectory import Trajectory


def _held(image: Any) -> Any:
    """A file that is open now is read now: its owner may close it, and a sample compares by what it holds."""
    if not images.is_file_object(image):
        return image
    try:
        return images.file_bytes(image)
    except InvalidImageError as error:
        raise InvalidSampleError(str(error)) from error


def _composed(subject: Any) -> Any:
    """One person has one name, however its letters are composed: Unicode's NFC, as most programs write them."""
    return unicodedata.normalize("NFC", subject) if isinstance(subject, str) else subject


def _is_image(_sample: object, _field: object, value: Any) -> None:
    if not isinstance(value, str | bytes | os.PathLike | Image.Image | np.ndarray):
        raise InvalidSampleError(
            "image must be a path, bytes, a binary file, a PIL image or an H×W×3 uint8 array, "
            f"not {type(value).__name__}"
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
        case str() | os.PathLike():
            return os.fspath(image)
        case _:
            return image


@attrs.frozen
class Sample:
    """One image with one person's description of it, their trajectory over it, or both (the paper's triplet I, D, T).

    A sample is light: the image is only opened, and judged, by `open_image`. A sample may lack its description or its
    trajectory, not both. A description may be of any length; a model reads the first `max_description_tokens` tokens
    of its config (256 in the paper), as it does the first `max_fixations` of a trajectory.

    Attributes:
        image: A path, the bytes of an image file, a PIL image, or an (H, W, 3) uint8 RGB array. Of a file that is open
            in binary mode (such as `io.BytesIO`), the bytes are taken.
        description: What the person said or wrote.
        trajectory: How they looked; its boxes refer to the upright image (EXIF orientation applied).
        subject: Who they are; letters are composed (Unicode's NFC), so that one name is one person.
        split: The part of a data set the sample belongs to, such as "train".
        source: Where the sample came from, such as "ana.jsonl:3"; errors name it, comparisons ignore it.

    Raises:
        InvalidSampleError: A value has the wrong type, a text is empty, or description and trajectory are both missing.

    Examples:
        >>> from pydeper import Fixation, Sample, Trajectory, demo_image
        >>> looked = Trajectory([Fixation.at(0.3, 0.4, duration=0.25), Fixation.at(0.7, 0.6, duration=0.4)])
        >>> sample = Sample(demo_image(), "I can see a green cross.", looked, subject="ana")
        >>> len(sample.trajectory)
        2
    """

    image: ImageLike = attrs.field(converter=_held, validator=_is_image, eq=_comparable)
    description: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text))
    trajectory: Trajectory | None = attrs.field(default=None, validator=attrs.validators.optional(_is_trajectory))
    subject: str | None = attrs.field(default=None, converter=_composed, validator=attrs.validators.optional(_is_text))
    split: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text))
    source: str | None = attrs.field(default=None, validator=attrs.validators.optional(_is_text), eq=False)

    def __attrs_post_init__(self) -> None:
        if self.description is None and self.trajectory is None:
            raise InvalidSampleError("description and trajectory are both missing; give at least one")

    def open_image(self) -> Image.Image:
        """Opens the image: upright, in RGB (see `pydeper.images.open_image`).

        Raises:
            InvalidImageError: It cannot be read; the message begins with the sample's `source`.

        Examples:
            >>> from pydeper import demo_samples
            >>> picture = demo_samples("ana")[0].open_image()
            >>> picture.mode, picture.size
            ('RGB', (480, 486))
        """
        try:
            return images.open_image(self.image)
        except InvalidImageError as error:
            raise InvalidImageError(f"{self._place}{error}") from error

    def plot(self, path: str | os.PathLike[str] | None = None) -> Image.Image:
        """Draws the trajectory over the image (see `pydeper.samples.overlay.draw_trajectory`).

        Args:
            path: where to save the picture as well, in the format of its suffix.

        Returns:
            An RGB picture of the image's size, or enlarged where the image is small.

        Raises:
            InvalidSampleError: The sample has no trajectory.
            InvalidImageError: The image cannot be read.
            InvalidArgumentError: `path` is the sample's own image, has a suffix that is no image format, or its folder
                does not exist.

        Examples:
            >>> from pydeper import demo_samples
            >>> picture = demo_samples("ana")[0].plot("overlay.png")
            >>> picture.size
            (636, 644)
        """
        if path is not None and isinstance(self.image, str | os.PathLike):
            check_output(Path(path), [self.image])
        if self.trajectory is None:
            raise InvalidSampleError(f"{self._place}the sample has no trajectory to draw; give it one")
        picture = overlay.draw_trajectory(self.open_image(), self.trajectory)
        if path is not None:
            overlay.save_picture(picture, path)
        return picture

    @property
    def _place(self) -> str:
        return "" if self.source is None else f"{self.source}: "


def checked_samples(samples: Iterable[Sample]) -> list[Sample]:
    """Returns the samples as a list.

    Raises:
        InvalidArgumentError: They are not samples.
    """
    if isinstance(samples, str | bytes | os.PathLike):
        raise InvalidArgumentError(
            f"samples: must be samples, got {type(samples).__name__} {str(samples)[:80]!r}; read a samples file first, "
            "with pydeper.read_samples(path)"
        )
    samples = [samples] if isinstance(samples, Sample) else list(samples)
    for number, sample in enumerate(samples, 1):
        if not isinstance(sample, Sample):
            raise InvalidArgumentError(
                f"samples: sample {number} must be a pydeper.Sample, got {type(sample).__name__}"
            )
    return samples
