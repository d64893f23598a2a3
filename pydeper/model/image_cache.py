"""Images as a model has encoded them, kept for as long as they are likely to be asked for again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

from PIL import Image

from pydeper.bundle.config import VisionConfig
from pydeper.errors import InvalidArgumentError
from pydeper.vlm.image_patches import resized_shape

MAX_BYTES = 2**30
"""The most memory that the images of one model's cache hold together."""


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_Encoded = TypeVar("_Encoded", bound=_Sized)


def content_key(picture: Image.Image) -> str:
    """Returns a text that two upright RGB images share if and only if they show the same."""
    digest = hashlib.blake2b(b"%d %d " % picture.size, digest_size=20)
    digest.update(picture.tobytes())
    return digest.hexdigest()


def size_key(picture: Image.Image, vision: VisionConfig) -> str:
    """Returns a text that is the same for the same upright RGB image, and sorts images by the size they are encoded in.

    Raises:
        InvalidImageError: The image cannot be resized for the vision encoder.
    """
    height, width = resized_shape(picture.height, picture.width, vision)
    return f"{height:06}×{width:06} {content_key(picture)}"


class ImageCache(Generic[_Encoded]):
    """The images that were asked for last; thread-safe.

    An image goes by what it shows, so a file that has changed is another image. Threads that ask for one image at the
    same time wait for one encoding of it; threads that ask for different images do not wait for each other.

    Attributes:
        images: The most images that are kept.
    """

    def __init__(self, images: int, max_bytes: int = MAX_BYTES) -> None:
        """Makes an empty cache.

        Args:
            images: The most images that it keeps; 0 keeps none.
            max_bytes: The most bytes that they hold together.

        Raises:
            InvalidArgumentError: `images` is not a whole number from 0 on.
        """
        if isinstance(images, bool) or not isinstance(images, int) or images < 0:
            raise InvalidArgumentError(f"image_cache: must be a whole number from 0 (keep none) on, got {images!r}")
        self.images = images
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # The least recently asked for first. None is the result of an encoding that failed.
        self._entries: OrderedDict[str, Future[_Encoded | None]] = OrderedDict()

    def encoded(self, picture: Image.Image, encode: Callable[[Image.Image], _Encoded]) -> _Encoded:
        """Returns the encoded picture, from the cache or fresh.

        Args:
            picture: An upright RGB image.
            encode: Encodes it; what it raises goes to the caller, and nothing of it is kept.
        """
        if self.images == 0:
            return encode(picture)
        key = content_key(picture)
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is None:
                    mine = self._entries[key] = Future()
                    break
                self._entries.move_to_end(key)
            # What failed for another thread, an interruption for one, is no answer to this one: it tries itself.
            if (found := entry.result()) is not None:
                self._shrink()  # what is kept grows while it is used
                return found
        return self._fill(key, mine, picture, encode)

    def clear(self) -> None:
        """Lets go of all images; what is being encoded at this moment will not be kept either."""
        with self._lock:
            self._entries.clear()

    def held(self) -> tuple[int, int]:
        """Returns how many images are kept, and the bytes that they hold."""
        with self._lock:
            sizes = self._sizes()
        return len(sizes), sum(sizes.values())

    def _fill(
        self,
        key: str,
        entry: "Future[_Encoded | None]",
        picture: Image.Image,
        encode: Callable[[Image.Image], _Encoded],
    ) -> _Encoded:
        try:
            encoded = encode(picture)
        except BaseException:
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
            entry.set_result(None)
            raise
        entry.set_result(encoded)
        self._shrink()
        return encoded

    def _shrink(self) -> None:
        with self._lock:
            sizes = self._sizes()
            # One that is too large for the cache would push out all others, and then go itself.
            too_large = [key for key, size in sizes.items() if size > self._max_bytes]
            for key in [*too_large, *(key for key in sizes if key not in too_large)]:
                over = len(sizes) > self.images or sum(sizes.values()) > self._max_bytes
                if not over:
                    break
                del self._entries[key], sizes[key]

    def _sizes(self) -> dict[str, int]:
        """Returns the bytes of each image whose encoding is done."""
        done = {key: entry.result() for key, entry in self._entries.items() if entry.done()}
        return {key: encoded.nbytes for key, encoded in done.items() if encoded is not None}
