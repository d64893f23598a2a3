"""A file that only grows: what has been added is on the disk, or the file is as it was before."""

import contextlib
import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two processes from adding to one file
    fcntl = None  # type: ignore[assignment]


class AppendOnlyFile:
    """A file that is open for adding to, and locked against other processes that would.

    Attributes:
        path: The file.
        size: Its bytes; what a failed `append` has left behind them is not counted, and goes with the next one.
    """

    def __init__(self, path: Path, *, permissions: int = 0o666) -> None:
        """Opens a file, or makes an empty one.

        Args:
            path: The file.
            permissions: Of a new file, less those that the process withholds.

        Raises:
            BlockingIOError: Another process has it open.
            OSError: It cannot be opened.
        """
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(path, flags, permissions)
        try:
            self._lock()
        except BaseException:
            self.close()
            raise
        self.size = os.fstat(self._file).st_size

    def append(self, data: bytes) -> None:
        """Adds bytes, and returns when they are on the disk.

        Raises:
            OSError: They could not all be written, because the disk is full for one; names the file.
        """
        try:
            self.cut(self.size)  # what an append left that failed, and could not be undone then
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.cut(self.size)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Removes what follows the first so many bytes.

        Raises:
            OSError: The file cannot be written.
        """
        if os.fstat(self._file).st_size != size:
            os.ftruncate(self._file, size)
            os.fsync(self._file)
        self.size = size

    def close(self) -> None:
        """Closes the file, and lets other processes add to it; more than once does no harm."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise _in_use(self.path) from error
            return  # a file system without locks
        # A process that has just finished may have removed the file between the opening and the lock.
        if not self.path.exists() or not os.path.samestat(self.path.stat(), os.fstat(self._file)):
            raise _in_use(self.path)


def _in_use(path: Path) -> BlockingIOError:
    return BlockingIOError(errno.EAGAIN, "in use by another process", str(path))
