"""`pydeper doctor --benchmark`: what a model takes on this machine, and the settings to take, as text and as JSON."""

import sys
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from pydeper.speed.compare import Comparison, Measured


def run_benchmark(model: str) -> "Comparison":
    """Measures a model with one choice of settings after the other, and tells on stderr which is being measured.

    Raises:
        PydeperError: The model cannot be found, or no runtime is installed; see `compare_settings`.
    """
    from pydeper.speed.compare import compare_settings

    return compare_settings(model, progress=lambda settings: print(f"measuring {settings} ...", file=sys.stderr))


def benchmark_text(comparison: "Comparison") -> str:
    """Returns the measured figures as a table, and which settings to take."""
    rows = [("", "load", "first token", "tokens/s", "peak memory"), *map(_row, comparison.measured)]
    widths = [max(len(row[column]) for row in rows if len(row) > 2) for column in range(5)]
    widths[0] = max(len(row[0]) for row in rows)
    lines = [f"benchmark of {comparison.model} on {comparison.cpu}; {comparison.cores} cores"]
    for name, *cells in rows:
        padded = (
            cells if len(cells) == 1 else [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        )
        lines.append("  ".join([f"  {name:<{widths[0]}}", *padded]))
    lines += [f"  not measured, since the time was up: {settings}" for settings in comparison.skipped]
    return "\n".join([*lines, *(f"  {line}" for line in advice(comparison))])


def benchmark_data(comparison: "Comparison") -> dict[str, Any]:
    """Returns the same for programs; times are in seconds, memory is in bytes."""
    return {**attrs.asdict(comparison), "advice": advice(comparison)}


def advice(comparison: "Comparison") -> list[str]:
    """Says which settings to take, how they are given, and what other precisions would save."""
    from pydeper.runtime.target import RUNTIME_VARIABLE
    from pydeper.speed.compare import DESCRIPTION_TOKENS, LARGE_PAGES

    best = comparison.best
    if best is None:
        return ["take: the model ran with none of these settings; see the messages above"]
    took = next(each.speed for each in comparison.measured if each.settings == best)
    assert took is not None
    lines = [
        f"take runtime: {best.runtime} (runtime={best.runtime!r}, or {RUNTIME_VARIABLE}={best.runtime})",
        "take threads: the runtime's own choice"
        if best.threads is None
        else f"take threads: {best.threads} (threads={best.threads}, or --threads {best.threads})",
        f"take precision: {took.precision}, the model's own",
    ]
    if best.large_pages:
        ((variable, value),) = LARGE_PAGES.items()
        lines.append(f"take large pages: start the process with {variable}={value} in its environment")
    for each in comparison.measured:
        if each.settings.precision is not None and each.speed is not None:
            times = each.speed.seconds_for(DESCRIPTION_TOKENS) / took.seconds_for(DESCRIPTION_TOKENS)
            lines.append(
                f"in {each.settings.precision} a description takes {times:.2f} times as long, and is somewhat another"
            )
    return lines


def _row(measured: "Measured") -> tuple[str, ...]:
    from pydeper.runtime.memory import readable_bytes

    speed = measured.speed
    if speed is None:
        return str(measured.settings), f"failed: {measured.failure}"
    return (
        str(measured.settings),
        f"{speed.load_seconds:.2f} s",
        f"{speed.first_token_seconds:.3f} s",
        "-" if speed.tokens_per_second is None else f"{speed.tokens_per_second:.1f}",
        "-" if speed.peak_memory_bytes is None else readable_bytes(speed.peak_memory_bytes),
    )
