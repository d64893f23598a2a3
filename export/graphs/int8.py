"""Smaller and faster files: weights stored in half precision, linear layers and tables in 8-bit integers."""

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

MIN_FEATURES = 192  # of a layer in int8; measured: a narrower one loses more to quantising than it wins
_MIN_SIZE = 1024  # smaller tensors save nothing and may hold tables, such as rotary frequencies, that need all bits
_LIMIT = 127  # of an int8 weight
# Of an int8 weight that is an input of its graph, or that several layers share. On x86 processors without VNNI, ONNX
# Runtime adds two neighbouring products in 16 bits that saturate, and 2 · 255 · 64 is what fits there. It has exact
# kernels for others (`pydeper.runtime.session.session_options`), but not for inputs, and it fails to load what layers
# share. A uint8 input would be exact everywhere, but 2.4 times as slow with VNNI.
_SAFE_LIMIT = 64
_MICROSOFT = "com.microsoft"


def store_fp16(model: ir.Model, tolerance: float = 0.0) -> float:
    """Stores the float32 weights of an ONNX model as float16, each followed by a Cast to float32.

    ONNX Runtime folds the casts when it loads the model, so the computation stays in float32. A table, which is what
    Gather alone takes rows from, stays float16 in memory, too: there the gathered rows are cast. For weights that
    float16 represents exactly nothing changes but the size of the file. Vectors stay as they are.

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
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) < 2 or tensor.size < _MIN_SIZE:
            continue
        half, change = to_fp16(tensor.numpy(), name, tolerance)
        largest = max(largest, change)
        stored = _initializer(graph, f"{name}.fp16", half)
        if gathers := _gathers(value):
            for gather in gathers:
                rows = ir.node("Gather", [stored, _inputs(gather)[1]])
                _replace(gather, [rows, ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT})])
            del graph.initializers[name]
            continue
        cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
        cast.outputs[0].dtype, cast.outputs[0].shape = ir.DataType.FLOAT, value.shape
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[name]
        cast.outputs[0].name = name
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


# Integers


def quantize_linear_int8(
    model: ir.Model, names: Collection[str] | None = None, *, min_features: int = MIN_FEATURES
) -> list[str]:
    """Rewrites linear layers to multiply integers: int8 weights, activations quantised as they come, row by row.

    A linear layer is MatMul(x, W) with a constant W: an initialiser, or one behind Cast, Transpose or Identity; a bias
    that is added afterwards stays as it is. It becomes ((q - 128) · Wq) · column scale · row scale, where
    q = round(x / row scale) + 128 is uint8 and the row scale is max |x| / 127. Every row of x (..., K) has a scale of
    its own: no row depends on what else is in the batch, and an outlier costs no row but its own any precision.

    On x86 processors without VNNI, ONNX Runtime's sums saturate if it is not told otherwise, see
    `pydeper.runtime.session.session_options`; then the numbers are the same everywhere.

    Activations must be finite: a NaN becomes some number.

    Args:
        model: Changed in place, one weight after the other. It needs ONNX Runtime afterwards, whose own operator
            MatMulIntegerToFloat it uses.
        names: The MatMul nodes to rewrite; None for all with a constant (K, N) weight. Other operators, Gemm among
            them (torch's linear layer over 2-D activations), are left alone.
        min_features: Layers with fewer inputs or outputs than this are left alone.

    Returns:
        The names of the MatMul nodes that were rewritten.

    Raises:
        ValueError: A name is none of a MatMul with a constant (K, N) weight, or a weight is not finite.
    """
    layers = {str(node.name): node for node in linear_layers(model)}
    if unknown := sorted(set(names or ()) - set(layers)):
        raise ValueError(f"{unknown[0]!r} is no MatMul with a constant (K, N) weight; there are: {', '.join(layers)}")
    weights: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    activations: dict[tuple[ir.Graph | ir.Function | None, ir.Value], tuple[ir.Value, ir.Value]] = {}
    rewritten = []
    for name, node in layers.items():
        weight = stored_weight(node)
        if weight is None or min(weight.shape) < min_features or (names is not None and name not in names):
            continue
        x, w = _inputs(node)
        if w not in weights:
            weights[w] = _store_weight(model.graph, w, weight)
        key = node.graph, x
        if key not in activations:
            activations[key] = _quantize_rows(model.graph, node, x, len(weight))
        _replace_matmul(model.graph, node, *activations[key], *weights[w])
        remove_unused(w)
        rewritten.append(name)
    if rewritten:
        model.graph.opset_imports[_MICROSOFT] = 1
    return rewritten


def linear_layers(model: ir.Model) -> list[ir.Node]:
    """Returns the MatMul nodes that `quantize_linear_int8` can rewrite, in the order of the graph."""
    return [node for node in model.graph.all_nodes() if stored_weight(node) is not None]


def quantized_weight(weight: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rounds a weight that a graph takes as an input, such as that of a streamed layer.

    Args:
        weight: (K, N) of any float type.
        name: What errors call it.

    Returns:
        (K, N) int8 within ±64, so that no processor's sums saturate, and (N,) float32 scales; their product is nearly
        the weight.

    Raises:
        ValueError: A number is not finite.
    """
    return _quantized(weight, _SAFE_LIMIT, name, axis=0)


def quantize_tables_int8(model: ir.Model) -> list[str]:
    """Stores tables, which are what Gather alone takes rows from, as int8 with one float32 scale a row.

    A row becomes round(row / scale) with the scale max |row| / 127; a row of zeros stays one. Only the rows that are
    gathered are ever turned back into float32.

    Args:
        model: Changed in place. Tables of fewer than 1024 numbers are left alone.

    Returns:
        The names of the initialisers that held the tables.

    Raises:
        ValueError: A number of a table is not finite.
    """
    graph = model.graph
    tables = []
    for name, value in list(graph.initializers.items()):
        tensor, gathers = value.const_value, _gathers(value)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or len(tensor.shape) != 2:
            continue
        if tensor.size < _MIN_SIZE or not gathers:
            continue
        integers, scale = _quantized(tensor.numpy(), _LIMIT, name, axis=1)
        stored = _initializer(graph, f"{name}.int8", integers)
        scales = _initializer(graph, f"{name}.scale", scale)
        last = _initializer(graph, "int8.last_axis", np.array([-1]))
        for gather in gathers:
            ids = _inputs(gather)[1]
            rows = ir.node("Gather", [stored, ids])
            floats = ir.node("Cast", rows.outputs, {"to": ir.DataType.FLOAT})
            scale_of_rows = ir.node("Gather", [scales, ids])
            column = ir.node("Unsqueeze", [scale_of_rows.outputs[0], last])
            product = ir.node("Mul", [floats.outputs[0], column.outputs[0]])
            _replace(gather, [rows, floats, scale_of_rows, column, product])
        del graph.initializers[name]
        tables.append(name)
    return tables


def _gathers(value: ir.Value) -> list[ir.Node]:
    """The nodes that use a value, where all of them gather rows from it; else none."""
    nodes = [node for node, index in value.uses() if node.op_type == "Gather" and not node.domain and index == 0]
    rows = all(node.attributes.get_int("axis", 0) == 0 for node in nodes)
    return nodes if rows and len(nodes) == len(value.uses()) and not value.is_graph_output() else []


def _replace(node: ir.Node, others: list[ir.Node]) -> None:
    """Puts nodes in the place of one; the last of them gives what it gave, under the same name."""
    ir.convenience.replace_nodes_and_values(_graph_of(node), node, [node], others, node.outputs, others[-1].outputs)


def stored_weight(node: ir.Node) -> np.ndarray | None:
    """Returns the constant (K, N) weight of a linear layer, a view in the type it is stored in; else None."""
    if node.op_type != "MatMul" or node.domain:
        return None
    weight = _constant(_inputs(node)[1])
    return weight if weight is not None and weight.ndim == 2 and weight.size else None


def _inputs(node: ir.Node) -> tuple[ir.Value, ...]:
    return tuple(value for value in node.inputs if value is not None)


def _constant(value: ir.Value) -> np.ndarray | None:
    """What a value always holds, as a view without a copy; behind a Cast to float still in the type it is stored in."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is not None:
        floats = tensor.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
        return tensor.numpy() if floats else None
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Identity" or (node.op_type == "Cast" and value.dtype in (None, ir.DataType.FLOAT)):
        return _constant(_inputs(node)[0])
    if node.op_type == "Transpose":
        stored = _constant(_inputs(node)[0])
        order = node.attributes.get_ints("perm", None)
        return None if stored is None else stored.transpose(order)
    return None


def _store_weight(graph: ir.Graph, value: ir.Value, weight: np.ndarray) -> tuple[ir.Value, ir.Value]:
    limit = _LIMIT if len(value.uses()) == 1 else _SAFE_LIMIT
    integers, scale = _quantized(weight, limit, str(value.name), axis=0)
    return _initializer(graph, f"{value.name}.int8", integers), _initializer(graph, f"{value.name}.scale", scale)


def _quantized(array: np.ndarray, limit: int, name: str, *, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Rounds to int8 of at most ±limit; returns it and its scales, one for every number but those along the axis."""
    largest = np.maximum(array.max(axis, keepdims=True), -array.min(axis, keepdims=True)).astype(np.float32)
    if not np.isfinite(largest).all():
        raise ValueError(f"{name} {array.shape}: a number is not finite; train it, or load it, again")
    scale = np.maximum(largest, np.finfo(np.float32).tiny * limit) / np.float32(limit)
    quotient = array / scale
    return np.rint(quotient, out=quotient).astype(np.int8), scale.squeeze(axis)


def _quantize_rows(graph: ir.Graph, before: ir.Node, x: ir.Value, features: int) -> tuple[ir.Value, ir.Value]:
    """Inserts nodes that turn x (..., K) into (..., K) uint8 about 128 and (..., 1) float32 scales."""
    last = _initializer(graph, "int8.last_axis", np.array([-1]))
    # The smallest normal number stands for the scale of a row of zeros.
    least = _initializer(graph, "int8.least", np.array(np.finfo(np.float32).tiny * 127, np.float32))
    share = _initializer(graph, "int8.share", np.array(1 / 127, np.float32))
    middle = _initializer(graph, "int8.middle", np.array(128, np.uint8))
    rows = _initializer(graph, f"int8.rows_of_{features}", np.array([-1, features]))
    nodes: list[ir.Node] = []

    def add(operator: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        nodes.append(ir.node(operator, inputs, attributes))
        return nodes[-1].outputs[0]

    # Two reductions, not one of Abs(x): that would write all of x once more.
    negative = add("Neg", add("ReduceMin", x, last))
    scale = add("Mul", add("Max", add("ReduceMax", x, last), negative, least), share)
    flat_scale = add("Reshape", scale, last)
    zero_points = add("Expand", middle, add("Shape", flat_scale))
    flat = add("QuantizeLinear", add("Reshape", x, rows), flat_scale, zero_points, axis=0)
    quantized = add("Reshape", flat, add("Shape", x))
    _graph_of(before).insert_before(before, nodes)
    return quantized, scale


def _replace_matmul(
    graph: ir.Graph,
    node: ir.Node,
    quantized: ir.Value,
    row_scale: ir.Value,
    integers: ir.Value,
    column_scale: ir.Value,
) -> None:
    one = _initializer(graph, "int8.one", np.array(1, np.float32))
    middle = _initializer(graph, "int8.middle", np.array(128, np.uint8))
    product = ir.node("MatMulIntegerToFloat", [quantized, integers, one, column_scale, middle], domain=_MICROSOFT)
    _replace(node, [product, ir.node("Mul", [product.outputs[0], row_scale])])


def _graph_of(node: ir.Node) -> ir.Graph | ir.Function:
    assert node.graph is not None
    return node.graph


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Registers a constant, or returns the one that is already there by this name."""
    if name not in graph.initializers:
        tensor = ir.tensor(np.ascontiguousarray(array), name=name)
        graph.register_initializer(
            ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
        )
    return graph.initializers[name]


def remove_unused(value: ir.Value) -> None:
    """Removes a constant from its graph if nothing uses it any more, and the nodes that made it from others."""
    if value.uses() or value.is_graph_output():
        return
    node = value.producer()
    if node is None:
        assert value.graph is not None
        del value.graph.initializers[str(value.name)]
        return
    sources = _inputs(node)
    _graph_of(node).remove(node, safe=True)
    for source in sources:
        remove_unused(source)
