"""Does an exported file give what torch gives? ONNX Runtime against the module that the file was made from."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from pydeper.runtime.session import session_options

TOLERANCE = 1e-4  # of the largest absolute value compared

Array = npt.NDArray[np.floating]
Inputs = Mapping[str, Tensor]


class ParityError(ValueError):
    """An exported file gives other numbers than the module it was made from."""


def compare(
    path: str | os.PathLike[str],
    reference: Callable[..., Tensor],
    cases: Mapping[str, Inputs],
    tolerance: float = TOLERANCE,
    min_cosine: float = -1.0,
) -> dict[str, float]:
    """Runs a file with one output on the CPU and a torch function on the same inputs.

    Args:
        path: The ONNX file.
        reference: Takes a case's inputs by name.
        cases: Inputs by the name of the case.
        tolerance: Largest accepted difference, relative to the case's largest absolute value in torch.
        min_cosine: Smallest accepted cosine between a row of the output and the same row in torch.

    Returns:
        The largest difference of every case, relative in the same way.

    Raises:
        ParityError: A shape differs, a number is not finite, a difference is above the tolerance or a cosine too small.
    """
    session = cpu_session(path)
    differences = {}
    for name, inputs in cases.items():
        with torch.no_grad():
            expected = reference(**inputs).numpy()
        (actual,) = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        if actual.shape != expected.shape:
            raise ParityError(f"{path}, case {name!r}: shape {actual.shape} where torch gives {expected.shape}")
        difference = relative_error(actual, expected)
        if not difference <= tolerance:  # also where it is NaN
            raise ParityError(
                f"{path}, case {name!r}: differs from torch by {difference:.3g} of the largest value, more than the "
                f"tolerance {tolerance:.3g}; export in fp32, or allow more"
            )
        cosine = smallest_cosine(actual, expected)
        if not cosine >= min_cosine:
            raise ParityError(
                f"{path}, case {name!r}: a vector's cosine with torch's is {cosine:.5f}, less than {min_cosine:.5f}; "
                "export in fp16 or fp32, or allow less"
            )
        differences[name] = difference
    return differences


def cpu_session(path: str | os.PathLike[str]) -> Any:
    """Opens a file in ONNX Runtime, on the CPU."""
    return onnxruntime.InferenceSession(
        os.fspath(path), session_options(onnxruntime), providers=["CPUExecutionProvider"]
    )


def relative_error(found: Array, expected: Array | Tensor) -> float:
    """Returns the largest absolute difference, divided by the largest absolute value expected.

    Raises:
        ParityError: The shapes differ.
    """
    reference = np.asarray(expected, dtype=np.float32)
    if found.shape != reference.shape:
        raise ParityError(f"the exported file gives shape {found.shape}, torch {reference.shape}")
    largest = max(np.abs(reference).max(), np.finfo(np.float32).tiny)
    return float(np.abs(found.astype(np.float32) - reference).max() / largest)


def typical_cosine(found: Array, expected: Array | Tensor) -> float:
    """Returns the median cosine between a vector (along the last axis) and its counterpart in another array.

    What integers are judged by: a few tokens of a trained network carry channels a thousand times as large as all
    others ("Massive Activations in Large Language Models", Sun et al. 2024), beside which 8 bits leave little of the
    rest of that token. They are few, so they say nothing about the graph.
    """
    return float(np.median(cosines(found, expected)))


def smallest_cosine(found: Array, expected: Array | Tensor) -> float:
    """Returns the smallest cosine between a vector (along the last axis) and its counterpart in another array."""
    return float(cosines(found, expected).min(initial=1.0))


def cosines(found: Array, expected: Array | Tensor) -> Array:
    """Returns (...) the cosine between each vector of (..., n) and its counterpart; two vectors of zeros have 1."""
    x, y = np.asarray(found, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    zeros = ~x.any(-1) & ~y.any(-1)
    return np.where(zeros, 1.0, np.sum(x * y, axis=-1) / np.maximum(lengths, np.finfo(np.float64).tiny))
