"""How long something takes."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def seconds(work: Callable[[], object]) -> float:
    """Seconds alone."""
    return timed(work)[0]
