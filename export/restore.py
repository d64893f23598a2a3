"""Weights of an exported graph back into the PyTorch module that it came from.

An exporter renames weights, transposes them and stores them in half precision, but always in the same way. So a module
of the same sizes whose weights are all different is exported once more: where a weight of its turns up in that graph,
the weight wanted stands in the graph that is given.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

Arrays = Mapping[str, np.ndarray]
"""The weights of exported files by their names."""

_SPREAD = 0.05  # of the stand-in weights: small, so that a deep module computes nothing out of range


def restore(module: nn.Module, weights: Arrays, export: Callable[[], Arrays], folded: Iterable[Tensor] = ()) -> None:
    """Gives a module the weights of an exported graph.

    Args:
        module: Of the sizes of the one that was exported; all its weights are replaced.
        weights: The arrays of the graph that is given, see `arrays`.
        export: Exports `module` as it is now in the same way, and gives the arrays of that.
        folded: Views of weights that the exporter adds to others, such as a bias that it multiplies into the next one;
            they become 0, and the others hold them.

    Raises:
        ValueError: A weight is in the graph neither as it is nor transposed, flattened or in thirds; or the graph that
            is given is another one.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            # Exact in half precision, in which the graph may hold it.
            parameter.copy_((torch.randn(parameter.shape, generator=generator) * _SPREAD).half())
        for part in folded:
            part.zero_()
    places = {_bytes(array): name for name, array in export().items()}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            whole = parameter.flatten(1) if parameter.ndim > 1 else parameter
            # Queries, keys and values may share a weight here and have one each there.
            parts = [whole] if _place(whole, places) else whole.chunk(3)
            for part in parts:
                if part.any():
                    part.copy_(_found(name, part, places, weights))


def arrays(path: Path) -> dict[str, np.ndarray]:
    """All weights of an ONNX file, or the one of a .npy file; the names begin with the file's."""
    if path.suffix == ".npy":
        return {path.name: np.load(path)}
    return {f"{path.name}: {one.name}": numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


def _place(part: Tensor, places: Mapping[bytes, str]) -> tuple[str, bool] | None:
    """Where a weight stands in a graph, and whether it is transposed there."""
    if (name := places.get(_bytes(part.numpy()))) is not None:
        return name, False
    if part.ndim > 1 and (name := places.get(_bytes(part.mT.numpy()))) is not None:
        return name, True
    return None


def _found(name: str, part: Tensor, places: Mapping[bytes, str], weights: Arrays) -> Tensor:
    located = _place(part, places)
    if located is None:
        raise ValueError(f"{name}: the exported graph holds this weight in no form that is known")
    place, transposed = located
    array = weights.get(place)
    if array is None or array.size != part.numel():
        raise ValueError(
            f"{name}: {place} is missing or of another size; another version exported it, or it is another model's"
        )
    tensor = torch.tensor(array, dtype=torch.float32)
    return tensor.reshape(part.shape[::-1]).mT if transposed else tensor.reshape(part.shape)


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, np.float32).tobytes()
