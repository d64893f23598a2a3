"""Which file of a bundle is which, and how its small ones are read."""

import os
from pathlib import Path

from pydeper.errors import BundleError

BUILTIN = Path(__file__).parents[1] / "builtin"

CONFIG = "config.json"
PERSONA_ENCODER = "persona_encoder.onnx"
ADAPTER = "adapter.onnx"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"
CARD = "README.md"

_MAX_JSON = 4 * 1024 * 1024


def read_file(path: Path, most: int = _MAX_JSON) -> bytes:
    """Reads a small file of a bundle whole.

    Args:
        path: The file.
        most: Its largest size in bytes; a file that is larger is refused before it fills the memory.

    Raises:
        BundleError: It is missing, cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(min(os.fstat(file.fileno()).st_size, most) + 1)  # all that is asked for is allocated
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: is missing, so {path.parent} is not a bundle: check the path; {remedy(path.parent)}"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise BundleError(f"{path}: is larger than {most} bytes, which no bundle's is; {remedy(path.parent)}")
    return data


def remedy(folder: Path) -> str:
    """Says how to get a sound copy of the bundle in a folder."""
    return "reinstall pydeper" if folder.parent == BUILTIN else "download or export the bundle again"
