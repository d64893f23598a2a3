"""Files that appear whole or not at all."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a new path beside `path` to write to; it takes the place of `path` when the block ends without an error.

    An error in the block leaves what was at `path` untouched and nothing beside it. The yielded path ends like `path`,
    for writers that choose a format by the suffix.
    """
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
