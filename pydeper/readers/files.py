"""Files as people have them: packed or not, in any Unicode encoding; or an error that says what a file is instead."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TextIO

from pydeper.errors import InvalidSampleError

_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}

WORKBOOK = "an Excel or OpenDocument workbook"
"""What `kind_of_file` says of a file that `pydeper.readers.tables` reads by a library."""

_KINDS = {
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": WORKBOOK,
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"Rar!": "a rar archive; unpack it",
    b"%PDF": "a PDF document; export the table itself",
    b"{\\rtf": "an RTF document; save it as plain text",
    b"SQLite format 3\0": "an SQLite database; export the table itself",
    b"PAR1": "a Parquet file; save it as CSV",
    b"\x89HDF": "an HDF5 file; save it as CSV",
    b"MATLAB 5.0": "a MATLAB file; save it as CSV",
    b"$FL2": "an SPSS file; save it as CSV",
    b"\x93NUMPY": "a numpy file; save it as CSV",
}

_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def kind_of_file(path: Path, head: bytes) -> str | None:
    """Says what a file is that holds no text, by its first bytes, and what to do; None where it may hold text."""
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile):
            return "a zip archive, or an Excel workbook (.xlsx), that is damaged; fetch or save it again"
        if any(name.startswith("xl/") for name in names) or {"mimetype", "content.xml"} <= set(names):
            return WORKBOOK
        return "a zip archive; unpack it"
    return next((kind for start, kind in _KINDS.items() if head.startswith(start)), None)


def first_bytes(path: Path, remedy: str) -> bytes:
    """The beginning of a file, as it lies on the disk; see `open_binary` for the errors."""
    with _explained(path, remedy), path.open("rb") as file:
        return file.read(64)


@contextlib.contextmanager
def open_binary(path: Path, remedy: str) -> Iterator[IO[bytes]]:
    """Opens a file for reading, unpacked where gzip, bzip2 or xz has packed it.

    Args:
        path: The file.
        remedy: What to do where it cannot be read, such as "name a JSON Lines file".

    Raises:
        InvalidSampleError: It cannot be read, now or while the block reads it, or holds no text.
    """
    with _explained(path, remedy), path.open("rb") as raw:
        head = raw.peek(64)
        unpack = next((unpack for start, unpack in _PACKED.items() if head.startswith(start)), None)
        if unpack is not None:
            with unpack(raw) as file:
                yield file
            return
        if kind := kind_of_file(path, head):
            raise InvalidSampleError(f"{path}: is {kind}; {remedy}")
        yield raw


@contextlib.contextmanager
def open_text(path: Path, remedy: str, encoding: str | None = None) -> Iterator[TextIO]:
    """Opens a text file as `open_binary` does; its line ends are left as they are, and a byte order mark is dropped.

    Args:
        path: The file.
        remedy: As for `open_binary`.
        encoding: None: by the byte order mark, or by the zeros that UTF-16 has between ASCII letters, else UTF-8.

    Raises:
        InvalidSampleError: As `open_binary`; also where the encoding is unknown or is not that of the file.
    """
    with open_binary(path, remedy) as file:
        head: bytes = file.peek(64)  # type: ignore[attr-defined]
        try:
            codec = codecs.lookup(encoding).name if encoding else _encoding(head)
        except LookupError as error:
            raise InvalidSampleError(f"{path}: cannot be read ({error}); say another encoding") from error
        mark = next((mark for mark, marked in _MARKS.items() if head.startswith(mark) and codec == marked), b"")
        file.read(len(mark))
        with io.TextIOWrapper(file, codec, newline="") as text:
            try:
                yield text
            except UnicodeError as error:
                raise InvalidSampleError(
                    f"{path}: is not {codec.upper()} ({error}); save it as UTF-8, or say its encoding"
                ) from error


def encoded_lines(path: Path, remedy: str) -> Iterator[bytes]:
    """The lines of a text file as UTF-8, whatever it is packed in; bytes that are no UTF-8 are left as they are."""
    with open_binary(path, remedy) as file:
        head: bytes = file.peek(64)  # type: ignore[attr-defined]
        if (codec := _encoding(head)) == "utf-8":
            file.read(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
            yield from file
            return
    with open_text(path, remedy, codec) as text:
        for line in text:
            yield line.encode("utf-8", "surrogatepass")


def _encoding(head: bytes) -> str:
    for mark, codec in _MARKS.items():
        if head.startswith(mark):
            return codec
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) * 4 > len(head):  # more than half of the letters are ASCII
        if min(even, odd) * 8 > len(head):
            return "utf-32-be" if head[:1] == b"\0" else "utf-32-le"
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"


@contextlib.contextmanager
def _explained(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except InvalidSampleError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:  # ValueError: no path at all
        if isinstance(error, UnicodeError):
            raise
        raise InvalidSampleError(f"{path}: cannot be read ({error}); {remedy}") from error
