"""Operators of ONNX files stated in OpenVINO's own, where OpenVINO does not read them as our graphs mean them.

`export.graphs.operators` says what each computes. OpenVINO 2026.4 reads the others (RMSNorm, attention within images,
matrices of 4 and 8 bits) by itself. It takes no rotary embedding without its optional attributes, its grouped attention
is for one row, and its quantization is for scales that are known before the graph runs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pydeper.runtime.openvino.attention import grouped_attention, numbers
from pydeper.runtime.openvino.library import import_openvino

_ONNX, _MICROSOFT = "", "com.microsoft"


def conversions() -> list[Any]:
    """Returns the extensions that an `openvino.Core` needs to read our graphs."""
    import_openvino()
    from openvino.frontend.onnx import ConversionExtension

    converters: list[tuple[str, str, Callable[[Any], list[Any]]]] = [
        ("RotaryEmbedding", _MICROSOFT, _rotary_embedding),
        ("GroupQueryAttention", _MICROSOFT, _grouped_query_attention),
        ("QuantizeLinear", _ONNX, _quantize_linear),
    ]
    return [ConversionExtension(*converter) for converter in converters]


def _rotary_embedding(node: Any) -> list[Any]:
    """Turns the pairs of every head by angles of its own at every token.

    The inputs are x (B, S, heads · d), positions (the table has a row a token, so they say nothing), and cosines and
    sines (B · S, d / 2). The output is as x.
    """
    from openvino import opset15 as op

    x, _, cos, sin = (node.get_input(i) for i in range(4))
    pairs = op.concat([numbers(-1, node.get_attribute("num_heads"), 2), _sizes(cos, 1, 2)], 0)
    first, second = op.split(op.reshape(x, pairs, special_zero=False), op.constant(2), 2).outputs()
    cos, sin = (op.unsqueeze(table, numbers(1, 2)) for table in (cos, sin))
    turned = [
        op.subtract(op.multiply(first, cos), op.multiply(second, sin)),
        op.add(op.multiply(second, cos), op.multiply(first, sin)),
    ]
    return [op.reshape(op.concat(turned, 2), op.shape_of(x), special_zero=False).output(0)]


def _grouped_query_attention(node: Any) -> list[Any]:
    """Causal attention over a cache whose rows end together: a shorter row has its padding on the left.

    The inputs are q (B, S, heads · d), k and v (B, S, kv_heads · d), past key and value (B, kv_heads, P, d), and the
    tokens of each row less one (B,), of which the padding follows. The outputs are (B, S, heads · d) and the key and
    value of all P + S tokens.
    """
    from openvino import opset15 as op

    q, k, v, past_key, past_value, last = (node.get_input(i) for i in range(6))
    heads, kv_heads = node.get_attribute("num_heads"), node.get_attribute("kv_num_heads")
    key = op.concat([past_key, _split_heads(k, kv_heads)], 2)
    value = op.concat([past_value, _split_heads(v, kv_heads)], 2)
    zero, one = (op.constant(np.array(number, np.int64)) for number in (0, 1))
    length, total = (op.squeeze(size, numbers(0)) for size in (_sizes(q, 1, 2), _sizes(key, 2, 3)))
    columns = op.unsqueeze(op.range(zero, total, one, "i64"), numbers(0))
    own = op.unsqueeze(op.range(op.subtract(total, length), total, one, "i64"), numbers(1))
    start = op.unsqueeze(op.subtract(op.subtract(total, one), op.convert(last, "i64")), numbers(1))
    visible = op.logical_and(
        op.unsqueeze(op.less_equal(columns, own), numbers(0, 1)),
        op.unsqueeze(op.greater_equal(columns, start), numbers(1, 2)),
    )
    attended = grouped_attention(_split_heads(q, heads).output(0), key.output(0), value.output(0), visible)
    merged = op.reshape(op.transpose(attended, numbers(0, 2, 1, 3)), numbers(0, 0, -1), special_zero=True)
    return [merged.output(0), key.output(0), value.output(0)]


def _quantize_linear(node: Any) -> list[Any]:
    """Rounds to 8 bits: x, scales of x or of each slice of its axis, zero points as the scales -> uint8 or int8."""
    from openvino import opset15 as op

    x, scale, middle = (node.get_input(i) for i in range(3))
    if scale.get_partial_shape().rank.get_length():
        rank = x.get_partial_shape().rank.get_length()
        sizes = [1] * rank
        sizes[node.get_attribute("axis", 1)] = -1
        scale, middle = (op.reshape(each, numbers(*sizes), special_zero=False) for each in (scale, middle))
    element = middle.get_element_type()
    lowest, highest = (0, 255) if element.to_string() == "u8" else (-128, 127)
    steps = op.add(op.round(op.divide(x, scale), "half_to_even"), op.convert(middle, "f32"))
    return [op.convert(op.clamp(steps, lowest, highest), element).output(0)]


def _split_heads(x: Any, heads: int) -> Any:
    """(B, S, heads · d) -> (B, heads, S, d)."""
    from openvino import opset15 as op

    return op.transpose(op.reshape(x, numbers(0, 0, heads, -1), special_zero=True), numbers(0, 2, 1, 3))


def _sizes(x: Any, start: int, end: int) -> Any:
    """The lengths of some axes."""
    from openvino import opset15 as op

    return op.slice(op.shape_of(x), numbers(start), numbers(end), numbers(1))
