"""The journal of a capture session: append-only, and on the disk before anything else happens."""

import contextlib
import os
from pathlib import Path

from pydeper.capture.refusal import not_written
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.readers.journal_lines import Line, SessionLine, line_bytes, parse_line


class Journal:
    """An open journal, which no other process appends to at the same time.

    Attributes:
        path: The file.
        lines: What it holds, in its order, the session first; empty where nothing has been written yet.
    """

    def __init__(self, path: Path) -> None:
        """Opens a journal, or makes an empty one.

        A last line that was cut short, because the process that wrote it was killed, is removed: nobody was told that
        it had been stored.

        Raises:
            InvalidArgumentError: It cannot be opened, or another process has it open.
            InvalidSampleError: A line of it (named) is damaged, or the first one is no session.
        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600)
        except OSError as error:
            raise InvalidArgumentError(f"{path}: cannot be opened ({error.strerror}); name another output") from error
        try:
            self._lock()
            self.lines = self._read()
        except BaseException:
            self.close()
            raise

    def append(self, line: Line) -> None:
        """Adds a line; it is on the disk when this returns.

        Raises:
            RefusalError: It could not be written, and the file is as it was before.
        """
        data = line_bytes(line)
        try:
            self._cut()  # what an append left that failed, and could not be undone then
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._cut()
            raise not_written(error) from error
        if not self.lines:
            sync_folder(self.path.parent)
        self._size += len(data)
        self.lines.append(line)

    def close(self) -> None:
        """Lets go of the file; more than once does no harm."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _cut(self) -> None:
        if os.fstat(self._file).st_size != self._size:
            os.ftruncate(self._file, self._size)
            os.fsync(self._file)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidArgumentError(
                f"{self.path}: another `pydeper capture` is recording into it; go on there, or end it first"
            ) from error
        except OSError:
            return  # a file system without locks

    def _read(self) -> list[Line]:
        content = self.path.read_bytes()
        whole, _, tail = content.rpartition(b"\n")
        self._size = len(content) - len(tail)
        lines = [self._parsed(number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
        if lines and not isinstance(lines[0], SessionLine):
            raise InvalidSampleError(f"{self.path}:1: must be the line of a session; name another output")
        if tail and not self._completed(tail):
            self._cut()
        elif tail:
            lines.append(parse_line(tail))
        return lines

    def _parsed(self, number: int, line: bytes) -> Line:
        try:
            return parse_line(line)
        except InvalidSampleError as error:
            raise InvalidSampleError(
                f"{self.path}:{number}: {error}; repair or remove this line, or name another output"
            ) from error

    def _completed(self, tail: bytes) -> bool:
        """Ends a last line that lacks its line feed alone, as editors leave it; False where it is cut short."""
        try:
            parse_line(tail)
        except InvalidSampleError:
            return False
        os.write(self._file, b"\n")
        os.fsync(self._file)
        self._size += len(tail) + 1
        return True


def sync_folder(folder: Path) -> None:
    """Makes sure that the names of new and removed files in a folder are on the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
