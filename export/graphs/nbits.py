"""Linear layers with weights of 4 or 8 bits: a token that is decoded reads every weight, so fewer bits are faster."""

import logging
from typing import Any

import numpy as np
import onnx_ir as ir
from torch import nn

from export.graphs.int8 import linear_layers, remove_unused, stored_weight

BLOCK = 128  # inputs that share a scale; measured: the fastest of 32, 64, 128 and 256 on a CPU
_MICROSOFT = "com.microsoft"


def quantize_nbits(model: ir.Model, bits: int) -> None:
    """Rewrites linear layers to ONNX Runtime's MatMulNBits: blocks of 128 inputs share a scale, symmetric about zero.

    Activations are rounded to 8 bits row by row and block by block when it runs, so no row depends on another. The
    rounding of the weights is onnxruntime's own.

    Args:
        model: Changed in place, one weight after the other.
        bits: 4 or 8.
    """
    quantizer = _quantizer(bits)
    for node in linear_layers(model):
        x, value = node.inputs[0], node.inputs[1]
        assert x is not None
        assert value is not None
        weight = stored_weight(node)
        assert weight is not None
        features, outputs = weight.shape
        packed, scales, _ = quantizer.qbits_block_quant(np.ascontiguousarray(weight, np.float32))
        parts = [
            ir.Value(name=f"{node.name}.{kind}", const_value=ir.tensor(array), shape=ir.Shape(array.shape))
            for kind, array in (("weight", packed), ("scale", scales))
        ]
        for part in parts:
            assert part.const_value is not None
            part.dtype = part.const_value.dtype
            model.graph.register_initializer(part)
        sizes = {"K": features, "N": outputs, "bits": bits, "block_size": BLOCK, "accuracy_level": 4}
        product = ir.node("MatMulNBits", [x, *parts], sizes, domain=_MICROSOFT)
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [product], node.outputs, product.outputs)
        remove_unused(value)
    model.graph.opset_imports[_MICROSOFT] = 1


def round_weights(module: nn.Module, bits: int) -> None:
    """Rounds the weights of all linear layers of a torch module as `quantize_nbits` does; changes it."""
    quantizer = _quantizer(bits)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            weight = layer.weight.data.numpy()
            packed, scales, _ = quantizer.qbits_block_quant(np.ascontiguousarray(weight.T))
            layer.weight.data.numpy()[:] = _unpacked(packed, scales, bits)[:, : weight.shape[1]]


def _quantizer(bits: int) -> Any:
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
            block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=bits, quant_format=QuantFormat.QOperator
        )
    )


def _unpacked(packed: np.ndarray, scales: np.ndarray, bits: int) -> np.ndarray:
    """(N, blocks, bytes) and one scale a block -> (N, blocks * BLOCK) float32."""
    if bits == 4:  # the low half of a byte comes first
        packed = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)
    centred = packed.astype(np.float32) - 2 ** (bits - 1)
    return (centred * scales.reshape(*packed.shape[:2], 1)).reshape(len(packed), -1)
