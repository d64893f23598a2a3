"""OpenVINO sessions: an ONNX file, or one of OpenVINO's own, compiled for a device."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from pydeper.errors import BundleError, InvalidArgumentError
from pydeper.runtime.forks import ProcessBound
from pydeper.runtime.onnx_file import check_model
from pydeper.runtime.openvino.attention import group_heads
from pydeper.runtime.openvino.intermediate import check_intermediate, make_stateless, weights_precision
from pydeper.runtime.openvino.library import import_openvino
from pydeper.runtime.openvino.operators import conversions

Arrays = Mapping[str, npt.NDArray[Any]]

DEVICES = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU"}
"""What callers may ask for -> OpenVINO's device."""

# Exact, as ONNX Runtime computes: OpenVINO's own choice on processors with bfloat16 is bfloat16, and activations
# before 4- and 8-bit weights are rounded to 8 bits, each row in groups that have a scale of their own.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
# Of files of OpenVINO's own with rounded weights: its own choice, which is twice as fast, but groups of 128 activations
# share a scale in place of 32. Per token 4-bit layers take two thirds of the time, and a trained network's perplexity
# stays as it is: .995 [.981, 1.010] of float32's, 1.002 [.990, 1.013] with groups of 32.
_ROUNDED = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
_ROUNDED_PRECISIONS = ("int8", "int4")
# A model is one of several in a process: left to the system, their threads do not meet on the same cores.
_ON_CPU = {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}

_NOT_CONVERTED = re.compile(r"(?:No conversion rule found for operations|Conversion is failed for): (.+)")
_ONNX_TYPES = {"f32": "float", "f16": "float16", "i64": "int64", "i32": "int32"}


@attrs.frozen
class Value:
    """See `pydeper.runtime.graph.GraphValue`."""

    name: str
    shape: list[int | None]
    type: str


class OpenVINOSession(ProcessBound):
    """A `pydeper.runtime.graph.Session` on OpenVINO, for this process alone (`pydeper.runtime.forks`); thread-safe.

    Attributes:
        precision: ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int4"``, by the weights of a file of OpenVINO's own; None
            for an ONNX file.
    """

    def __init__(self, compiled: Any, device: str, precision: str | None = None) -> None:
        """Takes over a model that was compiled for a device."""
        super().__init__(compiled)
        self.precision = precision
        self._device = device
        # Where OpenVINO leaves out a cast, one value has the names of both sides.
        self._inputs = [_value_of(port, port.get_node().get_friendly_name()) for port in compiled.inputs]
        self._outputs = [_value_of(port, name) for port in compiled.outputs for name in sorted(port.get_names())]
        self._tensor = import_openvino().Tensor

    def get_inputs(self) -> Sequence[Value]:
        """See `Session`."""
        return self._inputs

    def get_outputs(self) -> Sequence[Value]:
        """See `Session`."""
        return self._outputs

    def get_providers(self) -> Sequence[str]:
        """See `Session`."""
        return [self._device]

    def run(self, outputs: Sequence[str], feeds: Arrays, *, into: Arrays | None = None) -> list[npt.NDArray[Any]]:
        """Computes outputs, as `Session.run` does.

        Args:
            outputs: Their names.
            feeds: All inputs.
            into: Further outputs, each computed into an array of its shape and type.

        Returns:
            Arrays of the caller's own.
        """
        self._check_process()
        # A request takes a twentieth of a millisecond to make, and lets go of what it was fed when it goes.
        request = self._session.create_infer_request()
        # A tensor is a view of its array, which it does not keep alive.
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()} | dict(into or {})
        for name, array in arrays.items():
            request.set_tensor(name, self._tensor(array, shared_memory=True))
        # Not `infer`, which gives back arbitrary numbers where memory has run out.
        request.start_async()
        request.wait()
        return [np.array(request.get_tensor(name).data) for name in outputs]


def available_openvino_devices() -> list[str]:
    """Returns the devices that OpenVINO finds here, as in ``["CPU", "GPU.0"]``.

    Raises:
        RuntimeMissingError: OpenVINO is missing.
    """
    return list(_core().available_devices)


