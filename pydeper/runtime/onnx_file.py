"""Whether an ONNX file may be handed to ONNX Runtime: its structure, read without building anything from it.

An ONNX file is a protobuf message (https://protobuf.dev/programming-guides/encoding/), of which this reads what decides
about trust: which operators a graph uses, and which other files it wants. The file is mapped into memory and walked
from field to field; tensors are stepped over. It is stricter than protobuf: what no exporter writes is refused, so that
no two readers can see two different models in one file.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from pydeper.errors import BundleError
from pydeper.untrusted import file_size, is_plain_name, shown

DOMAINS = frozenset({b"", b"ai.onnx", b"com.microsoft"})
"""Domains of operators that models may use: ONNX's own, and those that every build of ONNX Runtime has."""

# Operators that do not compute: they hand a blob or another file to a driver, or call back into Python.
_REFUSED = frozenset({b"EPContext", b"PythonOp", b"PythonOpGrad", b"TritonOp", b"Snpe", b"ATen"})

_LARGEST = 2**31 - 1  # protobuf's own limit
_MOST_FIELDS = 4_000_000  # a decoder of 28 layers has some 50,000
_DEEPEST = 64  # messages in one another; a graph in a graph is three
_ELEMENTS_A_BYTE = 4  # of the narrowest element type, 2 bits

