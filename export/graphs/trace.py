"""From a torch module to one ONNX file: traced, stripped of traces of this machine, stored, put in place at once."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir
import torch
from torch import nn

from export.graphs.int8 import store_fp16

Precision = Literal["fp32", "fp16"]

OPSET = 20  # the newest that every ONNX Runtime since 1.17 knows in full
_SINGLE_FILE = 1 << 30  # bytes of weights; protobuf ends at 2 GB


def trace(
    module: nn.Module,
    inputs: Mapping[str, Any],
    dynamic_shapes: Mapping[str, Any],
    outputs: Sequence[str],
    input_names: Sequence[str] | None = None,
) -> ir.Model:
    """Traces a module.

    Args:
        module: On the CPU; takes `inputs` by name. It is put in eval mode.
        inputs: Examples; dynamic axes must be longer than 1 and, where they differ in meaning, of different lengths.
        dynamic_shapes: As torch.onnx.export takes them: for each input, axis -> its name or `torch.export.Dim`.
        outputs: The outputs' names.
        input_names: The inputs' names in the graph, where one input is a list of tensors.
    """
    with warnings.catch_warnings(), _without_torchvision_notices():
        # Inputs that share an axis are meant to share its name; the other comes from inside the exporter.
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        program = torch.onnx.export(
            module.eval(),
            kwargs=dict(inputs),
            dynamo=True,
            dynamic_shapes=dict(dynamic_shapes),
            input_names=list(input_names or inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    _strip(program.model)
    return program.model


@contextlib.contextmanager
def _without_torchvision_notices() -> Iterator[None]:
    """Keeps the exporter from saying, at each trace, that operators which are not used here have no library."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")

    def is_wanted(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def save(
    model: ir.Model, path: Path, precision: Precision, rounding_tolerance: float, single_file: int = _SINGLE_FILE
) -> float:
    """Writes a traced model: one file, and an `_data` file beside it where the weights are too large for one.

    Args:
        model: Changed in place where the precision is fp16.
        path: The file.
        precision: How weights are stored; computation is float32 either way.
        rounding_tolerance: fp16 only: largest change of any one weight that is accepted.
        single_file: Most bytes of weights that stand in the file itself.

    Returns:
        The largest change of any one weight.

    Raises:
        ValueError: The precision is unknown, or a weight would be rounded by more than allowed.
    """
    if precision not in ("fp32", "fp16"):
        raise ValueError(f"precision is {precision!r}; choose 'fp32' or 'fp16'")
    rounding = store_fp16(model, rounding_tolerance) if precision == "fp16" else 0.0
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    ir.save(model, path, external_data=f"{path.name}_data" if size > single_file else None)
    return rounding


def _strip(model: ir.Model) -> None:
    """Removes what the exporter notes of the machine it ran on: stack traces, with the paths of source files."""
    graph = model.graph
    nodes = list(graph.all_nodes())
    values = [*graph.inputs, *graph.initializers.values(), *(output for node in nodes for output in node.outputs)]
    described: list[Any] = [model, graph, *nodes, *values]
    for noted in described:
        noted.metadata_props.clear()
        noted.doc_string = None
