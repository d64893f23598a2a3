"""Smaller files for the same computation: weights stored in half precision, computed with in single precision."""

import numpy as np
import onnx_ir as ir

_MIN_SIZE = 1024  # smaller tensors save nothing and may hold tables, such as rotary frequencies, that need all bits


def store_fp16(model: ir.Model, tolerance: float = 0.0) -> float:
    """Stores the float32 weights of an ONNX model as float16, each followed by a Cast to float32.

    ONNX Runtime folds the casts when it loads the model, so the computation stays in float32. For weights that float16
    represents exactly nothing changes but the size of the file.

    Args:
        model: Changed in place.
        tolerance: Largest change of any one weight that is accepted; 0 accepts none.

    Returns:
        The largest change of any one weight.

    Raises:
        ValueError: A weight would change by more than `tolerance`; names its tensor.
    """
    graph = model.graph
    largest = 0.0
    casts = []
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.size < _MIN_SIZE:
            continue
        half, change = to_fp16(tensor.numpy(), name, tolerance)
        largest = max(largest, change)
        stored = ir.Value(name=f"{name}.fp16", const_value=ir.tensor(half, name=f"{name}.fp16"))
        stored.dtype, stored.shape = ir.DataType.FLOAT16, value.shape
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
        cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, value.shape
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[name]
        cast.outputs[0].name = name
        graph.register_initializer(stored)
        casts.append(cast)
    graph.insert_before(graph[0], casts)
    return largest


def to_fp16(weights: np.ndarray, name: str, tolerance: float = 0.0) -> tuple[np.ndarray, float]:
    """Rounds an array to float16; returns it and the largest change of any one number.

    Raises:
        ValueError: A number would change by more than `tolerance`, or leaves the range of float16.
    """
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    change = float(np.abs(half.astype(np.float32) - weights).max(initial=0.0))
    if not change <= tolerance:
        raise ValueError(
            f"{name} {weights.shape}: float16 would change a weight by {change:.3g}, more than the tolerance "
            f"{tolerance:.3g}; allow it, or export in fp32"
        )
    return half, change
