"""Any image a caller may hold -> an upright RGB picture, or an error that says what is wrong with it."""

import errno
import io
import os
import re
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pydeper import png
from pydeper.errors import InvalidImageError
from pydeper.untrusted import is_address, shown_path

T = TypeVar("T")

ImageLike: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[np.uint8]
"""What `pydeper` takes as an image: a path, the bytes of a file or a file opened for reading them, a PIL image, or an
H×W×3 uint8 RGB array."""

MAX_PIXELS = 89_478_485
"""The largest image that is opened, in pixels (9459×9459; Pillow's own first threshold)."""

_TOO_LARGE = f"at most {MAX_PIXELS} pixels are read: make it smaller first"

# Pillow knows more, but hands some of those (EPS) to other programs. HEIF is there once pillow-heif registers it.
_FORMATS = {"AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"}

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_DATA_URI = re.compile("data:", re.IGNORECASE)


def open_image(image: ImageLike) -> Image.Image:
    """Reads an image as people see it: upright, in RGB.

    The EXIF orientation is applied; a block that cannot be parsed counts as absent, as in every viewer, and so does
    other metadata of a PNG that is damaged or very large. Transparency is laid over white. 16-bit greyscale is scaled
    to 8 bits, not clipped; CMYK, palettes and greyscale become RGB without colour management. Of an animation the first
    frame is taken; of a PIL image, its current one.

    Args:
        image: A path, the bytes of an image file, a file opened for reading in binary mode (such as `io.BytesIO`; it is
            read from its beginning), a PIL image, or an (H, W, 3) uint8 RGB array. What is given is left as it is.
            Files may be AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM/PGM, TIFF or WebP (and HEIF with pillow-heif
            registered).

    Returns:
        A new PIL image of mode RGB without metadata.

    Raises:
        InvalidImageError: It is missing, not an image, cut short, larger than `MAX_PIXELS` (judged by the file's
            header, before anything is decoded), or an array of another shape or dtype.
    """
    return _read(image, _upright_rgb)


def upright_size(image: ImageLike) -> tuple[int, int]:
    """Returns the width and height that `open_image` gives, from the file's header where its format allows that.

    Args:
        image: As for `open_image`.

    Raises:
        InvalidImageError: As for `open_image`; but a file whose pixels are damaged may have a size.
    """
    return _read(image, _upright_size)


def image_format(image: str | os.PathLike[str] | bytes) -> str:
    """Returns the format of an image file, as Pillow calls it, such as "PNG" or "JPEG".

    Args:
        image: A path, or the bytes of a file.

    Raises:
        InvalidImageError: As for `open_image`; but a file whose pixels are damaged may have a format.
    """
    return _read(image, lambda opened, _: str(opened.format))


def images_in(folder: Path) -> list[Path]:
    """Returns the files of a folder that are images by their suffix, sorted by name; hidden files are none of them."""
    suffixes = set(Image.registered_extensions())
    return [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    ]


def why_no_path(text: str) -> str | None:
    """Says what a text is that cannot be the path of an image, and what to do; None where it may be a path."""
    if _DATA_URI.match(text):
        return "is a data URI, not a path: give the bytes that it holds, base64.b64decode(uri.partition(',')[2])"
    if is_address(text) or "://" in text:
        return "is an address; addresses are not fetched: download the image first"
    return None


def file_bytes(file: BinaryIO) -> bytes:
    """Reads a whole file object, from its beginning, and leaves it where it was.

    Raises:
        InvalidImageError: It gives no bytes: it was opened in text mode, or is closed.
    """
    try:
        place = file.tell() if file.seekable() else None
        if place is not None:
            file.seek(0)
        data = file.read()
        if place is not None:
            file.seek(place)
    except (AttributeError, OSError, ValueError) as error:
        raise InvalidImageError(f"{_name(file)} cannot be read ({error}); open it in binary mode ('rb')") from error
    if not isinstance(data, bytes | bytearray | memoryview):
        raise InvalidImageError(f"{_name(file)} gives {type(data).__name__}, not bytes; open it in binary mode ('rb')")
    return bytes(data)


def is_file_object(value: object) -> bool:
    """Whether `value` is a file that somebody has opened."""
    return callable(getattr(value, "read", None)) and not isinstance(value, Image.Image | np.ndarray)


