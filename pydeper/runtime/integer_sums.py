"""Whether ONNX Runtime's sums of 8-bit products are exact on this processor."""

from functools import cache
from typing import Any

import numpy as np

# An ONNX model: y = x · w in 32 bits, of x (2, 4) uint8 and w (4, 1) int8, which is 127 throughout.
_PRODUCT = (
    b'\x08\n:^\n\x18\n\x01x\n\x01w\x12\x01y"\rMatMulInteger\x12\x07product*\x0f\x08\x04\x08\x01\x10\x03B'
    b"\x01wJ\x04\x7f\x7f\x7f\x7fZ\x13\n\x01x\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08\x02\n\x02\x08\x04b"
    b"\x13\n\x01y\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x02\n\x02\x08\x01B\x04\n\x00\x10\x14"
)


@cache
def sums_saturate(runtime: Any) -> bool:
    """Asks ONNX Runtime for a product that is large enough; takes a millisecond, once in a process.

    On x86 processors without VNNI it adds two neighbouring products in 16 bits, which two of 255 · 127 do not fit.
    """
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.full((2, 4), 255, np.uint8)})[0]
    return bool((found != 4 * 255 * 127).any())
