"""The lines of a capture journal, which is what the capture page records, in the order in which it happened.

JSON Lines, UTF-8, each line an object with its `kind`:

    {"kind": "session", "format_version": 1, "session": "f3…", "subject": "ana", "created": "2026-11-28T12:00:00+00:00",
     "images": "photos", "settings": {…}, "pictures": ["17.jpg", …], "pydeper_version": "0.1.0"}
    {"kind": "consent", "given_at": …, "publish": true, "language": "en", "text": …, "statement": …}
    {"kind": "recording", "picture": "17.jpg", "description": "A dog …", "points": [[0.41, 0.52, 0.016], …], …}
    {"kind": "skip", "picture": "17.jpg"}

The first line is the session. A later recording or skip of a picture replaces an earlier one. The classes below are
the kinds; reading is strict, and an unknown field is an error that names it.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ClassVar, TypeAlias, TypeVar

import attrs

from pydeper.errors import InvalidSampleError
from pydeper.readers.records import kind as kind_of
from pydeper.readers.trajectories import refuse_pixels
from pydeper.untrusted import check_format_version, parse_json, shown

FORMAT_VERSION = 1

MAX_DESCRIPTION = 20_000
"""The longest description, in characters."""

MAX_POINTS = 200_000
"""The most points of one recording: about an hour at 60 a second."""

MODES = ("viewport", "trace")
INPUTS = ("mouse", "pen", "touch", "keyboard")

Point: TypeAlias = list[float | None]
"""x, y and t; x and y are None where looking stopped."""

_NUMBERS = (int, float)

_Validator: TypeAlias = Callable[[Any, "attrs.Attribute[Any]", Any], None]


class EmptyDescriptionError(InvalidSampleError):
    """A recording whose description says nothing."""


def _must_be(expected: str, holds: Callable[[Any], bool]) -> _Validator:
    """Checks that a field is what `expected` says."""

    def check(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
        if not holds(value):
            raise InvalidSampleError(f"{field.name} must be {expected}, not {kind_of(value)}")

    return check


def _number(value: object) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and math.isfinite(value)


def _size(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_number(side) and side > 0 for side in value)


def _pixels(value: object) -> bool:
    return isinstance(value, list) and _size(value) and all(isinstance(side, int) for side in value)


def _text(longest: int, *, shortest: int = 1) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and shortest <= len(value.strip()) and len(value) <= longest


def _moment(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() is not None
    except ValueError:
        return False


def _name(value: object) -> bool:
    """Whether it is the name of a file, and no path."""
    return isinstance(value, str) and value not in ("", ".", "..") and not {"/", "\\", "\0"} & set(value)


def _plain_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.-]{1,64}", value, re.ASCII) is not None


def _check_description(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, str):
        raise InvalidSampleError(f"{field.name} must be text, not {kind_of(value)}")
    if not value.strip():
        raise EmptyDescriptionError(f"{field.name} is empty; write what the picture shows, or skip the picture")
    if len(value) > MAX_DESCRIPTION:
        raise InvalidSampleError(f"{field.name} has {len(value)} characters; at most {MAX_DESCRIPTION} are taken")


def _check_points(_: object, field: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, list):
        raise InvalidSampleError(f"{field.name} must be a list of [x, y, t], not {kind_of(value)}")
    if len(value) > MAX_POINTS:
        raise InvalidSampleError(f"{field.name} holds {len(value)} points; at most {MAX_POINTS} are taken")
    before = 0.0
    for i, point in enumerate(value):
        if not isinstance(point, list) or len(point) != 3:
            raise InvalidSampleError(f"{field.name}[{i}] must be [x, y, t], not {kind_of(point)}")
        x, y, t = point
        if not ((x is None and y is None) or (_number(x) and _number(y))) or not _number(t):
            raise InvalidSampleError(
                f"{field.name}[{i}] must be three numbers, or [null, null, t] where looking stopped, not {shown(point)}"
            )
        if t < before:
            raise InvalidSampleError(
                f"{field.name}[{i}]: time goes backwards, from {before:g} to {t:g} s; take it from a clock that cannot "
                "be set, such as performance.now()"
            )
        before = t
    refuse_pixels((point[0], point[1]) for point in value if point[0] is not None)


@attrs.frozen(kw_only=True)
class SessionLine:
    """Who is recorded, with which pictures and settings.

    Attributes:
        format_version: Of the journal.
        session: Random; the name of the session.
        subject: Who is recorded.
        created: When the session began, in ISO 8601 with its time zone.
        images: The folder of the pictures, relative to the journal's.
        settings: Those of the capture page.
        pictures: The names of the pictures' files, in the order in which they are shown.
        pydeper_version: The version that began the session.
    """

    kind: ClassVar[str] = "session"
    format_version: int = attrs.field()
    session: str = attrs.field(validator=_must_be("a random name", _plain_id))
    subject: str = attrs.field(validator=_must_be("text", _text(1000)))
    created: str = attrs.field(validator=_must_be("a date and time with its time zone", _moment))
    images: str = attrs.field(validator=_must_be("the path of a folder", _text(4096)))
    settings: dict[str, Any] = attrs.field(
        validator=_must_be("an object of settings", lambda value: isinstance(value, dict))
    )
    pictures: list[str] = attrs.field(
        validator=_must_be(
            "a list of file names, each once",
            lambda value: isinstance(value, list) and all(map(_name, value)) and len(set(value)) == len(value) > 0,
        )
    )
    pydeper_version: str = attrs.field(validator=_must_be("text", _text(100)))

    @format_version.validator
    def _check_version(self, _: "attrs.Attribute[int]", value: object) -> None:
        check_format_version(value, FORMAT_VERSION, "capture journals", "record anew", InvalidSampleError)


@attrs.frozen(kw_only=True)
class ConsentLine:
    """What the person agreed to before the first picture.

    Attributes:
        given_at: When, in ISO 8601 with its time zone.
        publish: Whether to the publication of the persona as well.
        language: Of the text.
        text: What was agreed to, as it was shown.
        statement: One line that says so, for `Persona.push_to_hub(consent=...)` where `publish` is true.
    """

    kind: ClassVar[str] = "consent"
    given_at: str = attrs.field(validator=_must_be("a date and time with its time zone", _moment))
    publish: bool = attrs.field(validator=_must_be("true or false", lambda value: isinstance(value, bool)))
    language: str = attrs.field(validator=_must_be("a language tag, such as en", _text(35)))
    text: str = attrs.field(
        validator=_must_be(
            f"the text that was agreed to, of at most {MAX_DESCRIPTION} characters", _text(MAX_DESCRIPTION)
        )
    )
    statement: str = attrs.field(validator=_must_be("one line of text", _text(500)))


@attrs.frozen(kw_only=True)
class Recording:
    """How one person looked at one picture, and what they said about it.

    Attributes:
        description: What they said, 1 to `MAX_DESCRIPTION` characters.
        points: [x, y, t] each, at most `MAX_POINTS`: x and y are fractions of the upright picture from the top left,
            t is seconds since the picture was shown and never decreases. [None, None, t] marks that looking stopped.
        mode: "viewport", a blurred picture that is sharp around the pointer, or "trace", the plain picture.
        input: What moved the viewport most of the time: "mouse", "pen", "touch" or "keyboard"; None where nothing did.
        image_size: Width and height of the upright picture, in pixels.
        shown_size: Width and height at which it was shown, in CSS pixels.
        screen: Width and height of the screen, in CSS pixels.
        device_pixel_ratio: Pixels of the device to a CSS pixel.
        started: When the picture was shown, in ISO 8601 with its time zone.
        duration: For how long, in seconds.
        blur: Radius of the blur, in CSS pixels; None where there was none.
        radius: Of the viewport, as a fraction of the picture's shorter side; None where there was none.
        attempt: Random; the same when the same recording is sent again.
        picture: The name of the picture's file; None before the recording is stored.
        page_version: The version of the capture page; None before the recording is stored.
    """

    kind: ClassVar[str] = "recording"
    description: str = attrs.field(validator=_check_description)
    points: list[Point] = attrs.field(validator=_check_points, repr=lambda points: f"<{len(points)} points>")
    mode: str = attrs.field(validator=_must_be(f"one of {', '.join(MODES)}", lambda value: value in MODES))
    input: str | None = attrs.field(
        validator=_must_be(f"one of {', '.join(INPUTS)}, or null", lambda value: value in (*INPUTS, None))
    )
    image_size: list[int] = attrs.field(validator=_must_be("[width, height] in whole pixels, above 0", _pixels))
    shown_size: list[float] = attrs.field(validator=_must_be("[width, height], two numbers above 0", _size))
    screen: list[float] = attrs.field(validator=_must_be("[width, height], two numbers above 0", _size))
    device_pixel_ratio: float = attrs.field(
        validator=_must_be("a number above 0", lambda value: _number(value) and value > 0)
    )
    started: str = attrs.field(validator=_must_be("a date and time with its time zone", _moment))
    duration: float = attrs.field(
        validator=_must_be("a number of seconds, 0 or more", lambda value: _number(value) and value >= 0)
    )
    blur: float | None = attrs.field(
        validator=_must_be(
            "a number of CSS pixels, 0 or more, or null", lambda value: value is None or (_number(value) and value >= 0)
        )
    )
    radius: float | None = attrs.field(
        validator=_must_be("a fraction above 0, or null", lambda value: value is None or (_number(value) and value > 0))
    )
    attempt: str = attrs.field(validator=_must_be("1 to 64 letters, digits, '.', '_' or '-'", _plain_id))
    picture: str | None = attrs.field(
        validator=_must_be("a file name", lambda value: value is None or _name(value)), default=None
    )
    page_version: str | None = attrs.field(
        validator=_must_be("text", lambda value: value is None or _text(100)(value)), default=None
    )


@attrs.frozen(kw_only=True)
class SkipLine:
    """The person passed over a picture.

    Attributes:
        picture: The name of its file.
    """

    kind: ClassVar[str] = "skip"
    picture: str = attrs.field(validator=_must_be("a file name", _name))


Line: TypeAlias = SessionLine | ConsentLine | Recording | SkipLine

_Kind = TypeVar("_Kind", SessionLine, ConsentLine, Recording, SkipLine)

KINDS: dict[str, type[Line]] = {kind.kind: kind for kind in (SessionLine, ConsentLine, Recording, SkipLine)}


def parse_line(line: bytes) -> Line:
    """Reads one line of a journal.

    Raises:
        InvalidSampleError: It is not JSON, not of a known kind, or a field (named) does not hold what it promises.
    """
    record = parse_json(line, InvalidSampleError)
    if not isinstance(record, dict):
        raise InvalidSampleError(f"must be an object {{…}}, not {kind_of(record)}")
    kind = record.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidSampleError(f"kind must be one of {', '.join(KINDS)}, not {kind_of(kind)}")
    read: Line = from_record(KINDS[kind], record)  # type: ignore[type-var]  # one of them, whichever it is
    if isinstance(read, Recording) and (read.picture is None or read.page_version is None):
        raise InvalidSampleError(f"{'picture' if read.picture is None else 'page_version'} is missing")
    return read


def from_record(kind: type[_Kind], record: Mapping[str, Any]) -> _Kind:
    """Makes a line of its fields.

    Args:
        kind: One of the classes above.
        record: Field -> value.

    Raises:
        InvalidSampleError: A field (named) is missing, unknown or does not hold what it promises.
    """
    fields = attrs.fields_dict(kind)
    if unknown := sorted(map(str, record.keys() - fields.keys())):
        raise InvalidSampleError(f"unknown field {shown(unknown[0])}; the fields are {', '.join(fields)}")
    if missing := [name for name, field in fields.items() if name not in record and field.default is attrs.NOTHING]:
        raise InvalidSampleError(f"{missing[0]} is missing")
    return kind(**record)


def line_bytes(line: Line) -> bytes:
    """Returns a line as it is written, with its line feed."""
    return json.dumps({"kind": line.kind, **attrs.asdict(line, recurse=False)}, ensure_ascii=False).encode() + b"\n"
