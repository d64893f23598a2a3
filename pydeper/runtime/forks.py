"""What must not cross a fork: a runtime (ONNX Runtime, OpenVINO), whose threads the child process does not have.

A session that is used in a forked child waits for those threads for ever. So does one that is destroyed there, and so
does the library itself when the child ends. A child is therefore told at the first use, never destroys the sessions it
inherited, and ends without the library's exit handlers.
"""

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

from pydeper.errors import ForkedProcessError


class ProcessBound:
    """A session of a runtime that knows which process it belongs to.

    Attributes:
        opened_any: Whether a session was ever opened in this process or one that it was forked from.
    """

    opened_any: ClassVar[bool] = False

    def __init__(self, session: Any) -> None:
        """Takes over a session that this process has opened."""
        self._session = session
        self._process = os.getpid()
        _sessions.add(self)
        ProcessBound.opened_any = True

    def _check_process(self) -> None:
        """Refuses to be used in another process than the one that opened the session."""
        if self._process != os.getpid():
            raise ForkedProcessError(
                f"this model was loaded in process {self._process}, and process {os.getpid()} was forked from it "
                "later; the runtime's threads do not survive a fork. Load the model in each process: with gunicorn "
                "leave out --preload or load it in the post_fork hook, with multiprocessing use the start method "
                "'spawn' or 'forkserver'"
            )


_sessions: "weakref.WeakSet[ProcessBound]" = weakref.WeakSet()
_resets: list[Callable[[], None]] = []


def after_fork_in_child(reset: Callable[[], None]) -> None:
    """Has `reset` called in every child that is forked from now on, such as to let go of models that are kept."""
    _resets.append(reset)


def _in_child() -> None:
    for bound in list(_sessions):
        # One reference more than there are, so that no count ever falls to 0 in this process.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(bound._session))
    if ProcessBound.opened_any:
        _end_without_exit_handlers()
    for reset in _resets:
        reset()


def _end_without_exit_handlers() -> None:
    """Has this process end after Python's own clean-up, before the exit handlers that shared libraries registered.

    Handlers run in the reverse order of their registration: first what C has buffered is written, then `_exit` takes
    the exit status. Where the C library has no `on_exit` (only glibc has), the child may still hang at its end.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)
        libc.__cxa_atexit(ctypes.cast(libc.fflush, ctypes.c_void_p), None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
