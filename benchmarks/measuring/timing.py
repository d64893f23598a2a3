"""How long something takes."""

import statistics
import time
from collections.abc import Callable, Mapping
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


def medians_in_turn(works: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of several works, each done `runs` times in turn, A B A B …, after a first time to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for run in range(runs + 1):
        for name, work in works.items():
            took = seconds(work)
            if run:  # the first is a warm-up
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}
