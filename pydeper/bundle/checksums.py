"""Files against their sha256; large ones that have not changed since they were last read are not read again.

Reading gigabytes at every load costs seconds. So what was found of a large file is remembered in the user's cache
folder, together with the file's path, device, inode, size, and times of modification and of change of status; where any
of them differs, or the cache is missing, damaged, not writable or not the user's own, the file is read.

What this protects against is damage and mix-ups: a download cut short, an overwritten or edited file, another file
moved into its place. It does not protect against

- content that decays on the disk, or is written past the file system or through a mapping that is still open: no time
  changes then,
- a change between this check and the moment when ONNX Runtime opens the file,
- the user's own other programs and whoever sets the system's clock, who can make any file pass (and who may write the
  bundle can change its manifest anyway),
- on Windows, which keeps no time of change of status, a change that puts size and time of modification back.

`python -m export verify FOLDER` reads everything.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import file_digest
from pathlib import Path

import attrs

from pydeper.files.atomic import atomic_path

CACHE_VARIABLE = "PYDEPER_CACHE"
LARGE = 16 * 1024 * 1024  # bytes; anything smaller is read in a few milliseconds

_FILE = "verified.json"
_FORMAT_VERSION = 1
# Within one tick of a file system's clock a file can change twice and bear one time; the coarsest tick, FAT's, is 2 s.
SETTLED_AFTER = 2_000_000_000  # nanoseconds


def mismatched(expected: Mapping[Path, str], *, trust_unchanged: bool) -> list[Path]:
    """Returns the files whose content is not what their sha256 says, in the order of `expected`.

    Args:
        expected: The files, which exist, and the sha256 of each in hexadecimal.
        trust_unchanged: Whether to take the word of the cache for large files.

    Raises:
        OSError: A file cannot be read.
    """
    # Links are followed once, so that what is stamped is what is read; the Hub's cache links to its files from every
    # snapshot.
    real = {path: Path(os.path.realpath(path)) for path in expected}
    stamps = {path: stamp for path, digest in expected.items() if (stamp := _stamp(real[path], digest)).size >= LARGE}
    known = _read() if stamps and trust_unchanged else {}
    unread = [path for path in expected if path not in stamps or known.get(str(real[path])) != stamps[path].as_json()]
    began = time.time_ns()
    with ThreadPoolExecutor(min(len(unread), os.cpu_count() or 1) or 1) as pool:  # hashing releases the GIL
        found = dict(zip(unread, pool.map(sha256, [real[path] for path in unread]), strict=True))
    wrong = [path for path in unread if found[path] != expected[path]]
    sound = {real[path]: stamps[path] for path in unread if path in stamps and path not in wrong}
    settled = {str(path): stamp.as_json() for path, stamp in sound.items() if stamp.held_still(path, began)}
    if settled and trust_unchanged:
        _write(known | settled)
    return wrong


def sha256(path: Path) -> str:
    """Returns the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Returns where pydeper keeps what it can do without: ``$PYDEPER_CACHE``, else the user's place for caches.

    Raises:
        RuntimeError: There is no home folder.
    """
    if named := os.environ.get(CACHE_VARIABLE, "").strip():
        return Path(named).expanduser()
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pydeper"


@attrs.frozen
class _Stamp:
    """What a file is known by: while all of this stays the same, so does its content."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int
    sha256: str

    def as_json(self) -> list[int | str]:
        return list(attrs.astuple(self))

    def held_still(self, path: Path, since: int) -> bool:
        """Whether the file was old enough by `since`, when it began to be read, and has not changed until now."""
        return since - max(self.modified, self.changed) > SETTLED_AFTER and self == _stamp(path, self.sha256)


def _stamp(path: Path, digest: str) -> _Stamp:
    status = path.stat()
    return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest)


def _read() -> dict[str, object]:
    try:
        with (cache_folder() / _FILE).open("rb") as file:
            if not _is_own(os.fstat(file.fileno())):
                return {}
            table = json.loads(file.read())
    except (OSError, ValueError, RecursionError, RuntimeError):
        return {}
    if not isinstance(table, dict) or table.get("format_version") != _FORMAT_VERSION:
        return {}
    files = table.get("files")
    return files if isinstance(files, dict) else {}


def _is_own(status: os.stat_result) -> bool:
    """Whether nobody else can have written a file, as far as the system tells."""
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def _write(files: Mapping[str, object]) -> None:
    kept = {path: stamp for path, stamp in files.items() if Path(path).is_file()}
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / _FILE) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(json.dumps({"format_version": _FORMAT_VERSION, "files": kept}), encoding="utf-8")
    except (OSError, RuntimeError):
        return  # without the cache the next load takes longer, and that is all
