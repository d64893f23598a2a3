"""How near two arrays are, in the two measures that exports are judged by."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from torch import Tensor


def cpu_session(path: Path) -> Any:
    """Opens a file on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def relative_error(found: np.ndarray, expected: np.ndarray | Tensor) -> float:
    """Largest difference, of the largest value expected.

    Raises:
        ValueError: The shapes differ.
    """
    reference = np.asarray(expected, dtype=np.float32)
    if found.shape != reference.shape:
        raise ValueError(f"the exported file gives shape {found.shape}, transformers {reference.shape}")
    return float(np.abs(found.astype(np.float32) - reference).max() / np.abs(reference).max())


def smallest_cosine(found: np.ndarray, expected: np.ndarray | Tensor) -> float:
    """Smallest cosine of two vectors that stand at the same place, along the last axis."""
    x, y = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    product = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return float(((x * y).sum(axis=-1) / np.maximum(product, np.finfo(np.float64).tiny)).min())