def check_openvino_device(device: str) -> None:
    """Refuses a device that OpenVINO does not have here.

    Raises:
        InvalidArgumentError: It is not one of `DEVICES`, or not there; says which are.
        RuntimeMissingError: OpenVINO is missing.
    """
    if device == "cuda":
        raise InvalidArgumentError(
            "device: OpenVINO does not run on 'cuda': for an NVIDIA GPU use runtime='onnxruntime' "
            "(`pip install \"pydeper[gpu]\"`), or use device='cpu'"
        )
    if device not in DEVICES:
        raise InvalidArgumentError(f"device: must be {', '.join(map(repr, DEVICES))} on OpenVINO, got {device!r}")
    present = available_openvino_devices()
    if not any(name.split(".")[0] == DEVICES[device] for name in present):
        raise InvalidArgumentError(
            f"device: {device!r} was asked for, but OpenVINO finds no {DEVICES[device]} that it can use here, only "
            f"{', '.join(present) or 'nothing'}: install the driver of the device, or use device='cpu'"
        )


def open_openvino_session(
    path: Path, *, device: str = "cpu", threads: int | None = None, prepare: Callable[[Any], None] = lambda model: None
) -> OpenVINOSession:
    """Opens an ONNX file, or a file of OpenVINO's own (`.xml`), on OpenVINO.

    An ONNX file need not be trusted: `pydeper.runtime.onnx_file` goes over it before OpenVINO does. In a file of
    OpenVINO's own, what a model keeps between runs becomes inputs and outputs, so that its runs know nothing of each
    other.

    Args:
        path: The file; a file of external data stands beside it.
        device: One of `DEVICES`.
        threads: Threads of one run on a CPU; None leaves the number to OpenVINO.
        prepare: Changes the model, an `openvino.Model`, before it is compiled.

    Raises:
        RuntimeMissingError: OpenVINO is missing.
        InvalidArgumentError: The device is not there.
        BundleError: The file is missing, refused by `check_model`, or not a model that OpenVINO can run.
    """
    openvino = import_openvino()
    check_openvino_device(device)
    if not path.is_file():
        raise BundleError(f"{path}: no such file; the bundle is incomplete, fetch it again")
    is_onnx = path.suffix != ".xml"
    (check_model if is_onnx else check_intermediate)(path)
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY"}
    if DEVICES[device] == "CPU":
        settings |= _ON_CPU if threads is None else {**_ON_CPU, "INFERENCE_NUM_THREADS": threads}
    core = _core()
    try:
        model = core.read_model(path)
        precision = None if is_onnx else weights_precision(model)
        settings |= _ROUNDED if precision in _ROUNDED_PRECISIONS else _EXACT
        make_stateless(model)
        group_heads(model)
        prepare(model)
        compiled = core.compile_model(model, DEVICES[device], settings)
    except Exception as error:  # OpenVINO raises RuntimeError for everything
        raise BundleError(f"{path}: OpenVINO {openvino.__version__.partition('-')[0]} {_explained(error)}") from error
    return OpenVINOSession(compiled, DEVICES[device], precision)


class _Core(ProcessBound):
    """The `openvino.Core` of a process, with what it needs to read our graphs."""

    def __init__(self) -> None:
        core = import_openvino().Core()
        for conversion in conversions():
            core.add_extension(conversion)
        super().__init__(core)

    @property
    def core(self) -> Any:
        """The `openvino.Core`."""
        return self._session


_cores: dict[int, _Core] = {}


def _core() -> Any:
    """This process's `openvino.Core`, which stays until the process ends.

    OpenVINO gives the thread in which a core first loads the CPU's plugin another stack for signal handlers, and unmaps
    it with the core. Where cores come and go, the thread is left with a stack that is not there any more, and the next
    signal, such as that of Ctrl-C, is a segmentation fault.
    """
    process = os.getpid()
    if process not in _cores:
        _cores.setdefault(process, _Core())  # of two threads that get here, one core has done nothing yet and goes
    return _cores[process].core


def _value_of(port: Any, name: str) -> Value:
    shape, element = port.get_partial_shape(), port.get_element_type().to_string()
    sizes = [size.get_length() if size.is_static else None for size in shape] if shape.rank.is_static else []
    return Value(name, sizes, f"tensor({_ONNX_TYPES.get(element, element)})")


def _explained(error: Exception) -> str:
    if operators := _NOT_CONVERTED.search(str(error)):
        return (
            f'cannot run the operators {operators[1]} of this file: take the model in another precision ("fp32" and '
            '"fp16" have plain operators), or use runtime=\'onnxruntime\' (pip install "pydeper[cpu]")'
        )
    return f"cannot load this model: {error}"