# Message -> number of a field that holds another message -> which. From onnx.proto, where numbers never change.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
}
# What no model for pydeper has, and what would bring in operators by another way, or memory without end.
_FORBIDDEN = {
    ("model", 20): "steps for training",
    ("model", 25): "functions of its own",
    ("graph", 15): "sparse tensors",
    ("attribute", 22): "sparse tensors",
    ("attribute", 23): "sparse tensors",
}
_OP_TYPE, _DOMAIN = 4, 7  # of a node
_DIMS, _EXTERNAL_DATA, _DATA_LOCATION = 1, 13, 14  # of a tensor
_KEY, _VALUE = 1, 2  # of an entry of external data
_EXTERNAL = 1  # a data location

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def check_model(path: Path) -> None:
    """Refuses an ONNX file that is damaged, uses unknown operators, or wants files that are not its own.

    Tensors outside the file must lie in a file beside it, named without any path, and inside that file's size.

    Args:
        path: The file.

    Raises:
        BundleError: It is refused; says why, and where.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if not 0 < size <= _LARGEST:
                raise BundleError(f"{path}: has {size} bytes, and an ONNX file has 1 to {_LARGEST}")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _Walk(path, data).message("model", 0, size, 0)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error


class _Walk:
    """One pass over one file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._fields_left = _MOST_FIELDS
        self._sizes: dict[bytes, int] = {}

    def message(self, kind: str, start: int, end: int, depth: int) -> None:
        """Walks over a message and those in it."""
        if depth > _DEEPEST:
            raise self._refusal(f"holds messages more than {_DEEPEST} deep in one another", start)
        inner = _MESSAGES[kind]
        for number, wire, at, following in self._fields(start, end):
            if what := _FORBIDDEN.get((kind, number)):
                raise self._refusal(f"holds {what}, which models for pydeper do not have", at)
            if number in inner:
                if wire != _BYTES:
                    raise self._refusal(f"field {number} of a {kind} must be a message", at)
                if inner[number] == "tensor":
                    self._tensor(at, following)
                else:
                    self.message(inner[number], at, following, depth + 1)
            elif kind == "node" and number in (_OP_TYPE, _DOMAIN):
                self._check_operator(number, self._text(wire, at, following), at)

    def _check_operator(self, number: int, name: bytes, at: int) -> None:
        if number == _OP_TYPE and name in _REFUSED:
            raise self._refusal(f"uses the operator {_shown(name)}, which runs something else", at)
        if number == _DOMAIN and name not in DOMAINS:
            known = ", ".join(repr(domain.decode()) for domain in sorted(DOMAINS))
            raise self._refusal(
                f"uses an operator of the domain {_shown(name)}, whose code is not ONNX Runtime's; known: {known}", at
            )

    def _tensor(self, start: int, end: int) -> None:
        elements, external = 1, False
        entries: dict[bytes, bytes] = {}
        for number, wire, at, following in self._fields(start, end):
            if number == _DIMS:
                elements *= self._elements(wire, at, following)
            elif number == _DATA_LOCATION:
                external |= wire != _VARINT or self._varint(at, following)[0] == _EXTERNAL
            elif number == _EXTERNAL_DATA:
                key, value = self._entry(wire, at, following)
                if key in entries:
                    raise self._refusal(f"says twice of a tensor what its {_shown(key)} is", at)
                entries[key] = value
        held = self._external(entries, start) if external or entries else end - start
        if elements > held * _ELEMENTS_A_BYTE:
            raise self._refusal(f"holds a tensor of {shown(elements)} elements in {held} bytes", start)

    def _elements(self, wire: int, at: int, following: int) -> int:
        """The product of the sizes in one field; writers may put one into a field, or all."""
        if wire not in (_VARINT, _BYTES):
            raise self._refusal("a tensor's shape must be whole numbers", at)
        elements = 1
        while at < following:
            size, at = self._varint(at, following)
            if size >= 2**63:
                raise self._refusal("a tensor's shape has a negative size", at)
            elements *= size
            if elements >= 2**63:
                raise self._refusal("a tensor's shape is too large", at)
        return elements

    def _entry(self, wire: int, start: int, end: int) -> tuple[bytes, bytes]:
        if wire != _BYTES:
            raise self._refusal("what is said of a tensor outside the file must be a message", start)
        found = {_KEY: b"", _VALUE: b""}
        for number, inner_wire, at, following in self._fields(start, end):
            if number in found:
                found[number] = self._text(inner_wire, at, following)
        return found[_KEY], found[_VALUE]

    def _external(self, entries: dict[bytes, bytes], at: int) -> int:
        """Returns how many bytes a tensor has in another file."""
        name = entries.get(b"location", b"")
        if name not in self._sizes:
            self._sizes[name] = self._size_beside(name, at)
        size = self._sizes[name]
        offset = self._number(entries.get(b"offset", b"0"), at)
        length = self._number(entries.get(b"length", b"%d" % max(size - offset, 0)), at)
        if offset + length > size:
            raise self._refusal(
                f"wants {length} bytes from byte {offset} of {_shown(name)}, which has {size}; fetch the bundle again",
                at,
            )
        return length

    def _size_beside(self, name: bytes, at: int) -> int:
        try:
            text = name.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not is_plain_name(text):
            raise self._refusal(
                f"wants weights from {_shown(name)}, which is not the name of a file beside it; do not use this model",
                at,
            )
        size = file_size(self._path.with_name(text))
        if size is None:
            raise self._refusal(f"wants weights from {text}, which is not beside it; fetch the bundle again", at)
        return size

    def _number(self, digits: bytes, at: int) -> int:
        if not (digits.isdigit() and len(digits) <= 19):
            raise self._refusal(f"places a tensor at {_shown(digits)}, which is not a number of bytes", at)
        return int(digits)

    def _text(self, wire: int, at: int, following: int) -> bytes:
        if wire != _BYTES or following - at > 4096:
            raise self._refusal("a name must be a text of at most 4096 bytes", at)
        return self._data[at:following]

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yields (number, wire type, first byte, byte after the last) of the fields of a message."""
        data, at = self._data, start
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise self._refusal(f"has more than {_MOST_FIELDS} fields", at)
            key, at = (data[at], at + 1) if data[at] < 0x80 else self._varint(at, end)
            number, wire = key >> 3, key & 7
            if not 0 < number < 2**29:
                raise self._refusal("is not an ONNX file, or damaged; fetch the bundle again", at)
            if wire == _BYTES:
                size, at = (data[at], at + 1) if at < end and data[at] < 0x80 else self._varint(at, end)
                following = at + size
            elif wire == _VARINT:
                following = self._varint(at, end)[1]
            elif wire in (_FIXED64, _FIXED32):
                following = at + (8 if wire == _FIXED64 else 4)
            else:
                raise self._refusal("is not an ONNX file, or damaged; fetch the bundle again", at)
            if following > end:
                raise self._refusal("is cut short or damaged; fetch the bundle again", at)
            yield number, wire, at, following
            at = following

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Returns a number of at most 64 bits, and the byte after it."""
        value = 0
        for place in range(min(end - at, 10)):
            byte = self._data[at + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                if value >= 2**64:
                    break
                return value, at + place + 1
        raise self._refusal("is cut short or damaged; fetch the bundle again", at)

    def _refusal(self, what: str, at: int) -> BundleError:
        return BundleError(f"{self._path}: {what} (at byte {at})")


def _shown(text: bytes) -> str:
    return shown(text.decode("utf-8", "replace"))
