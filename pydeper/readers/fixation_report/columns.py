"""Which column of an unknown table is likely to be what, for a proposal."""

import re
from collections.abc import Sequence

_LIKELY: dict[str, tuple[str, ...]] = {
    "x": (r"fpogx", r"fix\w*( point)? x\b", r"fix\w* pos\w* x", r"\b(norm )?(pos\w* )?x\b", r"\bleft\b"),
    "y": (r"fpogy", r"fix\w*( point)? y\b", r"fix\w* pos\w* y", r"\b(norm )?(pos\w* )?y\b", r"\btop\b"),
    "duration": (r"fpogd\b", r"fix\w* dur", r"event dur", r"\bdur", r"dwell", r"\blast(s|ed)\b", r"^(ms|s)$"),
    "subject": (r"participant", r"recording session label", r"subject", r"\b(person|observer|viewer|who|proband)"),
    "image": (r"image", r"picture", r"stimulus", r"\bmedia\b", r"photo", r"\bfile ?name\b", r"\bwhat\b"),
    "trial": (r"trial", r"section id", r"recording (id|name)"),
    "start": (r"fpogs\b", r"fix\w* start", r"\b(start|onset|begin)", r"time ?stamp", r"\btime\b"),
    "fixation": (r"fpogid", r"fix\w* (id|index|number|no|nr)\b", r"event index", r"type index"),
}
"""Patterns of names for each role, the surest first; names are in lower case, with blanks for all other marks."""

_UNITS = {
    "us": r"\b(us|µs|μs|microsec\w*)\b",
    "ns": r"\bns\b",
    "ms": r"\b(ms|msec|millisec\w*)\b",
    "s": r"\b(s|sec\w*)\b",
}


def likely_columns(header: Sequence[str]) -> dict[str, str]:
    """The columns of a table by the roles that their names speak for; see `ReportFormat` for the roles.

    Args:
        header: The names of a table's columns.

    Returns:
        A column for each role that one speaks for; no column has two.
    """
    words = {name: re.sub(r"[\W_]+", " ", name).strip().lower() for name in header if name}
    chosen: dict[str, str] = {}
    for role, patterns in _LIKELY.items():
        free = [name for name in words if name not in chosen.values()]
        found = next((name for pattern in patterns for name in free if re.search(pattern, words[name])), None)
        if found is not None:
            chosen[role] = found
    return chosen


def likely_time_unit(column: str) -> str | None:
    """The unit that the name of a column of durations speaks of: "s", "ms", "us", "ns", or None."""
    words = re.sub(r"[\W_]+", " ", column).lower()
    return next((unit for unit, pattern in _UNITS.items() if re.search(pattern, words)), None)


def proposal(header: Sequence[str]) -> str:
    """The end of a message: the `ReportFormat` that the names of columns speak for, or nothing."""
    columns = likely_columns(header)
    if not {"x", "y", "duration"} <= columns.keys():
        return ""
    unit = likely_time_unit(columns["duration"])
    said = [f"{role}={column!r}" for role, column in columns.items()] + ([f"time_unit={unit!r}"] if unit else [])
    return f". By their names this is ReportFormat({', '.join(said)}), and units as x and y are"
