"""One array in the file format of `torch.save`, written without torch: what vLLM takes a soft token in."""

import io
import pickle
import struct
import zipfile

import numpy as np
import numpy.typing as npt

_STORAGES = {"float16": "HalfStorage", "float32": "FloatStorage", "float64": "DoubleStorage"}


def torch_file(array: npt.NDArray[np.floating]) -> bytes:
    """Returns the bytes of a file that `torch.load(..., weights_only=True)` reads as one contiguous tensor.

    The format is a zip archive whose members are not compressed: a pickle that says how the tensor lies in its
    storage, the storage's numbers, their byte order, and the version of the format.

    Args:
        array: Of float16, float32 or float64, in any shape.

    Raises:
        ValueError: It is of another type.
    """
    if array.dtype.name not in _STORAGES:
        raise ValueError(f"a tensor of {', '.join(_STORAGES)} can be written, not of {array.dtype}")
    members = {
        "data.pkl": _pickle(array.shape, _STORAGES[array.dtype.name]),
        "byteorder": b"little",
        "data/0": array.astype(array.dtype.newbyteorder("<")).tobytes(),
        "version": b"3\n",
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return file.getvalue()


def _pickle(shape: tuple[int, ...], storage: str) -> bytes:
    """Pickles ``_rebuild_tensor_v2(storage 0, offset 0, shape, strides, requires_grad=False, hooks={})``."""
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    numbers = int(np.prod(shape))
    return b"".join(
        [
            pickle.PROTO + b"\x02",
            _global("torch._utils", "_rebuild_tensor_v2"),
            pickle.MARK,
            *(pickle.MARK, _text("storage"), _global("torch", storage), _text("0"), _text("cpu"), _whole(numbers)),
            *(pickle.TUPLE, pickle.BINPERSID),
            _whole(0),
            *(pickle.MARK, *map(_whole, shape), pickle.TUPLE),
            *(pickle.MARK, *map(_whole, strides), pickle.TUPLE),
            pickle.NEWFALSE,
            *(_global("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE),
            *(pickle.TUPLE, pickle.REDUCE, pickle.STOP),
        ]
    )


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(text)) + text.encode()


def _whole(number: int) -> bytes:
    data = number.to_bytes(8, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data
