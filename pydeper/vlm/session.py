"""ONNX Runtime sessions, and an explanation where there is no runtime."""

import importlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from pydeper.errors import BundleError, InvalidArgumentError, RuntimeMissingError

CPU = ("CPUExecutionProvider",)


def open_session(path: Path, *, providers: Sequence[str] = CPU, threads: int | None = None) -> Any:
    """Opens an ONNX file as an `onnxruntime.InferenceSession`.

    Args:
        path: The file; a file of external data stands beside it.
        providers: Execution providers, in order of preference.
        threads: Threads within one operation; None leaves the number to the runtime.

    Raises:
        RuntimeMissingError: ONNX Runtime is missing, or both of its builds are installed on top of each other.
        InvalidArgumentError: A provider is not in this build of the runtime, or `threads` is below 1.
        BundleError: The file is missing or not a model this runtime can load.
    """
    runtime = import_onnxruntime()
    if missing := [name for name in providers if name not in runtime.get_available_providers()]:
        raise InvalidArgumentError(
            f"this ONNX Runtime has no {missing[0]}; it has: {', '.join(runtime.get_available_providers())}"
        )
    if threads is not None and threads < 1:
        raise InvalidArgumentError(f"threads must be at least 1, or None for the runtime's choice, got {threads!r}")
    if not path.is_file():
        raise BundleError(f"{path}: no such file; the bundle is incomplete, fetch it again")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return runtime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # the runtime's own errors share no base class but this
        raise BundleError(f"{path}: ONNX Runtime {runtime.__version__} cannot load this model: {error}") from error


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
