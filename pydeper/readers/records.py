"""JSON objects as every reader takes them: strictly, and with messages that say what is wrong."""

import collections
import json
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydeper.errors import InvalidSampleError
from pydeper.readers.files import encoded_lines


def json_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a JSON Lines file that hold something, each with its place, such as "ana.jsonl:3".

    The file may be packed by gzip, bzip2 or xz, and in UTF-16 or UTF-32; the lines are UTF-8.

    Raises:
        InvalidSampleError: The file cannot be read.
    """
    for number, line in enumerate(encoded_lines(path, "name a JSON Lines file of samples"), start=1):
        if line.strip():
            yield f"{path}:{number}", line


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
