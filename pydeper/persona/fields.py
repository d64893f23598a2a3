"""What the fields of a persona may hold."""

from datetime import datetime
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from pydeper.errors import PersonaError
from pydeper.persona.file import MAX_SAMPLES, SUBJECT_EMBEDDING_SIZE, TENSOR
from pydeper.untrusted import is_plain_text, shown

_MAX_TEXT = 256


def embedding(value: object) -> npt.NDArray[np.float32]:
    """Returns a copy of a subject embedding that nobody can write to.

    Raises:
        PersonaError: It is not (384,), not finite, or 0 throughout.
    """
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise PersonaError(f"{TENSOR}: must be {SUBJECT_EMBEDDING_SIZE} numbers: {error}") from error
    if array.shape != (SUBJECT_EMBEDDING_SIZE,):
        raise PersonaError(f"{TENSOR}: must have shape ({SUBJECT_EMBEDDING_SIZE},), got {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise PersonaError(f"{TENSOR}: every number must be finite (float32), number {bad} is {array[bad]}")
    if not array.any():
        raise PersonaError(f"{TENSOR}: all {SUBJECT_EMBEDDING_SIZE} numbers are 0, which describes nobody")
    return np.frombuffer(array.tobytes(), np.float32)


def check_text(_: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuses what is not one line of text."""
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT:
        raise PersonaError(f"{attribute.name}: must be a text of 1 to {_MAX_TEXT} characters, got {shown(value)}")
    if not is_plain_text(value):
        raise PersonaError(
            f"{attribute.name}: must not hold control characters, line breaks or marks that turn the direction of "
            f"writing, got {shown(value)}"
        )


def check_num_samples(_: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuses what is not a number of samples."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SAMPLES:
        raise PersonaError(f"{attribute.name}: must be a whole number from 1 to {MAX_SAMPLES}, got {shown(value)}")


def check_created(_: Any, attribute: "attrs.Attribute[Any]", value: object) -> None:
    """Refuses what is not a date and time with its time zone."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise PersonaError(f"{attribute.name}: must be a date and time with its time zone, got {shown(value)}")


optional_text = attrs.validators.optional(check_text)
