"""The journal of a capture session: append-only, and on the disk before anything else happens."""

import contextlib
import os
from pathlib import Path

from pydeper.capture.refusal import not_written
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.files.append_only import AppendOnlyFile
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
            self._file = AppendOnlyFile(path, permissions=0o600)
        except BlockingIOError as error:
            raise InvalidArgumentError(
                f"{path}: another `pydeper capture` is recording into it; go on there, or end it first"
            ) from error
        except OSError as error:
            raise InvalidArgumentError(f"{path}: cannot be opened ({error.strerror}); name another output") from error
        try:
            self.lines = self._read()
        except BaseException:
            self.close()
            raise

    def append(self, line: Line) -> None:
        """Adds a line; it is on the disk when this returns.

        Raises:
            RefusalError: It could not be written, and the file is as it was before.
        """
        try:
            self._file.append(line_bytes(line))
        except OSError as error:
            raise not_written(error) from error
        if not self.lines:
            sync_folder(self.path.parent)
        self.lines.append(line)

    def close(self) -> None:
        """Lets go of the file; more than once does no harm."""
        self._file.close()

    def _read(self) -> list[Line]:
        content = self.path.read_bytes()
        whole, _, tail = content.rpartition(b"\n")
        lines = [self._parsed(number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
        if lines and not isinstance(lines[0], SessionLine):
            raise InvalidSampleError(f"{self.path}:1: must be the line of a session; name another output")
        if tail:
            lines += self._completed(tail, len(content) - len(tail))
        return lines

    def _parsed(self, number: int, line: bytes) -> Line:
        try:
            return parse_line(line)
        except InvalidSampleError as error:
            raise InvalidSampleError(
                f"{self.path}:{number}: {error}; repair or remove this line, or name another output"
            ) from error

    def _completed(self, tail: bytes, whole: int) -> list[Line]:
        """A last line that lacks its line feed alone, as editors leave it, ended; one that is cut short, removed.

        Args:
            tail: The line.
            whole: The bytes before it.
        """
        try:
            line = parse_line(tail)
        except InvalidSampleError:
            self._file.cut(whole)
            return []
        self._file.append(b"\n")
        return [line]


def sync_folder(folder: Path) -> None:
    """Makes sure that the names of new and removed files in a folder are on the disk, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
