"""Whether durations can be those of fixations in seconds: one rule for everything that makes trajectories."""

import math
import statistics
from collections.abc import Sequence

UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""Units of time, in seconds."""

SHORTEST, LONGEST = 0.01, 10.0
"""Seconds between which the median fixation of every trajectory lies that eyes or a pointer have made."""

_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_TYPICAL = 0.3


def likely_unit(number: float) -> str | None:
    """The unit in which a number would be the duration of a fixation, such as "milliseconds"; None where in none."""
    fitting = [unit for unit, seconds in UNITS.items() if SHORTEST <= number * seconds <= LONGEST]
    if not fitting:
        return None
    return _NAMES[min(fitting, key=lambda unit: abs(math.log(number * UNITS[unit] / _TYPICAL)))]


def why_implausible(durations: Sequence[float], unit: str = "s") -> str | None:
    """Says why durations cannot be meant so, and what to do.

    Args:
        durations: One or more, in seconds, each above 0.
        unit: What their numbers were read as.

    Returns:
        None where the median lies within `SHORTEST` and `LONGEST`.
    """
    median = statistics.median(durations)
    if SHORTEST <= median <= LONGEST:
        return None
    likely = likely_unit(median / UNITS[unit])
    looks = f"its number looks like {likely}" if likely else "that is no fixation in any unit from s to ns"
    return (
        f"the median fixation lasts {median:g} s, read as {unit}, and should last {SHORTEST:g} to {LONGEST:g} s; "
        f"{looks}: convert the durations or say their unit; where they are meant, say check_durations=False "
        "(in a shell: --no-check-durations)"
    )
