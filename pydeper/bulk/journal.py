"""Descriptions as lines of JSON in a file that only grows: what a batch has added is on the disk before the next."""

import errno
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.untrusted import parse_json, shown

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two runs from writing into one file
    fcntl = None  # type: ignore[assignment]


@attrs.frozen
class Description:
    """One line: an image's name, the persona's, or None for nobody in particular, and the text."""

    image: str
    persona: str | None
    text: str

    @property
    def key(self) -> tuple[str, str | None]:
        """What it is a description of."""
        return self.image, self.persona


class Journal:
    """A JSON Lines file of descriptions, open for adding to, and locked against a second process that would.

    A process that is killed while it writes leaves a last line that is cut short. It is removed when the file is opened
    again, so a line is there whole or not at all.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, which is made where there is none, and removes what an earlier process left half-written.

        Raises:
            InvalidArgumentError: Another process adds to it, or it holds something else than descriptions.
            OSError: It cannot be opened.
        """
        self.path = path
        self._file: BinaryIO = path.open("a+b", buffering=0)
        try:
            self._lock()
            self.size = 0
            for line, _ in self._lines():
                self.size += len(line)
            if self.size < path.stat().st_size:
                self._file.truncate(self.size)
        except BaseException:
            self._file.close()
            raise

    def descriptions(self) -> Iterator[Description]:
        """Yields what the file holds, in its order."""
        for _, description in self._lines():
            yield description

    def append(self, descriptions: Iterable[Description]) -> None:
        """Adds lines, and returns when they are on the disk.

        Raises:
            OSError: They could not all be written, because the disk is full for one; names the file.
        """
        lines = [{"image": new.image, "persona": new.persona, "description": new.text} for new in descriptions]
        data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.size += len(data)

    def remove(self) -> None:
        """Removes the file, and closes it."""
        self.path.unlink()
        self.close()

    def close(self) -> None:
        """Closes the file, and lets other processes add to it."""
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return  # a file system without locks
            raise self._in_use() from error
        # A process that has just finished may have removed the file between the opening and the lock.
        if not self.path.exists() or not os.path.samestat(self.path.stat(), os.fstat(self._file.fileno())):
            raise self._in_use()

    def _in_use(self) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"{self.path}: another process is writing descriptions there; wait for it, or name another output"
        )

    def _lines(self) -> Iterator[tuple[bytes, Description]]:
        """Yields every whole line with what it says; what follows the last of them was never finished."""
        with self.path.open("rb") as file:
            broken: int | None = None
            for number, line in enumerate(file, 1):
                description = self._parse(line, number)
                if description is None:
                    broken = broken or number
                elif broken is not None:
                    raise InvalidArgumentError(
                        f"{self.path}, line {broken}: is no JSON, and lines follow that are: delete this line"
                    )
                else:
                    yield line, description

    def _parse(self, line: bytes, number: int) -> Description | None:
        """Returns what a line says; None where it is no whole line."""
        if not line.endswith(b"\n"):
            return None
        try:
            found = parse_json(line, InvalidArgumentError)
        except InvalidArgumentError:
            return None
        match found:
            case {"image": str(image), "persona": str() | None as persona, "description": str(text)} if len(found) == 3:
                return Description(image, persona, text)
        raise InvalidArgumentError(
            f"{self.path}, line {number}: is no description (an image, a persona and a description), but "
            f"{shown(found)}; delete the line, or name another output"
        )
