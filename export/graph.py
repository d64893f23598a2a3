"""From a torch module to one ONNX file: traced, stripped of traces of this machine, stored, put in place at once."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor, nn

from export.quantize import store_fp16

Precision = Literal["fp32", "fp16"]

OPSET = 20  # the newest that every ONNX Runtime since 1.17 knows in full


def trace(
    module: nn.Module, inputs: Mapping[str, Tensor], axes: Mapping[str, Mapping[int, str]], output: str
) -> ir.Model:
    """Traces a module with one output.

    Args:
        module: In eval mode, on the CPU; takes `inputs` by name.
        inputs: Examples; dynamic axes must be longer than 1 and, where they differ in meaning, of different lengths.
        axes: The names of the dynamic axes of each input; axes of one name have one length.
        output: The output's name.
    """
    dimensions = {name: torch.export.Dim(name) for named in axes.values() for name in named.values()}
    shapes = {name: {axis: dimensions[d] for axis, d in axes[name].items()} for name in inputs}
    with warnings.catch_warnings():
        # Inputs that share an axis are meant to share its name; the other comes from inside the exporter.
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        program = torch.onnx.export(
            module,
            kwargs=dict(inputs),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(inputs),
            output_names=[output],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _strip(program.model)
    return program.model


def save(model: ir.Model, path: Path, precision: Precision, rounding_tolerance: float) -> None:
    """Writes a traced model as one file.

    Args:
        model: Changed in place where the precision is fp16.
        path: The file.
        precision: How weights are stored; computation is float32 either way.
        rounding_tolerance: fp16 only: largest change of any one weight that is accepted.

    Raises:
        ValueError: The precision is unknown, or a weight would be rounded by more than allowed.
    """
    if precision not in ("fp32", "fp16"):
        raise ValueError(f"precision is {precision!r}; choose 'fp32' or 'fp16'")
    if precision == "fp16":
        store_fp16(model, rounding_tolerance)
    ir.save(model, path)


def _strip(model: ir.Model) -> None:
    """Removes the stack traces that the exporter leaves on every node, and with them this machine's paths."""
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
