"""Weights in 4 and 8 bits, a scale for each block: rounded as plainly as it can be said, and stored without loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.graphs.nbits import quantize_nbits, round_weights
from tests.export.onnx_graphs import linear, rounded, run


@pytest.mark.parametrize("bits", [4, 8])
@given(
    st.integers(1, 20),
    st.integers(1, 300),
    st.floats(1e-4, 1e4),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30)
def test_rounding_is_the_plain_one_and_the_one_that_is_stored(
    bits: int, outputs: int, features: int, scale: float, seed: int
) -> None:
    weight = (scale * np.random.default_rng(seed).standard_normal((outputs, features))).astype(np.float32)
    layer = nn.Linear(features, outputs, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
    round_weights(layer, bits)
    once = layer.weight.detach().numpy().copy()
    steps = np.abs(weight).max() / 2 ** (bits - 1)
    assert np.abs(once - rounded(weight, bits)).max() <= 1.001 * steps  # a tie may fall to either side
    assert np.isclose(once, rounded(weight, bits), rtol=1e-4, atol=1e-6 * steps).mean() > 0.99
    round_weights(layer, bits)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), once)

    # What the graph stores of rounded weights is these weights: activations of one number are exact in 8 bits.
    model = linear(once.T.copy(), rank=2)
    quantize_nbits(model, bits)
    np.testing.assert_allclose(
        run(model, np.eye(features, dtype=np.float32))[0], once.T, rtol=1e-5, atol=1e-5 * float(np.abs(once).max())
    )


def test_weights_of_zero_stay_zero() -> None:
    layer = nn.Linear(130, 3, bias=False)
    with torch.no_grad():
        layer.weight[1:] = 0
    for bits in (8, 4):
        round_weights(layer, bits)
        assert np.all(layer.weight.detach().numpy()[1:] == 0)
        assert np.any(layer.weight.detach().numpy()[0] != 0)
