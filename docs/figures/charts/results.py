"""The reports in docs/results, as the charts read them."""

import json
from collections.abc import Mapping

from training.paths import RESULTS

Figure = Mapping[str, float]
"""A figure: its "value" and, where it has an interval, "low" and "high"."""


def results(name: str) -> Mapping[str, Mapping[str, Figure]]:
    """A report's figures: row -> column -> figure."""
    rows: Mapping[str, Mapping[str, Figure]] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))[
        "results"
    ]
    return rows
