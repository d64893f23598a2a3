"""From the trained adapter to `adapter.onnx`."""

import copy
import os
from pathlib import Path

import torch

from export.graphs.parity import TOLERANCE, compare
from export.graphs.trace import Precision, save, trace
from pydeper.files.atomic import atomic_path
from training.network import Adapter


def export_adapter(
    path: str | os.PathLike[str],
    adapter: Adapter,
    *,
    precision: Precision = "fp32",
    rounding_tolerance: float = 2**-10,
    parity_tolerance: float | None = None,
) -> dict[str, float]:
    """Writes `adapter.onnx`: subject_embedding (B, subject_embedding_size) -> soft_token (B, hidden_size).

    The file appears only once it has passed the check against torch.

    Args:
        path: The file to write.
        adapter: The trained adapter; not changed.
        precision: How weights are stored; computation is float32 either way.
        rounding_tolerance: fp16 only: largest change of any one weight that is accepted.
        parity_tolerance: Largest accepted difference from torch, relative to the largest value; by default 1e-4 for
            fp32 and 1e-2 for fp16.

    Returns:
        The largest difference from torch of every case compared.

    Raises:
        ValueError: A weight would be rounded by more than allowed.
        ParityError: The file gives other numbers than torch.
    """
    if parity_tolerance is None:
        parity_tolerance = TOLERANCE if precision == "fp32" else 1e-2
    adapter = copy.deepcopy(adapter).to("cpu", torch.float32).eval()
    inputs = {"subject_embedding": torch.zeros(2, adapter.projection.in_features)}
    model = trace(adapter, inputs, {"subject_embedding": {0: torch.export.Dim("batch")}}, ["soft_token"])
    with atomic_path(Path(path)) as temporary:
        save(model, temporary, precision, rounding_tolerance)
        return check_adapter(temporary, adapter, parity_tolerance)


def check_adapter(path: str | os.PathLike[str], adapter: Adapter, tolerance: float = TOLERANCE) -> dict[str, float]:
    """Compares `adapter.onnx` with the module, for one vector and for several."""
    size = adapter.projection.in_features
    generator = torch.Generator().manual_seed(0)
    cases = {
        name: {"subject_embedding": torch.randn(count, size, generator=generator)}
        for name, count in (("one vector", 1), ("several vectors", 5))
    }
    return compare(path, adapter, cases, tolerance)
