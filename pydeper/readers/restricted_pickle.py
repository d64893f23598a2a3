"""`.npy` files that hold pickled objects, read without letting the pickle run anything.

A pickle may name any function to be called while it is read. Here only what numpy arrays, scalars and dtypes are made
of can be named, in stand-ins that do no more than that; dicts, lists, tuples, texts and numbers need no names.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pydeper.errors import InvalidSampleError

_OBJECT_ARRAY_HEADER = 10_000
"""Longest header that is read, in bytes; that of one object is about 100."""


def load_object(path: Path) -> Any:
    """Reads the one object that `numpy.save` has pickled into a `.npy` file; one written by Python 2 as well.

    Raises:
        InvalidSampleError: The file cannot be read, holds no such object, or its pickle names anything but numpy
            arrays, scalars and dtypes; the message gives the name, and leaves the path to the caller.
    """
    try:
        with path.open("rb") as file:
            _read_header(file)
            pickled = file.read()
        _check_memo(pickled)
        array = _Unpickler(io.BytesIO(pickled), encoding="latin1").load()
    except _RefusedError as error:
        raise InvalidSampleError(str(error)) from error
    except Exception as error:  # a damaged pickle fails in any way, wherever its first wrong byte leads
        raise InvalidSampleError(f"is no .npy file that holds an object ({error}); fetch it again") from error
    if not isinstance(array, np.ndarray) or array.shape != () or array.dtype != object:
        raise InvalidSampleError(f"holds {type(array).__name__}, not one object; fetch it again")
    return array.item()


def _read_header(file: BinaryIO) -> None:
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format version {version} is not known")
    shape, _, dtype = read(file, max_header_size=_OBJECT_ARRAY_HEADER)
    if shape != () or not dtype.hasobject:
        raise ValueError(f"it holds an array of shape {shape} and type {dtype}")


def _check_memo(pickled: bytes) -> None:
    # A pickle numbers what it refers to again, and the unpickler makes room for as many as the largest number says.
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > len(pickled):
            raise _RefusedError(f"its pickle numbers an object {argument}; it is made to fill memory")


class _RefusedError(pickle.UnpicklingError):
    """The pickle is whole, and asks for what is not done."""


class _NDArray:
    """Stands for `numpy.ndarray` in a pickle, where it is only ever handed to `_reconstruct`."""


def _reconstruct(kind: object, shape: object, _: object) -> np.ndarray[Any, Any]:
    if kind is not _NDArray or shape != (0,):
        raise _RefusedError(f"an array begins as {kind!r} of shape {shape!r}, which no numpy array does")
    return np.ndarray(0, dtype=np.uint8)  # its shape, type and data follow as its state


def _scalar(dtype: object, value: object) -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject or not isinstance(value, bytes | str):
        raise _RefusedError(f"a scalar is made of {dtype!r} and {type(value).__name__}")
    data = value.encode("latin1") if isinstance(value, str) else value
    return np.frombuffer(data, dtype, count=1)[0]


def _bytes(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError(f"bytes are encoded as {encoding!r}, which numpy does not do")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): _NDArray,
    ("_codecs", "encode"): _bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(
                f"its pickle names {module}.{name}, which is not read: it could run anything; only numpy arrays, "
                "scalars and dtypes are, in plain dicts, lists and tuples. Do not open this file elsewhere either"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError(f"its pickle refers to something outside it ({pid!r}), which is not read")
