"""A data set's distinct images, opened by need and known by their content."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from pydeper.images import open_image
from pydeper.samples.sample import Sample


class Images(Protocol):
    """A data set's distinct images; none is held open."""

    def __len__(self) -> int:
        """How many they are."""
        ...

    def key(self, number: int) -> str:
        """What the image is known by, wherever it lies: the sha256 of its content.

        Raises:
            InvalidImageError: It is not there.
        """
        ...

    def open(self, number: int) -> Image.Image:
        """The upright RGB image.

        Raises:
            InvalidImageError: It cannot be read.
        """
        ...


class SampleImages:
    """Images where the samples have them: in files or in memory.

    Args:
        samples: One sample of each image; errors name its place.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, number: int) -> str:
        """See `Images`. The content is the file's bytes, or else the pixels."""
        if number not in self._keys:
            self._keys[number] = self._digest(number)
        return self._keys[number]

    def open(self, number: int) -> Image.Image:
        """See `Images`."""
        return self._samples[number].open_image()

    def _digest(self, number: int) -> str:
        image = self._samples[number].image
        if isinstance(image, bytes):
            return content_key(image)
        if isinstance(image, str | os.PathLike):
            try:
                with Path(image).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                self.open(number)  # says what is wrong with it, in the words of the SDK
                raise
        picture = open_image(image)
        return content_key(b"%d %d " % picture.size + picture.tobytes())


def content_key(content: bytes) -> str:
    """What an image of this content is known by."""
    return hashlib.sha256(content).hexdigest()


def distinct_images(samples: Sequence[Sample]) -> tuple[list[int], list[Sample]]:
    """Which samples are of the same image.

    Returns:
        The number of each sample's image, and the first sample of every image.
    """
    numbers: dict[object, int] = {}
    firsts: list[Sample] = []
    image_of = []
    for sample in samples:
        number = numbers.setdefault(image_identity(sample), len(firsts))
        if number == len(firsts):
            firsts.append(sample)
        image_of.append(number)
    return image_of, firsts


def image_identity(sample: Sample) -> object:
    """What is equal for samples of the same image: its path, or which object in memory it is."""
    return str(Path(sample.image)) if isinstance(sample.image, str | Path) else id(sample.image)
