"""Files of OpenVINO's own (its intermediate representation): a graph in XML, and its weights in a file beside it."""

from pathlib import Path
from typing import Any

from pydeper.errors import BundleError

_MOST_GRAPH_BYTES = 256 << 20
_PRECISIONS = {
    "int4": {"u4", "i4", "nf4", "f4e2m1"},
    "int8": {"u8", "i8", "f8e4m3", "f8e5m2"},
    "fp16": {"f16", "bf16"},
    "fp32": {"f32"},
}


def check_intermediate(path: Path) -> None:
    """Refuses a graph that is too large to be one, or that lacks its weights.

    Raises:
        BundleError: Says which file, and what to do.
    """
    if path.stat().st_size > _MOST_GRAPH_BYTES:
        raise BundleError(f"{path}: is larger than {_MOST_GRAPH_BYTES} bytes, which no graph is; fetch it again")
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise BundleError(f"{path}: its weights {weights.name} are not beside it; fetch the bundle again")


def make_stateless(model: Any) -> None:
    """Turns what an `openvino.Model` keeps between runs into inputs `past_key_values.*` and outputs `present.*`.

    Optimum's language models keep keys and values, and choose and order their rows by the input `beam_idx`, which goes.
    The state belongs to one sequence of runs; here one image's keys and values are continued by several descriptions.
    """
    if model.get_variables():
        from openvino._offline_transformations import stateful_to_stateless_transformation

        stateful_to_stateless_transformation(model)


def weights_precision(model: Any) -> str:
    """Returns the precision of an `openvino.Model`: that of its narrowest weights (matrices, that is)."""
    types = {
        node.get_element_type().to_string()
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) > 1
    }
    return next((precision for precision, names in _PRECISIONS.items() if types & names), "fp32")
