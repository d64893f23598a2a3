"""What ONNX Runtime is asked, to see whether its sums of 8-bit products are exact on a processor."""

from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from pydeper.runtime import integer_sums


def test_the_question_is_a_product_of_constants() -> None:
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 4])
    y = helper.make_tensor_value_info("y", TensorProto.INT32, [2, 1])
    w = helper.make_tensor("w", TensorProto.INT8, [4, 1], bytes([127] * 4), raw=True)
    graph = helper.make_graph([node], "product", [x], [y], [w])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.ClearField("producer_name")
    assert model.SerializeToString() == integer_sums._PRODUCT


def test_a_sum_that_is_too_small_is_noticed() -> None:
    class Saturating:
        """An ONNX Runtime as it answers on a processor with AVX2 and without VNNI."""

        SessionOptions = onnxruntime.SessionOptions

        class InferenceSession:
            def __init__(self, *_: Any, **__: Any) -> None: ...

            def run(self, *_: Any) -> list[np.ndarray]:
                return [np.full((2, 1), 2 * (2**15 - 1), np.int32)]

    assert integer_sums.sums_saturate(Saturating)
