"""The pictures of a capture session: which files of a folder are sound, and how a browser gets them."""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
from PIL import ExifTags, Image

from pydeper.errors import InvalidArgumentError, InvalidImageError
from pydeper.images import images_in, open_image, upright_size
from pydeper.untrusted import is_plain_name

_QUALITY = 95
_AS_THEY_ARE = {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("WEBP", "RGB")}


@attrs.frozen
class Picture:
    """One file that is shown.

    Attributes:
        path: The file.
        width: Of the upright picture, in pixels.
        height: The same.
    """

    path: Path
    width: int
    height: int

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name


@attrs.frozen
class DamagedPicture:
    """A file that has the suffix of an image and cannot be shown.

    Attributes:
        name: The file's name.
        reason: What is wrong with it, and what to do.
    """

    name: str
    reason: str


def find_pictures(
    folder: Path, *, progress: Callable[[int, int], None] | None = None
) -> tuple[list[Picture], list[DamagedPicture]]:
    """Decodes every image of a folder once, so that no damaged one turns up in the middle of a session.

    Args:
        folder: Its own files are taken, not those of folders inside.
        progress: Called with how many files are read, and of how many.

    Returns:
        The sound pictures and the damaged ones, each sorted by name; at least one is sound.

    Raises:
        InvalidArgumentError: The folder is not there, cannot be read, or holds no sound image.
    """
    if not folder.is_dir():
        raise InvalidArgumentError(f"{folder}: is no folder; name the folder of the pictures to describe")
    try:
        paths = images_in(folder)
    except OSError as error:
        raise InvalidArgumentError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    found: list[Picture | DamagedPicture] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for picture in pool.map(_examined, paths):
            found.append(picture)
            if progress is not None:
                progress(len(found), len(paths))
    sound = [picture for picture in found if isinstance(picture, Picture)]
    damaged = [picture for picture in found if isinstance(picture, DamagedPicture)]
    if not sound:
        reasons = "".join(f"\n  {picture.name}: {picture.reason}" for picture in damaged)
        raise InvalidArgumentError(
            f"{folder}: the folder holds no image that can be shown; name another, with PNG or JPEG files{reasons}"
        )
    return sound, damaged


def _examined(path: Path) -> Picture | DamagedPicture:
    if not is_plain_name(path.name):
        return DamagedPicture(ascii(path.name)[1:-1], "its name cannot be written down for every system; rename it")
    try:
        picture = open_image(path)
    except (InvalidImageError, MemoryError) as error:
        return DamagedPicture(path.name, str(error).replace(str(path), path.name) or "it is too large for the memory")
    return Picture(path, picture.width, picture.height)


def browser_image(path: Path) -> tuple[bytes, str]:
    """Returns a picture, upright and in a format that browsers show, and its media type.

    A JPEG, PNG or WebP file that browsers show as `open_image` does is given as it is. Others are encoded anew, and so
    are those that are turned by EXIF, animated or transparent: what is seen is what a model is given.

    Raises:
        InvalidImageError: It cannot be read any more.
    """
    upright_size(path)  # explains what is wrong with a file that is
    with Image.open(path) as opened:
        kept = (opened.format, opened.mode) in _AS_THEY_ARE
        kept &= not opened.has_transparency_data and not getattr(opened, "is_animated", False)
        kept &= opened.getexif().get(ExifTags.Base.Orientation, 1) == 1
        photographic = opened.format in ("JPEG", "MPO", "HEIF", "AVIF", "JPEG2000", "WEBP")
        media_type = f"image/{str(opened.format).lower()}"
    if kept:
        return path.read_bytes(), media_type
    buffer = io.BytesIO()
    if photographic:
        open_image(path).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
        return buffer.getvalue(), "image/jpeg"
    open_image(path).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), "image/png"
