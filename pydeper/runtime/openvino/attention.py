"""Attention in an `openvino.Model` where several heads of queries read one head of keys and values."""

from typing import Any

import numpy as np


def grouped_attention(q: Any, keys: Any, values: Any, mask: Any, *scale: Any) -> Any:
    """Attends to keys and values where they are: the heads that share them become further rows of queries.

    Graphs usually repeat keys and values for every head instead. That writes and reads a multiple of the cache in each
    step, which takes longer than all else in the attention.

    Args:
        q: (B, heads, S, d); an `openvino.Output`, as all of them.
        keys: (B, kv_heads, T, d); kv_heads divides heads.
        values: As the keys.
        mask: (B or 1, 1, S, T), booleans, or numbers to add.
        scale: Of the products; without it 1 / √d.

    Returns:
        (B, heads, S, d).
    """
    from openvino import opset15 as op

    heads, kv_heads, size = _length(q, 1), _length(keys, 1), _length(keys, 3)
    rows = op.reshape(q, numbers(0, kv_heads, -1, size), special_zero=True)
    repeated = op.tile(mask, numbers(1, 1, heads // kv_heads, 1))
    attended = op.scaled_dot_product_attention(rows, keys, values, repeated, *scale)
    return op.reshape(attended, numbers(0, heads, -1, size), special_zero=True)


def group_heads(model: Any) -> None:
    """Has an `openvino.Model` that repeats keys and values attend as `grouped_attention` does.

    Other attention in it stays as it is.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or node.get_input_size() < 4:
            continue
        q, *repeated, mask = (node.input_value(i) for i in range(4))
        keys, values = (_before_repetition(each) for each in repeated)
        if keys is None or values is None or not _has_heads(q, 1, 3) or not _has_heads(mask, 1):
            continue
        if _length(mask, 1) != 1 or node.get_attributes()["causal"]:
            continue
        scale = [node.input_value(i) for i in range(4, node.get_input_size())]
        node.output(0).replace(grouped_attention(q, keys, values, mask, *scale).output(0))
    model.validate_nodes_and_infer_types()


def numbers(*values: int) -> Any:
    """A constant of 64-bit integers."""
    from openvino import opset15 as op

    return op.constant(np.array(values, np.int64))


def _before_repetition(repeated: Any) -> Any:
    """The (B, kv_heads, T, d) of which every head was repeated, as (B, kv_heads, times, T, d); None if none was."""
    chain = [repeated]
    for kind in ("Reshape", "Broadcast", "Unsqueeze"):
        if chain[-1].get_node().get_type_name() != kind:
            return None
        chain.append(chain[-1].get_node().input_value(0))
    _, _, unsqueezed, source = chain
    if not _has_heads(source, 1, 3):
        return None
    axes = [str(length) for length in unsqueezed.get_partial_shape()]
    return source if axes[1:3] == [str(_length(source, 1)), "1"] else None


def _has_heads(x: Any, *axes: int) -> bool:
    """Whether there are four axes, and the lengths of these are known before the model runs."""
    shape = x.get_partial_shape()
    return shape.rank.is_static and shape.rank.get_length() == 4 and all(shape[axis].is_static for axis in axes)


def _length(x: Any, axis: int) -> int:
    return int(x.get_partial_shape()[axis].get_length())