def _read(image: ImageLike, use: Callable[[Image.Image, str], T]) -> T:
    """Opens any image and hands it to `use`, with its name for messages; what goes wrong there is explained as well."""
    name = _name(image)
    try:
        if isinstance(image, Image.Image):
            return use(image, name)
        if isinstance(image, np.ndarray):
            return use(_from_array(image, name), name)
        if is_file_object(image):
            image = file_bytes(image)  # type: ignore[arg-type]  # what has `read` is a file
        if not isinstance(image, str | bytes | os.PathLike):
            raise InvalidImageError(
                f"{name} is not an image: give a path, bytes, a binary file, a PIL image or an H×W×3 uint8 array"
            )
        return _read_file(image, name, use)
    except (InvalidImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise InvalidImageError(
            f"{name} is not an image file that can be read; save it as PNG or JPEG (HEIC photos need pillow-heif)"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImageError(f"{name} is too large ({error}); {_TOO_LARGE}") from error
    except Exception as error:  # decoders fail in many ways on damaged files, and each of them means the same here
        if isinstance(error, OSError) and error.errno is not None:  # the system's refusal, not a decoder's
            raise InvalidImageError(f"{name} {_refusal(image, error)}") from error
        raise InvalidImageError(
            f"{name} cannot be decoded ({error}): it is damaged or cut short; fetch or save it again"
        ) from error


def _read_file(image: str | bytes | os.PathLike[str], name: str, use: Callable[[Image.Image, str], T]) -> T:
    def read(file: str | os.PathLike[str] | io.BytesIO) -> T:
        with Image.open(file) as opened:
            if opened.format not in _FORMATS:
                raise InvalidImageError(f"{name} is a {opened.format} file, which is not read; save it as PNG or JPEG")
            return use(opened, name)

    try:
        return read(io.BytesIO(image) if isinstance(image, bytes) else image)
    except (InvalidImageError, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        # Pillow refuses a PNG for a text or a profile that every viewer passes over.
        bare = png.without_metadata(image)
        if bare is None:
            raise
        return read(io.BytesIO(bare))


def _refusal(image: object, error: OSError) -> str:
    """What is wrong with a path that the system has refused, and what to do."""
    if reason := why_no_path(os.fspath(image)) if isinstance(image, str | os.PathLike) else None:
        return reason
    match error:
        case FileNotFoundError():
            return "does not exist; check the path"
        case IsADirectoryError():
            return "is a folder; name one image file"
        case PermissionError():
            return "may not be read; check its permissions"
    if error.errno == errno.ENAMETOOLONG:
        return f"cannot be opened ({error.strerror}): give a path, or the bytes of the file (decode base64 first)"
    return f"cannot be opened ({error.strerror}); check the path"


def _name(image: object) -> str:
    match image:
        case str() | os.PathLike():
            return f"image {shown_path(image)}"
        case bytes():
            return f"image given as {len(image)} bytes"
        case Image.Image():
            return f"PIL image of mode {image.mode} and size {image.width}×{image.height}"
        case np.ndarray():
            return f"image array of shape {image.shape} and dtype {image.dtype}"
        case _ if is_file_object(image):
            return f"image given as a file ({type(image).__name__})"
        case _:
            return f"{type(image).__name__} {reprlib.repr(image)}"


def _check_size(width: int, height: int, name: str) -> None:
    if width * height == 0:
        raise InvalidImageError(f"{name} has no pixels ({width}×{height})")
    if width * height > MAX_PIXELS:
        raise InvalidImageError(f"{name} is too large ({width}×{height} pixels); {_TOO_LARGE}")


def _from_array(array: NDArray[np.uint8], name: str) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3:
        raise InvalidImageError(f"{name}: expected the shape (height, width, 3), RGB")
    if array.dtype != np.uint8:
        raise InvalidImageError(f"{name}: expected uint8, 0..255; scale the values to that range and cast them")
    _check_size(array.shape[1], array.shape[0], name)
    return Image.fromarray(array)


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.width, image.height, name)
    image.load()
    rgb = _rgb(image, name)
    turn = _TO_UPRIGHT.get(_orientation(image))
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info = {}  # a profile or EXIF block of the original would be wrong for what this image is now
    return upright


def _upright_size(image: Image.Image, name: str) -> tuple[int, int]:
    _check_size(image.width, image.height, name)
    if image.format == "TIFF":  # Pillow turns these itself, and gives the size that they have then
        return image.size
    return image.size[::-1] if _orientation(image) in (5, 6, 7, 8) else image.size


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow lets the parser's own errors out, of any kind
        return 1


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow reads 16-bit PGM as I
        return _eight_bits(image).convert("RGB")
    if image.mode in ("I", "F"):
        raise InvalidImageError(f"{name}: 32-bit greyscale has no fixed range; scale it to 0..255 (mode L) first")
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    wide = np.asarray(image).astype(np.uint32)
    shades = ((wide * 255 + 32767) // 65535).astype(np.uint8)
    if (transparent := image.info.get("transparency")) is not None:  # PNG: one grey value that means "nothing here"
        shades[wide == transparent] = 255
    return Image.fromarray(shades)
