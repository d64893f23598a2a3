"""ONNX Runtime sessions, and an explanation where there is no runtime."""

import importlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from pydeper.errors import BundleError, InvalidArgumentError, RuntimeMissingError
from pydeper.runtime.forks import ProcessBound
from pydeper.runtime.onnx_file import check_model

CPU = ("CPUExecutionProvider",)


def open_session(path: Path, *, providers: Sequence[str] = CPU, threads: int | None = None) -> Any:
    """Opens an ONNX file as an `onnxruntime.InferenceSession`, for this process alone (`pydeper.runtime.forks`).

    The file need not be trusted: `pydeper.runtime.onnx_file` goes over it before ONNX Runtime does.

    Args:
        path: The file; a file of external data stands beside it.
        providers: Execution providers, in order of preference.
        threads: Threads within one operation; None leaves the number to the runtime.

    Raises:
        RuntimeMissingError: ONNX Runtime is missing, or both of its builds are installed on top of each other.
        InvalidArgumentError: A provider is not in this build of the runtime, or `threads` is below 1.
        BundleError: The file is missing, refused by `check_model`, or not a model this runtime can load.
    """
    runtime = import_onnxruntime()
    if missing := [name for name in providers if name not in runtime.get_available_providers()]:
        raise InvalidArgumentError(
            f"this ONNX Runtime has no {missing[0]}; it has: {', '.join(runtime.get_available_providers())}"
        )
    check_threads(threads)
    if not path.is_file():
        raise BundleError(f"{path}: no such file; the bundle is incomplete, fetch it again")
    check_model(path)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # Idle threads would go on spinning for a while after a run, and take the cores from the next session's run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # Without another provider to fall back to, a second try would only print the first one's error.
        session = runtime.InferenceSession(
            path, options, providers=list(providers), enable_fallback=int(tuple(providers) != CPU)
        )
    except Exception as error:  # the runtime's own errors share no base class but this
        raise BundleError(f"{path}: ONNX Runtime {runtime.__version__} cannot load this model: {error}") from error
    return ProcessBound(session)


def check_threads(threads: int | None) -> None:
    """Refuses what is not a number of threads.

    Raises:
        InvalidArgumentError: `threads` is neither None nor a whole number from 1 on.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InvalidArgumentError(f"threads: must be a whole number from 1 on, or None, got {threads!r}")


def check_names(path: Path, session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
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


def check_shape(path: Path, session: Any, name: str, wanted: Sequence[int | None], key: str) -> None:
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


def element_type(session: Any, name: str) -> type[np.floating[Any]]:
    """Returns the element type of an input: numpy's float32 or float16."""
    found = next(value.type for value in session.get_inputs() if value.name == name)
    return np.float16 if found == "tensor(float16)" else np.float32


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def import_onnxruntime() -> Any:
    """Imports the `onnxruntime` module.

    Raises:
        RuntimeMissingError: It is missing, or both of its builds are installed on top of each other.
    """
    # The two builds install into one folder: with both, one silently hides the other.
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        raise RuntimeMissingError(
            "onnxruntime and onnxruntime-gpu are both installed, and each overwrites the other's files: "
            'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "pydeper[cpu]"  (or "pydeper[gpu]")'
        )
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise RuntimeMissingError(
            'ONNX Runtime cannot be imported: pip install "pydeper[cpu]"  (or "pydeper[gpu]" for an NVIDIA GPU)'
        ) from error


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
