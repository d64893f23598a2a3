"""SIGINT (Ctrl-C) and SIGTERM, which end a training after the step that is running."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A training was stopped by a signal, and has saved its checkpoint.

    Attributes:
        code: The exit code that says so to a shell.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def collect_signals(*, single_process: bool) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying from them; in a single process, a second SIGINT does end it at once.

    Among several processes it does not: launchers send on what the terminal has sent already.
    """
    received: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        if single_process and number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread gets signals
        return
    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_signal(count: float, received: Sequence[int]) -> int:
    """The signal to stop for; 0: none.

    Args:
        count: How many signals all ranks have received.
        received: Those of this rank.
    """
    if count == 0:
        return 0
    return received[-1] if received else signal.SIGTERM
