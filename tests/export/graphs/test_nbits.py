"""Weights in 4 and 8 bits, a scale for each block: rounded as plainly as it can be said, and stored without loss."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.graphs.nbits import BlockRounding, quantize_nbits, round_weights
from tests.export.onnx_graphs import constant, graph, linear, rounded, run

ROUNDINGS = [
    BlockRounding(bits, block, symmetric) for bits in (4, 8) for block, symmetric in ((128, True), (32, False))
]


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)
@given(
    st.integers(1, 20),
    st.integers(1, 300),
    st.floats(1e-4, 1e4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=20)
def test_rounding_is_the_plain_one_and_the_one_that_is_stored(
    rounding: BlockRounding, outputs: int, features: int, scale: float, seed: int
) -> None:
    weight = (scale * np.random.default_rng(seed).standard_normal((outputs, features))).astype(np.float32)
    layer = linear_layer(weight)
    round_weights(layer, rounding)
    once = layer.weight.detach().numpy().copy()
    plain = rounded(weight, rounding.bits, rounding.block, symmetric=rounding.symmetric)
    steps = np.abs(weight).max() / 2 ** (rounding.bits - 1)
    assert np.abs(once - plain).max() <= 1.001 * steps  # a tie may fall to either side
    assert np.isclose(once, plain, rtol=1e-4, atol=1e-6 * steps).mean() > 0.99
    if rounding.symmetric:
        round_weights(layer, rounding)
        np.testing.assert_array_equal(layer.weight.detach().numpy(), once)

    # What the graph stores is these weights: activations of one number are exact in 8 bits.
    model = linear(weight.T.copy(), rank=2)
    quantize_nbits(model, rounding)
    np.testing.assert_allclose(
        run(model, np.eye(features, dtype=np.float32))[0], once.T, rtol=1e-5, atol=1e-5 * float(np.abs(once).max())
    )


def test_the_last_layer_may_be_rounded_in_another_way() -> None:
    weights = [np.random.default_rng(seed).standard_normal((40, 40)).astype(np.float32) for seed in (0, 1)]
    first, second = (linear_layer(weight) for weight in weights)
    round_weights(first, BlockRounding(4))
    round_weights(second, BlockRounding(8, 32))
    model = two_linear(*(weight.T.copy() for weight in weights))
    quantize_nbits(model, BlockRounding(4), BlockRounding(8, 32))
    bits = [node.attributes["bits"].as_int() for node in model.graph if node.op_type == "MatMulNBits"]
    assert bits == [4, 8]
    expected = second(first(torch.eye(40))).detach().numpy()
    np.testing.assert_allclose(
        run(model, np.eye(40, dtype=np.float32))[0], expected, atol=0.05 * np.abs(expected).max()
    )


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=str)
def test_weights_of_zero_stay_zero(rounding: BlockRounding) -> None:
    weight = np.random.default_rng(0).standard_normal((3, 130)).astype(np.float32)
    weight[1:] = 0
    layer = linear_layer(weight)
    round_weights(layer, rounding)
    assert np.all(layer.weight.detach().numpy()[1:] == 0)
    assert np.any(layer.weight.detach().numpy()[0] != 0)


def linear_layer(weight: np.ndarray) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    return layer


def two_linear(first: np.ndarray, second: np.ndarray) -> ir.Model:
    """x (..., K) -> x @ first @ second."""
    x, weights = ir.Value(name="x"), [constant(first, "first"), constant(second, "second")]
    inner = ir.node("MatMul", [x, weights[0]], name="inner")
    outer = ir.node("MatMul", [inner.outputs[0], weights[1]], name="outer")
    return graph(["rows", len(first)], [inner, outer], weights, x)
