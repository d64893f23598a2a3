"""Where graphs run: on which of the installed runtimes, on which device, with how many threads."""

import importlib.util
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, get_args

import attrs

from pydeper.errors import InvalidArgumentError, RuntimeMissingError
from pydeper.runtime.devices import available_providers, check_device, explain_device, installed_runtimes, providers_for
from pydeper.runtime.graph import Session
from pydeper.runtime.openvino.session import available_openvino_devices, open_openvino_session
from pydeper.runtime.session import check_threads, open_session

Runtime = Literal["onnxruntime", "openvino"]

RUNTIME_VARIABLE = "PYDEPER_RUNTIME"

_EXTRAS: dict[Runtime, str] = {
    "onnxruntime": 'pip install "pydeper[cpu]"  (or "pydeper[gpu]" for an NVIDIA GPU)',
    "openvino": 'pip install "pydeper[openvino]"',
}


@attrs.frozen
class Target:
    """Where graphs run.

    Attributes:
        runtime: Which runtime.
        device: ``"cpu"``, ``"auto"``, or what else the runtime has: ``"cuda"`` of ONNX Runtime, ``"gpu"`` of OpenVINO.
        threads: CPU threads of one operator; None leaves the number to the runtime.
        reason: Why this runtime, for people.
    """

    runtime: Runtime = "onnxruntime"
    device: str = "cpu"
    threads: int | None = None
    reason: str = "as asked"

    def open(self, path: Path) -> Session:
        """Opens an ONNX file.

        Raises:
            RuntimeMissingError: The runtime is missing, or ONNX Runtime is installed twice.
            InvalidArgumentError: The device cannot be used, or `threads` is below 1.
            BundleError: The file is missing, refused by `pydeper.runtime.onnx_file`, or not a model that the runtime
                can run.
        """
        check_threads(self.threads)
        if self.runtime == "openvino":
            return open_openvino_session(path, device=self.device, threads=self.threads)
        session: Session = open_session(path, providers=providers_for(self.device), threads=self.threads)
        check_device(session, self.device)
        return session

    def available_devices(self) -> list[str]:
        """Returns the execution providers of ONNX Runtime, or the devices of OpenVINO, that are there.

        Raises:
            RuntimeMissingError: The runtime is missing, or ONNX Runtime is installed twice.
        """
        return available_openvino_devices() if self.runtime == "openvino" else available_providers()

    def explain_runtime(self) -> str:
        """Says which runtime it is, in which version, and why: ``"openvino 2026.4.1, the only runtime installed"``."""
        builds = [f"{name} {version}" for name, version in installed_runtimes().items() if self.runtime in name]
        return f"{' and '.join(builds) or self.runtime}, {self.reason}"

    def explain_device(self, taken: Sequence[str]) -> str:
        """Says which device a session runs on, and why; `taken` is what its `get_providers` returns."""
        if self.runtime == "openvino":
            return taken[0] + (", as asked" if self.device != "auto" else ": OpenVINO takes another only if asked to")
        return explain_device(self.device, taken)


def choose_target(
    runtime: Runtime | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
    readers: Collection[Runtime] = get_args(Runtime),
) -> Target:
    """Chooses the runtime, and says why.

    Args:
        runtime: Which; None is ``$PYDEPER_RUNTIME``, else the one that is installed and can read the files, and of both
            ONNX Runtime.
        device: See `Target`.
        threads: See `Target`.
        readers: The runtimes that can read the files in question. One that is named is not held to them.

    Raises:
        InvalidArgumentError: There is no such runtime, or `threads` is below 1.
        RuntimeMissingError: The runtime is not installed, or none is; gives the command that installs it.
    """
    check_threads(threads)
    named = os.environ.get(RUNTIME_VARIABLE, "").strip()
    there = [name for name in get_args(Runtime) if importlib.util.find_spec(name) is not None]
    if runtime is not None:
        return Target(_checked(runtime, "runtime", there), device, threads, "as asked")
    if named:
        return Target(_checked(named, f"${RUNTIME_VARIABLE}", there), device, threads, f"as ${RUNTIME_VARIABLE} says")
    if not there:
        raise RuntimeMissingError(f"no runtime is installed: {_EXTRAS['onnxruntime']}, or {_EXTRAS['openvino']}")
    if len(readers) == 1:
        (only,) = readers
        if only not in there:
            raise RuntimeMissingError(f"the model's files are for {only!r}, which is not installed: {_EXTRAS[only]}")
        if len(there) > 1:
            return Target(only, device, threads, "the only one that reads the model's files")
    if len(there) == 1:
        return Target(there[0], device, threads, "the only runtime installed")
    return Target("onnxruntime", device, threads, "the default where both runtimes are installed")


def _checked(name: str, where: str, there: Sequence[Runtime]) -> Runtime:
    runtime = next((known for known in get_args(Runtime) if known == name), None)
    if runtime is None:
        raise InvalidArgumentError(f"{where}: must be {' or '.join(map(repr, get_args(Runtime)))}, got {name!r}")
    if runtime not in there:
        raise RuntimeMissingError(f"{where}: {name!r} is not installed: {_EXTRAS[runtime]}")
    checked: Runtime = runtime
    return checked
