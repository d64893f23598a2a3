"""One linear layer as an ONNX graph, and what ONNX Runtime computes with it."""

import numpy as np
import onnx_ir as ir
import onnxruntime


def linear(weights: np.ndarray) -> ir.Model:
    x, y = (
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", size]))
        for name, size in (("x", weights.shape[0]), ("y", weights.shape[1]))
    )
    initialiser = ir.Value(name="layer.weight", const_value=ir.tensor(weights, name="layer.weight"))
    initialiser.dtype, initialiser.shape = ir.DataType.FLOAT, ir.Shape(weights.shape)
    node = ir.Node("", "MatMul", [x, initialiser], outputs=[y])
    graph = ir.Graph([x], [y], nodes=[node], initializers=[initialiser], opset_imports={"": 20}, name="linear")
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data).run(None, {"x": x})[0]
