"""Copies of what holds open files of a bundle: opened again, from where the bundle is."""

from typing import Any, Self

from pydeper.bundle.bundle import EncoderBundle


class Reopenable:
    """What `from_pretrained` opened and nobody changes: pickled, it says where its bundle is, and is opened from there.

    A session of ONNX Runtime cannot travel to another process; a copy within this one is the object itself.
    """

    def _remember(self, bundle: EncoderBundle, **settings: object) -> None:
        """Keeps what opens this again: the bundle and the further arguments of `from_pretrained`."""
        self._opened_with = {"name_or_folder": bundle.source, "revision": bundle.revision, **settings}

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (type(self), self._opened_with)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:
        return self


def _reopened(kind: Any, arguments: dict[str, object]) -> object:
    return kind.from_pretrained(**arguments)
