"""Which model is used where none is named."""

import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pydeper.runtime.forks import after_fork_in_child

DEFAULT_MODEL_VARIABLE = "PYDEPER_MODEL"
_warned_of_demonstration_model = False


class DemonstrationModelWarning(UserWarning):
    """The built-in demonstration model is used without having been asked for by name.

    Examples:
        >>> import warnings
        >>> from pydeper import DemonstrationModelWarning, demo_image, describe
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", DemonstrationModelWarning)
        ...     text = describe(demo_image())
    """


def default_model_name() -> str:
    """Returns ``$PYDEPER_MODEL``, or "tiny" with a `DemonstrationModelWarning` the first time in a process."""
    global _warned_of_demonstration_model
    if name := os.environ.get(DEFAULT_MODEL_VARIABLE, "").strip():
        return name
    if not _warned_of_demonstration_model:
        _warned_of_demonstration_model = True
        warnings.warn(
            "no model was named, so pydeper uses its built-in demonstration model 'tiny', which knows drawn scenes of "
            "coloured shapes only, not photographs. Name a real one: DeperModel.from_pretrained('org/name'), or set "
            f"{DEFAULT_MODEL_VARIABLE}=org/name. Naming 'tiny' keeps it, without this warning.",
            DemonstrationModelWarning,
            stacklevel=_frames_inside_pydeper(),
        )
    return "tiny"


_Opened = TypeVar("_Opened")


class OfDefaultModel(Generic[_Opened]):
    """What is opened of the default model: once for all threads, at its first use, and anew in a forked process."""

    def __init__(self, open_named: Callable[[str], _Opened]) -> None:
        """Keeps nothing yet; `open_named` takes the name of the default model."""
        self._open = open_named
        self._lock = threading.Lock()
        self._opened: dict[str, _Opened] = {}
        after_fork_in_child(self._forget)

    def get(self) -> _Opened:
        """Returns it; another default model than the last one takes its place."""
        name = default_model_name()
        with self._lock:
            if name not in self._opened:
                self._opened = {name: self._open(name)}
            return self._opened[name]

    def _forget(self) -> None:
        self._lock = threading.Lock()  # another thread may have held the old one at the moment of the fork
        self._opened = {}


def _frames_inside_pydeper() -> int:
    """Returns the `stacklevel` (for the caller's `warnings.warn`) of the line outside pydeper that led here."""
    home, level = str(Path(__file__).parents[1]) + os.sep, 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(home):
        frame, level = frame.f_back, level + 1
    return level
