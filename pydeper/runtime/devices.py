"""Which device a model runs on: from "auto", "cpu" or "cuda" to the execution providers of ONNX Runtime."""

from collections.abc import Sequence
from importlib import metadata
from typing import Any

from pydeper.errors import InvalidArgumentError
from pydeper.runtime.session import import_onnxruntime

RUNTIME_BUILDS = ("onnxruntime", "onnxruntime-gpu", "openvino")
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"


def installed_runtimes() -> dict[str, str]:
    """Returns the installed runtimes and their versions. Two builds of ONNX Runtime break each other."""
    found = {}
    for name in RUNTIME_BUILDS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def available_providers() -> list[str]:
    """Returns the execution providers that the installed ONNX Runtime was built with, the preferred one first.

    Raises:
        RuntimeMissingError: ONNX Runtime is missing, or both of its builds are installed.
    """
    return list(import_onnxruntime().get_available_providers())


def providers_for(device: str) -> list[str]:
    """Returns the execution providers of a device, the preferred one first.

    Args:
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` (CUDA where the installed build has it, else the CPU).

    Raises:
        InvalidArgumentError: The device is none of these, or CUDA is asked for and the installed build lacks it.
        RuntimeMissingError: ONNX Runtime is missing, or both of its builds are installed.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidArgumentError(f"device: must be 'auto', 'cpu' or 'cuda', got {device!r}")
    has_cuda = _CUDA in available_providers()
    if device == "cuda" and not has_cuda:
        raise InvalidArgumentError(
            f"device: 'cuda' was asked for, but this ONNX Runtime has {', '.join(available_providers())} only: "
            'for an NVIDIA GPU replace it: `pip uninstall -y onnxruntime`, then `pip install "pydeper[gpu]"`; '
            "or use device='cpu'"
        )
    return [_CUDA, _CPU] if has_cuda and device != "cpu" else [_CPU]


def check_device(session: Any, device: str) -> None:
    """Refuses a session that does not use the device asked for: ONNX Runtime falls back with no more than a log line.

    Raises:
        InvalidArgumentError: `device` is ``"cuda"`` and the session runs on the CPU.
    """
    if device == "cuda" and _CUDA not in session.get_providers():
        raise InvalidArgumentError(
            "device: 'cuda' was asked for, but CUDA or cuDNN could not be loaded and ONNX Runtime fell back to "
            "the CPU: check `nvidia-smi`, and that the installed CUDA is the one this onnxruntime-gpu needs; or use "
            "device='cpu'"
        )


def explain_device(device: str, taken: Sequence[str]) -> str:
    """Says which device a session runs on, and why.

    Args:
        device: What was asked for.
        taken: The execution providers that the session uses, the preferred one first.

    Returns:
        A text such as ``"CPU: this ONNX Runtime has no CUDAExecutionProvider"``.
    """
    name = "CUDA" if _CUDA in taken else "CPU"
    if device != "auto":
        return f"{name}, as asked"
    if _CUDA in taken:
        return f"{name}: this ONNX Runtime has {_CUDA}, and it could be loaded"
    if _CUDA in available_providers():
        return f"{name}: this ONNX Runtime has {_CUDA}, but CUDA or cuDNN could not be loaded; check `nvidia-smi`"
    return f"{name}: this ONNX Runtime has no {_CUDA}"
