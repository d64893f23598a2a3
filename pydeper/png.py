"""PNG files without what is not part of their picture."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PICTURE = {b"tRNS", b"eXIf"}
"""Ancillary chunks that change what is seen: transparency, and which side is up."""

_MOST = 1 << 30
"""Bytes of a picture that are held; more than the largest image that is read has."""


def without_metadata(image: str | bytes | os.PathLike[str]) -> bytes | None:
    """Returns a PNG file with nothing but its picture: texts, profiles, dates and sizes are left out.

    As in libpng and in every browser, an ancillary chunk with a wrong checksum counts as absent, whatever it holds. A
    chunk that the picture is made of stays as it is, for the decoder to judge.

    Args:
        image: A path, or the bytes of a file.

    Returns:
        None where it is no file or no PNG, ends within a chunk, or has nothing that can be left out.
    """
    try:
        if isinstance(image, bytes):
            return _picture(io.BytesIO(image))
        if not Path(image).is_file():
            return None
        with Path(image).open("rb") as file:
            return _picture(file)
    except (OSError, ValueError):
        return None


def _picture(file: BinaryIO) -> bytes | None:
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        return None
    kept, size, dropped = [_SIGNATURE], 0, False
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        ancillary = bool(kind[:1].islower())
        if ancillary and kind not in _PICTURE:
            file.seek(length + 4, os.SEEK_CUR)
            dropped = True
            continue
        size += length
        if size > _MOST or not kind.isalpha() or len(body := file.read(length + 4)) != length + 4:
            return None
        if ancillary and struct.unpack(">I", body[-4:])[0] != zlib.crc32(kind + body[:-4]):
            dropped = True
            continue
        kept += head, body
        if kind == b"IEND":
            return b"".join(kept) if dropped else None
    return None
