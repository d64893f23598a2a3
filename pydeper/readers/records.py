"""JSON objects and image files as every reader takes them: strictly, and with messages that say what is wrong."""

import codecs
import collections
import json
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pydeper.errors import InvalidSampleError


def json_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a JSON Lines file that hold something, each with its place, such as "ana.jsonl:3".

    Raises:
        InvalidSampleError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if line.strip():
                    yield f"{path}:{number}", line
    except (OSError, ValueError) as error:
        raise InvalidSampleError(f"{path}: cannot be read ({error}); name a JSON Lines file of samples") from error


def parse_object(line: bytes) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        InvalidSampleError: It is not UTF-8, not JSON, not an object, or gives a field twice.
    """
    try:
        record = json.loads(line.decode(), object_pairs_hook=unique)
    except InvalidSampleError:
        raise
    except UnicodeDecodeError as error:
        raise InvalidSampleError(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InvalidSampleError(f"not JSON ({error}); each line must be one whole object: {_excerpt(line)}") from error
    if not isinstance(record, dict):
        raise InvalidSampleError(f"must be an object {{…}}, not {kind(record)}: {_excerpt(line)}")
    return record


def _excerpt(line: bytes) -> str:
    text = line.decode().strip()
    return text if len(text) <= 60 else f"{text[:60]}…"


def kind(value: object) -> str:
    """A value's type and a short form of it, for messages."""
    return "null" if value is None else f"{type(value).__name__} {reprlib.repr(value)}"


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: an object whose fields are all given once."""
    record = dict(pairs)
    if len(record) < len(pairs):
        (name, count), *_ = collections.Counter(name for name, _ in pairs).most_common(1)
        raise InvalidSampleError(f"the field {name!r} is given {count} times in one object; keep one")
    return record


def field(record: dict[str, Any], name: str, types: type | tuple[type, ...], expected: str) -> Any:
    """A field that must be there, of one of these types (a bool is no number).

    Raises:
        InvalidSampleError: It is missing or of another type; the message says what is `expected`.
    """
    if name not in record:
        raise InvalidSampleError(f"{name} is missing; it must be {expected}")
    value = record[name]
    if not isinstance(value, types) or (isinstance(value, bool) and types is not bool):
        raise InvalidSampleError(f"{name} must be {expected}, not {kind(value)}")
    return value


def canonical(path: Path) -> Path:
    """The path from the root, without links in its folders.

    An image that is a link keeps its own name: what it points at may have none that tells the format.
    """
    return path.parent.resolve() / path.name


class MissingImageError(InvalidSampleError):
    """A record names an image that is not in its folder."""


class ImageFolder:
    """The folder that a data set's images are in."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InvalidSampleError(f"{self.folder}: is no folder; name the one that holds the images")

    def find(self, name: str) -> Path:
        """The path of an image, by its name inside the folder (with forward slashes).

        Raises:
            MissingImageError: It is not there.
            InvalidSampleError: The name leads out of the folder, or is none.
        """
        parts = PurePosixPath(name)
        if not name or parts.is_absolute() or ".." in parts.parts:
            raise InvalidSampleError(f"image name {name!r} does not name a file inside {self.folder}")
        path = self.folder / parts
        try:
            found = path.is_file()
        except OSError as error:
            raise InvalidSampleError(f"image name {name!r} cannot be a file's ({error})") from error
        if not found:
            raise MissingImageError(f"image {name!r} is not in {self.folder}")
        return canonical(path)
