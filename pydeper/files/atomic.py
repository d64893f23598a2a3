"""Files that appear whole or not at all, and never in the place of what they are made from."""

import contextlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydeper.errors import InvalidArgumentError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a new path to write to; what is written there is at `path` when the block ends without an error.

    An error in the block leaves what was at `path` untouched and nothing beside it. The yielded path ends like `path`,
    for writers that choose a format by the suffix. A file that is replaced passes its permissions on, and its owner
    where the system allows it. Where `path` is a symbolic link, the file it leads to is replaced and the link stays. A
    device, a pipe and the like stay what they are: the finished content is written into them, once it is whole.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory(prefix="pydeper-") as folder:
            temporary = Path(folder) / (path.name or "output")
            yield temporary
            with temporary.open("rb") as content, path.open("wb") as stream:
                shutil.copyfileobj(content, stream)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{secrets.token_hex(4)}.{target.name}")
    try:
        yield temporary
        _pass_on_permissions(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether there is something at `path` that is written into rather than replaced: a device, a pipe, a socket."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    # /dev/stdout and its like may be a regular file, to which others hold the same open descriptor.
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or str(path).startswith(("/dev/", "/proc/"))


def check_output(output: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuses an output that would replace one of the inputs.

    Raises:
        InvalidArgumentError: It is one of them, by this name or another.
    """
    if any(_is_same_file(output, name) for name in inputs):
        raise InvalidArgumentError(f"{output}: this command reads it, and would replace it: name another file")


def _is_same_file(output: Path, name: str | os.PathLike[str]) -> bool:
    try:
        return output.samefile(name)
    except (OSError, ValueError):  # what is not there cannot be replaced
        return False


def _pass_on_permissions(old: Path, new: Path) -> None:
    try:
        status = old.stat()
    except OSError:
        return  # there is none, or none any more
    new.chmod(stat.S_IMODE(status.st_mode))
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # only a superuser may give files away
            os.chown(new, status.st_uid, status.st_gid)
