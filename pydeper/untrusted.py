"""What strangers wrote, made safe to read and to show: text, JSON, format versions, names of files.

Personas and bundles come from the Hub. Whatever pydeper reads of them goes through here before anything else sees it.
"""

import ipaddress
import json
import math
import re
import reprlib
import stat
import unicodedata
from pathlib import Path
from typing import Any

# How a terminal is commanded, or text made to look other than it is: escapes, line breaks, and the marks that turn the
# direction of writing. Letters of every script, emoji and their joiners are left alone.
_COMMANDS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})

_DEPTH = 64
_DIGITS = 20  # more than any 64-bit number has

_RESERVED = frozenset('<>:"/\\|?*')
_DEVICES = frozenset({"con", "prn", "aux", "nul", "conin$", "conout$"}) | {
    port + number for port in ("com", "lpt") for number in "0123456789¹²³"
}
_LONGEST_NAME = 255  # bytes, in most file systems
_LONGEST_PATH = 1000  # characters; longer ones are somebody's data


def file_size(path: Path) -> int | None:
    """Returns the size of a regular file in bytes; None where there is none, or none any more."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def is_plain_text(text: str, *, breaks: bool = False) -> bool:
    """Whether text holds nothing that commands a terminal or turns the direction of writing.

    Args:
        text: Any text.
        breaks: Whether line feeds and tabs are plain.
    """
    return text.isprintable() or not any(_commands(letter) for letter in text if not (breaks and letter in "\n\t"))


def legible(text: str) -> str:
    """Returns the text with everything written out that commands a terminal, but for line feeds and tabs."""
    if is_plain_text(text, breaks=True):
        return text
    return "".join(ascii(letter)[1:-1] if letter not in "\n\t" and _commands(letter) else letter for letter in text)


def is_address(path: object) -> bool:
    """Whether what was given as a path is an address, such as ``https://…`` or ``data:…``, or one that lost a slash."""
    return re.match(r"(https?|ftp|s3|gs|hf|file):/|data:[\w/+.-]*[;,]", str(path), re.IGNORECASE) is not None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def shown(value: object) -> str:
    """Returns a value for a message: its repr, or the beginning of it; never more than some 80 characters."""
    try:
        text = _short.repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits have no repr
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def shown_path(path: object) -> str:
    """Returns a path or a name in quotes for a message: whole where a file can be called so, else its beginning."""
    text = str(path)
    return repr(text) if len(text) <= _LONGEST_PATH else f"{text[:40]!r}… ({len(text)} characters)"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80


def parse_json(data: bytes, error: type[Exception]) -> Any:
    """Parses JSON (UTF-8) strictly: no key twice in an object, no NaN, nothing huge and nothing deep.

    Args:
        data: The text; whoever read it has limited its size.
        error: What to raise.

    Returns:
        Plain values: floats are finite, whole numbers have at most 20 digits, objects and lists lie within one another
        at most 64 deep, and texts can be encoded.

    Raises:
        error: The data is something else; says what.
    """

    def whole(digits: str) -> int:
        if len(digits) > _DIGITS:
            raise error(f"a whole number of {len(digits)} digits; at most {_DIGITS} are read")
        return int(digits)

    def real(digits: str) -> float:
        if not math.isfinite(value := float(digits)):
            raise error(f"{shown(digits)} is too large a number")
        return value

    def constant(name: str) -> None:
        raise error(f"{name} is not a JSON number")

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise error(f"the same key twice in one object: {shown(repeated)}")
        return table

    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=without_repeats,
            parse_int=whole,
            parse_float=real,
            parse_constant=constant,
        )
    except error:
        raise
    except UnicodeDecodeError as cause:
        raise error(f"not UTF-8 text: {cause}") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"not valid JSON: {cause}") from cause
    _check_values(value, error)
    return value


def check_format_version(found: object, newest: int, what: str, remedy: str, error: type[Exception]) -> None:
    """Refuses a format that this version does not read, and says in which direction it lies.

    Args:
        found: The file's `format_version`.
        newest: The newest format that is read; all since format 1 are.
        what: What the file holds, in the plural.
        remedy: What to do about a file that is too old or damaged.
        error: What to raise.

    Raises:
        error: `found` is not a whole number from 1 to `newest`.
    """
    from pydeper.version import __version__

    reads = f"format_version: pydeper {__version__} reads {what} of format {'1' if newest == 1 else f'1 to {newest}'}"
    if isinstance(found, bool) or not isinstance(found, int):
        raise error(f"{reads}, got {shown(found)}, which is not a whole number: {remedy}")
    if found > newest:
        raise error(f"{reads}, got {shown(found)}: a newer pydeper wrote it; `pip install --upgrade pydeper`")
    if found < 1:
        raise error(f"{reads}, got {shown(found)}, which is too old: {remedy}")


def is_plain_name(name: str) -> bool:
    """Whether `name` names one file or folder, the same one on every system: no path, drive, device or trick of case.

    Refused are the names that Windows keeps for devices or cannot write, trailing dots and blanks (which it drops),
    and letters composed otherwise than Unicode's NFC has them (which macOS takes for one another).
    """
    return (
        0 < len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME
        and is_plain_text(name)
        and not set(name) & _RESERVED
        and name[-1] not in ". "
        and unicodedata.is_normalized("NFC", name)
        and name.split(".")[0].rstrip(" ").lower() not in _DEVICES
    )


def is_inner_path(path: str) -> bool:
    """Whether `path` leads, from any folder and on any system, to a file inside that folder: names joined by "/"."""
    return len(path) <= 4 * _LONGEST_NAME and all(is_plain_name(name) for name in path.split("/"))


def _commands(letter: str) -> bool:
    return unicodedata.category(letter) in _COMMANDS or unicodedata.bidirectional(letter) in _TURNS


def _check_values(value: Any, error: type[Exception]) -> None:
    layer = [value]
    for _ in range(_DEPTH + 1):
        texts = [item for item in layer if isinstance(item, str)]
        texts += [key for item in layer if isinstance(item, dict) for key in item]
        if lone := next((text for text in texts if not _is_encodable(text)), None):
            raise error(f"{shown(lone)} holds half of a pair of surrogates")
        inner = [item.values() if isinstance(item, dict) else item for item in layer if isinstance(item, dict | list)]
        if not inner:
            return
        layer = [item for items in inner for item in items]
    raise error(f"values lie more than {_DEPTH} deep in one another")


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
