"""ONNX graphs of a layer or two, what ONNX Runtime computes with them, and plain rounding to compare with."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from onnx_ir import DataType

from pydeper.runtime.session import session_options

Array = np.ndarray


def graph(shape: list[str | int], nodes: list[ir.Node], weights: list[ir.Value], x: ir.Value) -> ir.Model:
    x.type, x.shape = ir.TensorType(DataType.FLOAT), ir.Shape(shape)
    outputs = [value for node in nodes for value in node.outputs if not value.uses()]
    for i, value in enumerate(outputs):
        value.name, value.type = f"y{i}", ir.TensorType(DataType.FLOAT)
    body = ir.Graph([x], outputs, nodes=nodes, initializers=weights, opset_imports={"": 20}, name="layers")
    return ir.Model(body, ir_version=10)


def constant(array: Array, name: str) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    return ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))


def linear(weight: Array, bias: Array | None = None, rank: int = 3) -> ir.Model:
    """x (..., K) -> y0 = x @ weight + bias."""
    x, w = ir.Value(name="x"), constant(weight, "weight")
    nodes, weights = [ir.node("MatMul", [x, w], name="layer")], [w]
    if bias is not None:
        weights.append(constant(bias, "bias"))
        nodes.append(ir.node("Add", [nodes[0].outputs[0], weights[1]]))
    return graph([f"axis{i}" for i in range(rank - 1)] + [len(weight)], nodes, weights, x)


def lookup(table: Array) -> ir.Model:
    """ids (batch, length) -> y0 = table[ids], y1 = table[ids] + 1."""
    x, stored, one = ir.Value(name="x"), constant(table, "table"), constant(np.array(1, np.float32), "one")
    rows = ir.node("Gather", [stored, x])
    other = ir.node("Gather", [stored, x])
    model = graph(["batch", "length"], [rows, other, ir.node("Add", [other.outputs[0], one])], [stored, one], x)
    x.type = ir.TensorType(DataType.INT64)
    return model


def run(model: ir.Model, x: Array) -> list[Any]:
    options = session_options(onnxruntime)
    options.intra_op_num_threads = 1
    data = ir.to_proto(model).SerializeToString()
    return list(onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, {"x": x}))


def rounded(weight: np.ndarray, bits: int, block: int = 128, *, symmetric: bool = True) -> np.ndarray:
    """(N, K) in whole steps, each block of inputs in steps of its own.

    Symmetric: the steps of the largest weight divided by -2^(bits - 1). Otherwise: so many steps as there are numbers
    of so many bits, from the smallest weight to the largest, zero among them.
    """
    result = np.empty_like(weight)
    for start in range(0, weight.shape[1], block):
        part = weight[:, start : start + block]
        if symmetric:
            low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
            extreme = np.take_along_axis(part, np.abs(part).argmax(axis=1)[:, None], axis=1)
            step = np.where(extreme == 0, 1, extreme / low)
        else:
            least, most = (ends(part, axis=1, keepdims=True, initial=0) for ends in (np.min, np.max))
            step = np.where(most == least, 1, (most - least) / (2**bits - 1))
            low = np.round(least / step)
            high = low + 2**bits - 1
        result[:, start : start + block] = np.clip(np.floor(part / step + 0.5), low, high) * step
    return result
