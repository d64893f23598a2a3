"""A persona's file: one safetensors tensor, with what it belongs to as metadata."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from pydeper.errors import PersonaError
from pydeper.untrusted import check_format_version, parse_json, shown

FORMAT_VERSION = 1
SUBJECT_EMBEDDING_SIZE = 384
TENSOR = "subject_embedding"
MAX_SAMPLES = 10**9 - 1
_MAX_HEADER = 64 * 1024
MAX_FILE = 8 + _MAX_HEADER + 4 * SUBJECT_EMBEDDING_SIZE
"""No persona's file is larger, in bytes."""
_AGAIN = "make or download the persona again"


def persona_bytes(fields: Mapping[str, Any]) -> bytes:
    """Returns the content of a persona's file.

    Args:
        fields: The attributes of a `pydeper.Persona`.
    """
    from safetensors.numpy import save

    metadata = {
        "format_version": str(FORMAT_VERSION),
        "model_id": fields["model_id"],
        "encoder_fingerprint": fields["encoder_fingerprint"],
        "num_samples": str(fields["num_samples"]),
        "created": fields["created"].isoformat(),
        "pydeper_version": fields["pydeper_version"],
    }
    metadata |= {"name": fields["name"]} if fields["name"] is not None else {}
    metadata |= {"model_revision": fields["model_revision"]} if fields["model_revision"] is not None else {}
    return save({TENSOR: fields["subject_embedding"]}, metadata)


def parse_persona(data: bytes) -> dict[str, Any]:
    """Returns the attributes of the `pydeper.Persona` that a file holds; the file need not be trusted.

    Raises:
        PersonaError: It is not a persona's file, or it is damaged, or of a newer format; says what to do.
    """
    from safetensors import SafetensorError, deserialize

    if len(data) > MAX_FILE:
        raise PersonaError(f"longer than any persona file ({MAX_FILE} bytes): not a persona")
    header_size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or header_size > _MAX_HEADER:
        raise PersonaError(f"not a safetensors file, or cut short: {_AGAIN}")
    try:
        # The library checks types, offsets and size; it takes the last of two equal keys, and parse_json none.
        tensors = dict(deserialize(data))  # type: ignore[no-untyped-call]
        metadata = parse_json(data[8 : 8 + header_size], PersonaError).get("__metadata__") or {}
    except (SafetensorError, PersonaError) as error:
        raise PersonaError(f"not a safetensors file, or damaged ({error}): {_AGAIN}") from error

    version = metadata.get("format_version")
    if version is None:
        raise PersonaError("a safetensors file, but not a persona (its metadata has no format_version)")
    found = int(version) if re.fullmatch(r"[0-9]{1,9}", version) else version
    check_format_version(found, FORMAT_VERSION, "personas", _AGAIN, PersonaError)
    if list(tensors) != [TENSOR]:
        names = ", ".join(shown(name) for name in sorted(tensors)[:5])
        raise PersonaError(f"must hold the tensor {TENSOR!r} alone, got {names or 'none'}")
    if tensors[TENSOR]["dtype"] != "F32" or tensors[TENSOR]["shape"] != [SUBJECT_EMBEDDING_SIZE]:
        raise PersonaError(
            f"{TENSOR}: must be F32 of shape [{SUBJECT_EMBEDDING_SIZE}], got {tensors[TENSOR]['dtype']} "
            f"of shape {shown(tensors[TENSOR]['shape'])}"
        )
    return {
        "subject_embedding": np.frombuffer(tensors[TENSOR]["data"], "<f4"),
        "encoder_fingerprint": _required(metadata, "encoder_fingerprint"),
        "model_id": _required(metadata, "model_id"),
        "model_revision": metadata.get("model_revision"),
        "num_samples": _parsed_num_samples(_required(metadata, "num_samples")),
        "name": metadata.get("name"),
        "created": _parsed_created(_required(metadata, "created")),
        "pydeper_version": _required(metadata, "pydeper_version"),
    }


def check_replaceable(path: Path) -> None:
    """Refuses to replace a file that is no persona's: a slip in a file's name would cost what is in it.

    Raises:
        PersonaError: There is such a file at `path`.
    """
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError:
        return  # writing it will say why
    if not data or (len(data) <= MAX_FILE and path.suffix == ".safetensors"):
        return
    try:
        parse_persona(data)
    except PersonaError as error:
        raise PersonaError(
            f"{path}: exists, and is not a persona: choose another name for the persona, or remove the file first"
        ) from error


def _required(metadata: dict[str, str], key: str) -> str:
    if key not in metadata:
        raise PersonaError(f"metadata: {key} is missing: {_AGAIN}")
    return metadata[key]


def _parsed_num_samples(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise PersonaError(f"num_samples: must be a whole number from 1 to {MAX_SAMPLES}, got {shown(text)}")
    return int(text)


def _parsed_created(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise PersonaError(f"created: must be an ISO 8601 date and time, got {shown(text)}") from error
