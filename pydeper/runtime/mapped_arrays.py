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
        # Not numpy.load, which also opens archives and pickles. Objects cannot be mapped.
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; the bundle is incomplete, fetch it again") from None
    except Exception as error:  # a header is a Python literal, and there are many ways in which it can be wrong
        raise BundleError(f"{path}: not a numpy array file: {error}") from error
    return array
