"""Linear layers with weights of 4 or 8 bits: a token that is decoded reads every weight, so fewer bits are faster."""

import logging
from typing import Any, Literal

import attrs
import numpy as np
import onnx_ir as ir
from torch import nn

from export.graphs.int8 import linear_layers, remove_unused, stored_weight

BLOCK = 128  # inputs that share a scale; measured: the fastest of 32, 64, 128 and 256 on a CPU
_MICROSOFT = "com.microsoft"


@attrs.frozen
class BlockRounding:
    """How weights become integers, a block of inputs at a time.

    Attributes:
        bits: Of a weight: 4 or 8.
        block: Inputs that share a scale: a power of two from 16 on.
        symmetric: Whether zero is the middle of the range; otherwise each block also has an offset.
    """

    bits: Literal[4, 8]
    block: int = BLOCK
    symmetric: bool = True


def quantize_nbits(model: ir.Model, layers: BlockRounding, last: BlockRounding | None = None) -> None:
    """Rewrites linear layers to ONNX Runtime's MatMulNBits.

    Activations are rounded to 8 bits row by row and block by block when it runs, so no row depends on another. The
    rounding of the weights is onnxruntime's own.

    Args:
        model: Changed in place, one weight after the other.
        layers: How the weights are rounded.
        last: The same for the last linear layer; None: as the others.
    """
    nodes = linear_layers(model)
    for node in nodes:
        _quantize(model, node, last if last is not None and node is nodes[-1] else layers)
    model.graph.opset_imports[_MICROSOFT] = 1


def _quantize(model: ir.Model, node: ir.Node, rounding: BlockRounding) -> None:
    x, value = node.inputs[0], node.inputs[1]
    assert x is not None
    assert value is not None
    weight = stored_weight(node)
    assert weight is not None
    features, outputs = weight.shape
    packed, scales, offsets = _rounded(np.ascontiguousarray(weight, np.float32), rounding)
    arrays = {"weight": packed, "scale": scales} | ({} if offsets is None else {"offset": offsets})
    parts = [
        ir.Value(name=f"{node.name}.{kind}", const_value=ir.tensor(array), shape=ir.Shape(array.shape))
        for kind, array in arrays.items()
    ]
    for part in parts:
        assert part.const_value is not None
        part.dtype = part.const_value.dtype
        model.graph.register_initializer(part)
    sizes = {"K": features, "N": outputs, "bits": rounding.bits, "block_size": rounding.block, "accuracy_level": 4}
    product = ir.node("MatMulNBits", [x, *parts], sizes, domain=_MICROSOFT)
    ir.convenience.replace_nodes_and_values(model.graph, node, [node], [product], node.outputs, product.outputs)
    remove_unused(value)


def round_weights(module: nn.Module, rounding: BlockRounding) -> None:
    """Rounds the weights of all linear layers of a torch module as `quantize_nbits` does; changes it."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            weight = layer.weight.data.numpy()
            stored = _rounded(np.ascontiguousarray(weight.T), rounding)
            layer.weight.data.numpy()[:] = _unpacked(*stored, rounding.bits)[:, : weight.shape[1]]


def _rounded(weight: np.ndarray, rounding: BlockRounding) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(K, N) float32 -> (N, blocks, bytes) uint8, (N, blocks) scales, offsets packed likewise or None."""
    packed, scales, offsets = _quantizer(rounding).qbits_block_quant(weight)
    return packed, scales, None if rounding.symmetric else offsets


def _quantizer(rounding: BlockRounding) -> Any:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        from onnxruntime.quantization import QuantFormat, matmul_nbits_quantizer
    finally:
        # The import turns on the whole program's log.
        root.setLevel(level)
        root.handlers[:] = handlers
    return matmul_nbits_quantizer.DefaultWeightOnlyQuantizer(
        matmul_nbits_quantizer.DefaultWeightOnlyQuantConfig(
            block_size=rounding.block,
            is_symmetric=rounding.symmetric,
            accuracy_level=4,
            bits=rounding.bits,
            quant_format=QuantFormat.QOperator,
        )
    )


def _unpacked(packed: np.ndarray, scales: np.ndarray, offsets: np.ndarray | None, bits: int) -> np.ndarray:
    """What `_rounded` gives -> (N, blocks * block) float32."""
    count, blocks = packed.shape[:2]
    middle: Any = 2 ** (bits - 1)
    if offsets is not None:
        middle = _halves(offsets.reshape(count, -1), bits)[:, :blocks, None].astype(np.float32)
    centred = _halves(packed, bits).astype(np.float32) - middle
    values: np.ndarray = (centred * scales.reshape(count, blocks, 1)).reshape(count, -1)
    return values


def _halves(packed: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of 4 bits out of bytes, the low half first; those of 8 bits as they are."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)
