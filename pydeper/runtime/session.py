"""ONNX Runtime sessions, and an explanation where there is no runtime."""

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy.typing as npt

from pydeper.errors import BundleError, InvalidArgumentError, RuntimeMissingError
from pydeper.runtime.forks import ProcessBound
from pydeper.runtime.integer_sums import sums_saturate
from pydeper.runtime.onnx_file import check_model

CPU = ("CPUExecutionProvider",)


class OnnxRuntimeSession(ProcessBound):
    """An `onnxruntime.InferenceSession` for one process alone (`pydeper.runtime.forks`); else it is as that."""

    def run(self, outputs: Sequence[str], feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Runs the session, as `onnxruntime.InferenceSession.run` does."""
        self._check_process()
        found: list[npt.NDArray[Any]] = self._session.run(outputs, feeds)
        return found

    def run_with_iobinding(self, binding: Any) -> None:
        """Runs the session, as `onnxruntime.InferenceSession.run_with_iobinding` does."""
        self._check_process()
        self._session.run_with_iobinding(binding)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def open_session(path: Path, *, providers: Sequence[str] = CPU, threads: int | None = None) -> Any:
    """Opens an ONNX file as an `OnnxRuntimeSession`, for this process alone (`pydeper.runtime.forks`).

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
    options = session_options(runtime)
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        # Without another provider to fall back to, a second try would only print the first one's error.
        session = runtime.InferenceSession(
            path, options, providers=list(providers), enable_fallback=int(tuple(providers) != CPU)
        )
    except Exception as error:  # the runtime's own errors share no base class but this
        raise BundleError(f"{path}: ONNX Runtime {runtime.__version__} cannot load this model: {error}") from error
    return OnnxRuntimeSession(session)


def session_options(runtime: Any) -> Any:
    """`onnxruntime.SessionOptions` as every session of ours has them."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    # Idle threads would go on spinning for a while after a run, and take the cores from the next session's run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if sums_saturate(runtime):
        # Makes weights beyond ±64 unsigned: a slower kernel multiplies them, whose sums are exact.
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def check_threads(threads: int | None) -> None:
    """Refuses what is not a number of threads.

    Raises:
        InvalidArgumentError: `threads` is neither None nor a whole number from 1 on.
    """
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InvalidArgumentError(f"threads: must be a whole number from 1 on, or None, got {threads!r}")


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
