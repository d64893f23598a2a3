"""What happens when memory runs out: an error that says what was being done and what helps."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from pydeper.errors import PydeperError

_REMEDIES = (
    "describe fewer people or images at once, make the image smaller, load the model with a lower `precision` "
    '("int8", "int4"), or keep no images with `image_cache=0`'
)
# Neither runtime has an error of its own for this, on no device.
_RUNTIME_SAYS = re.compile(r"failed to allocate|out of memory|bad_?alloc|bad allocation|alloc_failed", re.IGNORECASE)
_OPENVINO_SAYS = "Exception from src/"  # at the beginning of each of its errors, which are plain RuntimeErrors
_ASKED_BYTES = re.compile(r"(?:requested buffer of size|Failed to allocate) (\d+)")
_ASKED_TEXT = re.compile(r"Unable to allocate ([\d.]+) (\w+)")


class OutOfMemoryError(PydeperError, MemoryError):
    """Memory ran out, the computer's or the graphics card's; says while what, and what helps."""


@contextmanager
def memory_explained(doing: str) -> Iterator[None]:
    """Turns what Python, numpy and the runtimes raise when memory runs out into `OutOfMemoryError`.

    Args:
        doing: What is being done, as in "encoding an image".
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        # The traceback holds every frame's variables: it would keep what has filled the memory.
        traceback.clear_frames(error.__traceback__)
        raise OutOfMemoryError(f"out of memory while {doing}{_asked(str(error))}: {_REMEDIES}") from error


def readable_bytes(count: float) -> str:
    """Returns a number of bytes as people read it: ``"512 bytes"``, ``"1.5 GiB"``."""
    if count < 1024:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError):
        return True
    is_runtimes = type(error).__module__.startswith("onnxruntime") or _OPENVINO_SAYS in str(error)
    return is_runtimes and _RUNTIME_SAYS.search(str(error)) is not None


def _asked(message: str) -> str:
    if found := _ASKED_BYTES.search(message):
        return f" ({readable_bytes(int(found[1]))} were asked for)"
    if found := _ASKED_TEXT.search(message):
        return f" ({float(found[1]):g} {found[2]} were asked for)"
    return ""
