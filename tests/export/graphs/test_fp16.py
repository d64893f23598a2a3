"""Weights stored in half precision: what is lost, and what is refused."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir import DataType

from export.graphs.int8 import store_fp16, to_fp16
from tests.export.onnx_graphs import Array, linear, lookup, run


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_representable_weights_are_stored_without_loss() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((40, 50)).astype(np.float16).astype(np.float32)
    x = rng.standard_normal((3, 40), dtype=np.float32)
    model = linear(weights, rank=2)
    before, size = run(model, x)[0], len(ir.to_proto(model).SerializeToString())
    assert store_fp16(model) == 0
    np.testing.assert_array_equal(run(model, x)[0], before)
    assert len(ir.to_proto(model).SerializeToString()) < 0.6 * size


@pytest.mark.parametrize(("value", "change"), [(0.1, "2.4"), (1e6, "inf"), (1e-9, "1e-09"), (float("nan"), "nan")])
def test_other_weights_are_named(value: float, change: str) -> None:
    weights = np.zeros((40, 50), dtype=np.float32)
    weights[3, 4] = value
    with pytest.raises(ValueError, match=rf"weight \(40, 50\): .* by {change}.*fp32"):
        store_fp16(linear(weights, rank=2))


def test_rounding_within_the_tolerance_is_stated() -> None:
    weights = np.full((40, 50), 0.1, dtype=np.float32)
    model = linear(weights, rank=2)
    rounding = store_fp16(model, tolerance=1e-3)
    assert rounding == pytest.approx(abs(float(np.float16(0.1)) - 0.1), rel=1e-3)
    np.testing.assert_allclose(
        run(model, np.ones((1, 40), dtype=np.float32))[0], 40 * float(np.float16(0.1)), rtol=1e-6
    )
    assert to_fp16(weights, "w", 1e-3)[0].dtype == np.float16


def test_half_precision_casts_the_gathered_rows_alone() -> None:
    table = normal(500, 64)
    model = lookup(table)
    assert 0 < store_fp16(model, 1e-2) < 1e-2
    stored = model.graph.initializers["table.fp16"]
    assert stored.dtype == DataType.FLOAT16
    assert {node.op_type for node, _ in stored.uses()} == {"Gather"}
    ids = np.array([[0, 499, 3]])
    np.testing.assert_array_equal(run(model, ids)[0], table.astype(np.float16)[ids])


def test_vectors_keep_all_their_bits() -> None:
    bias = normal(2048)
    model = linear(normal(16, 2048), bias)
    store_fp16(model, 1e-2)
    tensor = model.graph.initializers["bias"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), bias)
