"""What an opened graph offers, whichever runtime computes it; and whether it is the graph that it should be."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pydeper.errors import BundleError


class GraphValue(Protocol):
    """An input or output of a graph."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def shape(self) -> Sequence[int | str | None]:
        """Its sizes; a size that the graph leaves open is not a number."""

    @property
    def type(self) -> str:
        """Its element type as ONNX Runtime writes it: ``"tensor(float)"``, ``"tensor(float16)"``, ..."""


class Session(Protocol):
    """An opened graph: the part of `onnxruntime.InferenceSession` that every runtime offers. Thread-safe."""

    def run(self, outputs: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        """Computes outputs from all inputs, by name."""

    def get_inputs(self) -> Sequence[GraphValue]:
        """The graph's inputs."""

    def get_outputs(self) -> Sequence[GraphValue]:
        """The graph's outputs."""

    def get_providers(self) -> Sequence[str]:
        """ONNX Runtime's execution providers, or OpenVINO's devices, the preferred one first."""


def check_names(path: Path, session: Session, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses a graph that does not take and give what it should.

    Raises:
        BundleError: An input or output is missing or unknown; names it.
    """
    for kind, needed, found in (
        ("input", inputs, [value.name for value in session.get_inputs()]),
        ("output", outputs, [value.name for value in session.get_outputs()]),
    ):
        if missing := [name for name in needed if name not in found]:
            raise BundleError(
                f"{path}: lacks the {kind} {missing[0]}, which config.json leads to{_more(missing)}; it has: "
                f"{', '.join(found[:8])}{_more(found[7:])}"
            )
        if kind == "input" and (unknown := [name for name in found if name not in needed]):
            raise BundleError(f"{path}: wants the {kind} {unknown[0]}, which pydeper does not know{_more(unknown)}")


def check_shape(path: Path, session: Session, name: str, wanted: Sequence[int | None], key: str) -> None:
    """Refuses a graph whose input or output is of another shape than `config.json` leads to.

    Args:
        path: The graph's file, for the message.
        session: The graph.
        name: Of an input or output that it has.
        wanted: The sizes; None for one that may be any. Where the graph leaves a size open, it fits.
        key: What `config.json` calls them, for the message.

    Raises:
        BundleError: It is of another shape; gives both.
    """
    found = next(value.shape for value in [*session.get_inputs(), *session.get_outputs()] if value.name == name)
    if len(found) != len(wanted) or any(
        size is not None and isinstance(there, int) and there != size for size, there in zip(wanted, found, strict=True)
    ):
        raise BundleError(
            f"{path}: {name} is of shape {found}, but config.json leads to "
            f"{['any' if size is None else size for size in wanted]} ({key}): the file is of another model"
        )


def element_type(session: Session, name: str) -> type[np.floating[Any]]:
    """Returns the element type of an input: numpy's float32 or float16."""
    found = next(value.type for value in session.get_inputs() if value.name == name)
    return np.float16 if found == "tensor(float16)" else np.float32


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
