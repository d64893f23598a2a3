"""Linear layers and tables in 8-bit integers, tables in half precision: what ONNX Runtime computes with them."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import DataType

from export.graphs.int8 import (
    linear_layers,
    quantize_linear_int8,
    quantize_tables_int8,
    quantized_weight,
    store_fp16,
)
from tests.export.onnx_graphs import Array, constant, graph, linear, lookup, run


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def bound(x: Array, weight: Array) -> Array:
    """The largest rounding error there can be: half a step of every number, times what it is multiplied with."""
    row_step = np.abs(x).max(-1, keepdims=True) / 127
    column_step = np.abs(weight).max(0) / 127
    # A little more than half: scales and sums are float32.
    half = 0.501
    return (
        half * row_step * np.abs(weight).sum(0)
        + half * np.abs(x).sum(-1, keepdims=True) * column_step
        + half**2 * x.shape[-1] * row_step * column_step
        + 1e-30
    )


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    exponents=st.tuples(st.integers(-20, 20), st.integers(-8, 8)),
    seed=st.integers(0, 2**31),
)
def test_no_number_is_further_off_than_rounding_explains(
    shape: list[int], sizes: tuple[int, int], exponents: tuple[int, int], seed: int
) -> None:
    x = normal(*shape, sizes[0], seed=seed) * np.float32(10.0 ** exponents[0])
    weight = normal(*sizes, seed=seed + 1) * np.float32(10.0 ** exponents[1])
    model = linear(weight, rank=x.ndim)
    assert quantize_linear_int8(model, min_features=1) == ["layer"]
    (y,) = run(model, x)
    assert y.shape == (*shape, sizes[1])
    assert (np.abs(y - x.astype(np.float64) @ weight) <= bound(x, weight)).all()


def test_the_bias_is_added_as_before_and_the_output_keeps_its_name() -> None:
    x, weight, bias = normal(2, 3, 256), normal(256, 200, seed=1), normal(200, seed=2)
    model = linear(weight, bias)
    assert quantize_linear_int8(model) == ["layer"]
    assert [value.name for value in model.graph.outputs] == ["y0"]
    (y,) = run(model, x)
    exact = x @ weight + bias
    assert 0 < np.abs(y - exact).max() < 0.03 * np.abs(exact).max()
    assert "weight" not in model.graph.initializers
    assert model.graph.initializers["weight.int8"].dtype == DataType.INT8


def test_rows_of_any_size_keep_their_own_precision() -> None:
    weight = normal(64, 48, seed=1)
    x = normal(1, 6, 64) * np.array([1, 1e-30, 1e30, 0, 1e-6, 1e4], np.float32)[:, None]
    model = linear(weight)
    quantize_linear_int8(model, min_features=1)
    (y,) = run(model, x)
    exact = x.astype(np.float64) @ weight
    assert not y[0, 3].any()
    others = [0, 1, 2, 4, 5]
    error = np.linalg.norm((y - exact)[0, others], axis=1) / np.linalg.norm(exact[0, others], axis=1)
    assert (error < 0.02).all()


def test_a_row_is_the_same_in_any_company() -> None:
    x = normal(4, 7, 96) * np.array([1, 300, 1e-3, 20], np.float32)[:, None, None]
    model = linear(normal(96, 80, seed=1))
    quantize_linear_int8(model, min_features=1)
    (together,) = run(model, x)
    for i in range(len(x)):
        np.testing.assert_array_equal(run(model, x[i : i + 1])[0][0], together[i])
        np.testing.assert_array_equal(run(model, x[i : i + 1, 2:3])[0][0, 0], together[i, 2])


def test_neighbouring_products_of_a_weight_that_is_an_input_fit_sixteen_bits() -> None:
    largest = np.abs(quantized_weight(normal(64, 64), "weight")[0].astype(int)).max()
    assert largest == 64
    assert 2 * 255 * largest < 2**15


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="needs qemu-x86_64, which emulates older processors")
def test_a_processor_without_vnni_computes_the_same(tmp_path: Path) -> None:
    x, weight = np.abs(normal(4, 256)), np.abs(normal(256, 192, seed=1))
    model = linear(weight, rank=2)
    quantize_linear_int8(model)
    ir.save(model, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy\n"
        "from pathlib import Path\n"
        "from pydeper.runtime.session import open_session\n"
        "folder = Path(sys.argv[1])\n"
        "session = open_session(folder / 'model.onnx', threads=1)\n"
        "numpy.save(folder / 'y.npy', session.run(['y0'], {'x': numpy.load(folder / 'x.npy')})[0])\n"
    )
    # All is positive, so sums in 16 bits would saturate everywhere.
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    (expected,) = run(model, x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-6)


def test_columns_of_zeros_and_empty_batches() -> None:
    weight = normal(32, 16)
    weight[:, 3] = 0
    model = linear(weight)
    quantize_linear_int8(model, min_features=1)
    assert not run(model, normal(2, 3, 32))[0][..., 3].any()
    assert run(model, np.zeros((0, 3, 32), np.float32))[0].shape == (0, 3, 16)


@pytest.mark.parametrize("stored", [np.float16, np.float32])
def test_weights_behind_cast_and_transpose(stored: type) -> None:
    weight = normal(48, 40).astype(stored)
    x, w = ir.Value(name="x"), constant(weight.T.copy(), "weight")
    cast = ir.node("Cast", [w], {"to": DataType.FLOAT})
    turned = ir.node("Transpose", [cast.outputs[0]], {"perm": [1, 0]})
    same = ir.node("Identity", [turned.outputs[0]])
    layer = ir.node("MatMul", [x, same.outputs[0]], name="layer")
    model = graph(["batch", "length", 48], [cast, turned, same, layer], [w], x)
    exact = run(model, values := normal(2, 3, 48, seed=1))[0]
    assert quantize_linear_int8(model, min_features=1) == ["layer"]
    assert not {"Cast", "Transpose", "Identity", "MatMul"} & set(operators(model))
    assert "weight" not in model.graph.initializers
    assert (np.abs(run(model, values)[0] - exact) <= bound(values, weight.astype(np.float32))).all()


def test_layers_that_share_their_input_or_their_weight() -> None:
    x, w, other = ir.Value(name="x"), constant(normal(32, 32), "w"), constant(normal(32, 24, seed=1), "other")
    first = ir.node("MatMul", [x, w], name="first")
    second = ir.node("MatMul", [first.outputs[0], w], name="second")
    third = ir.node("MatMul", [x, other], name="third")
    model = graph(["batch", "length", 32], [first, second, third], [w, other], x)
    exact = run(model, values := normal(2, 3, 32, seed=2))
    assert quantize_linear_int8(model, min_features=1) == ["first", "second", "third"]
    assert operators(model).count("QuantizeLinear") == 2
    assert sum(value.dtype == DataType.INT8 for value in model.graph.initializers.values()) == 2
    for found, expected in zip(run(model, values), exact, strict=True):
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_what_is_not_a_linear_layer_or_was_not_named_is_left_alone() -> None:
    x, w, table = ir.Value(name="x"), constant(normal(256, 256), "w"), constant(normal(2, 256, 4), "stack")
    named = ir.node("MatMul", [x, w], name="named")
    unnamed = ir.node("MatMul", [x, w], name="unnamed")
    turned = ir.node("Transpose", [x], {"perm": [0, 2, 1]})
    dynamic = ir.node("MatMul", [x, turned.outputs[0]], name="dynamic")
    stacked = ir.node("MatMul", [x, table], name="stacked")
    model = graph([2, "length", 256], [named, unnamed, turned, dynamic, stacked], [w, table], x)
    exact = run(model, values := normal(2, 3, 256))
    assert quantize_linear_int8(model, ["named"]) == ["named"]
    assert operators(model).count("MatMul") == 3
    assert [node.name for node in linear_layers(model)] == ["unnamed"]
    found = run(model, values)
    assert (found[0] != exact[0]).any()
    for i in (1, 2, 3):
        np.testing.assert_array_equal(found[i], exact[i])
    with pytest.raises(ValueError, match=r"'dynamic' is no MatMul with a constant .* there are: unnamed"):
        quantize_linear_int8(model, ["dynamic"])


def test_narrow_layers_are_left_alone() -> None:
    for shape in ((191, 400), (400, 191)):
        model = linear(normal(*shape))
        assert quantize_linear_int8(model) == []
        assert operators(model) == ["MatMul"]
        assert dict(model.graph.opset_imports) == {"": 20}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weight = normal(8, 8)
    weight[2, 3] = value
    with pytest.raises(ValueError, match=r"weight \(8, 8\): a number is not finite"):
        quantize_linear_int8(linear(weight), min_features=1)


# Tables


@settings(max_examples=25)
@given(
    rows=st.integers(2, 60), exponents=st.lists(st.integers(-37, 37), min_size=2, max_size=60), seed=st.integers(0, 99)
)
def test_a_row_of_a_table_is_off_by_half_a_step_of_its_own(rows: int, exponents: list[int], seed: int) -> None:
    table = normal(rows, 512, seed=seed)
    table *= np.resize(np.array([10.0**e for e in exponents], np.float32), rows)[:, None]
    model = lookup(table)
    assert quantize_tables_int8(model) == ["table"]
    ids = np.random.default_rng(seed).integers(0, rows, (3, 4))
    gathered, plus_one = run(model, ids)
    # Steps are normal numbers, however small the row.
    step = np.maximum(np.abs(table).max(axis=1) / 127, np.finfo(np.float32).tiny)
    half_step = step[ids][..., None] * 0.501
    assert gathered.shape == (3, 4, 512)
    assert (np.abs(gathered - table[ids]) <= half_step).all()
    np.testing.assert_array_equal(plus_one, gathered + np.float32(1))


def test_rows_of_zeros_of_the_smallest_and_of_the_largest_numbers() -> None:
    table = normal(6, 256)
    table[1] = 0
    table[2] = np.finfo(np.float32).smallest_subnormal
    table[3, 7] = 3e38
    table[4] = np.finfo(np.float32).tiny
    table[5] = 0
    table[5, 0] = -1
    model = lookup(table)
    quantize_tables_int8(model)
    (rows, _) = run(model, np.arange(6)[None])
    np.testing.assert_allclose(rows[0, 0], table[0], atol=np.abs(table[0]).max() / 127)
    assert not rows[0, 1].any()
    assert (np.abs(rows[0, 2]) <= np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(rows[0, 3, 7], table[3, 7], rtol=1e-6)
    np.testing.assert_allclose(rows[0, 5], table[5], rtol=1e-6)
    assert np.isfinite(rows).all()


def test_what_is_no_table_is_not_stored_as_one() -> None:
    x, matrix = ir.Value(name="x"), constant(normal(64, 64), "matrix")
    layer = ir.node("MatMul", [x, matrix])
    ids = constant(np.array([1, 2]), "ids")
    columns = constant(normal(64, 64, seed=1), "columns")
    nodes = [layer, ir.node("Gather", [matrix, ids]), ir.node("Gather", [columns, ids], {"axis": 1})]
    model = graph(["batch", "length", 64], nodes, [matrix, ids, columns], x)
    assert quantize_tables_int8(model) == []
    assert quantize_tables_int8(lookup(normal(3, 4))) == []
    store_fp16(model, 1e-2)
    found = run(model, normal(1, 1, 64))
    np.testing.assert_array_equal(found[1], normal(64, 64).astype(np.float16)[[1, 2]])
    np.testing.assert_array_equal(found[2], normal(64, 64, seed=1).astype(np.float16)[:, [1, 2]])


def test_tables_that_are_not_finite_are_refused() -> None:
    table = normal(40, 40)
    table[5, 5] = np.nan
    with pytest.raises(ValueError, match=r"table \(40, 40\): a number is not finite"):
        quantize_tables_int8(lookup(table))
