"""Attention on OpenVINO where several heads of queries read one head of keys and values."""

from typing import Any

import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset15 as op

from pydeper.runtime.openvino.attention import group_heads

SIZE = 8


def repeating(heads: int, kv_heads: int, *, axis: int = 2, scale: float | None = None, causal: bool = False) -> Any:
    """A model that repeats keys and values for every head, as transformers does, and attends."""
    q = op.parameter([-1, heads, -1, SIZE], name="q")
    keys, values = (op.parameter([-1, kv_heads, -1, SIZE], name=name) for name in ("keys", "values"))
    mask = op.parameter([-1, 1, -1, -1], openvino.Type.boolean, name="mask")
    times = [1, 1, 1, 1, 1]
    times[axis] = heads // kv_heads

    def repeated(x: Any) -> Any:
        more = op.broadcast(op.unsqueeze(x, op.constant([axis])), op.constant(times), broadcast_spec="BIDIRECTIONAL")
        return op.reshape(more, op.constant([0, heads, -1, SIZE]), special_zero=True)

    inputs = [q, repeated(keys), repeated(values), mask]
    if scale is not None:
        inputs.append(op.constant(np.array(scale, np.float32)))
    attended = op.scaled_dot_product_attention(*inputs, causal=causal)
    return openvino.Model([attended], [q, keys, values, mask], "attention")


def kinds(model: Any) -> set[str]:
    return {node.get_type_name() for node in model.get_ops()}


def computed(model: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (found,) = compiled(list(inputs.values())).values()
    return np.array(found)


def random_inputs(rows: int, heads: int, kv_heads: int, length: int, total: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(rows + total)
    mask = rng.random((rows, 1, length, total)) < 0.7
    mask[..., -1] = True  # a query that sees nothing has no answer
    return {
        "q": rng.standard_normal((rows, heads, length, SIZE), dtype=np.float32),
        "keys": rng.standard_normal((rows, kv_heads, total, SIZE), dtype=np.float32),
        "values": rng.standard_normal((rows, kv_heads, total, SIZE), dtype=np.float32),
        "mask": mask,
    }


@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.sampled_from([(2, 1), (4, 2), (6, 2), (6, 3), (4, 4)]),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from([None, 0.5]),
)
def test_the_answers_are_the_same_and_nothing_is_repeated(
    rows: int, heads: tuple[int, int], length: int, total: int, scale: float | None
) -> None:
    inputs = random_inputs(rows, *heads, length, total)
    model = repeating(*heads, scale=scale)
    expected = computed(model, inputs)
    group_heads(model)
    assert "Broadcast" not in kinds(model)
    np.testing.assert_allclose(computed(model, inputs), expected, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(repeating(4, 2, axis=1), id="all heads in turn"),
        pytest.param(repeating(4, 2, causal=True), id="causal"),
    ],
)
def test_other_attention_stays_as_it_is(model: Any) -> None:
    inputs = random_inputs(2, 4, 2, 3, 3)
    before, expected = kinds(model), computed(model, inputs)
    group_heads(model)
    assert kinds(model) == before
    np.testing.assert_allclose(computed(model, inputs), expected, atol=1e-6)
