"""Arrays that stay in their files and are read piece by piece."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydeper.errors import BundleError


def map_array(path: Path) -> npt.NDArray[Any]:
    """Maps a numpy array file of a bundle into memory, read-only.

    Raises:
        BundleError: The file is missing or not a numpy array file.
    """
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; the bundle is incomplete, fetch it again") from None
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{path}: not a numpy array file: {error}") from error
    return array
