"""The command that makes a report, as the report names it."""

import argparse
import shlex
from collections.abc import Mapping
from types import MappingProxyType


def report_command(
    module: str,
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    places: Mapping[str, str | None] = MappingProxyType({}),
) -> str:
    """Returns the command with those of its options that differ from the defaults, in their order.

    Args:
        module: What is run, such as "benchmarks.capacity".
        parser: Knows the defaults.
        options: As parsed.
        places: Options that name files: what stands for each, or None where the option is left out. `report` is
            docs/results.
    """
    words = ["python", "-m", module]
    for name, value in vars(options).items():
        if name != "report" and value != parser.get_default(name):
            place = places.get(name, "")
            if place is None:
                continue
            values = [] if value is True else [place or _text(item) for item in _listed(value)]
            words += [f"--{name.replace('_', '-')}", *values]
    return shlex.join([*words, "--report", "docs/results"])


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
