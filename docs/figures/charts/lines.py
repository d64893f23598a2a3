"""Line charts of docs/results: what more samples bring."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs

from docs.figures.charts.results import Figure, results
from docs.figures.drawing import Drawing, Stroke

_LEFT, _RIGHT, _HEIGHT = 56, 404, 176  # where the first and the last point stand, and how high 1 stands above 0
_LINE_OF_TEXT = 18


@attrs.frozen
class Line:
    """One figure, from 0 to 1, over the number of samples.

    Attributes:
        label: Stands at the line's end.
        figures: In the order of the samples.
        kind: How the line is drawn.
    """

    label: str
    figures: Sequence[Figure]
    kind: Stroke


@attrs.frozen
class Panel:
    """Lines over the same samples, below a heading."""

    heading: str
    lines: Sequence[Line]


def line_chart(title: str, description: str, samples: Sequence[int], x_label: str, panels: Sequence[Panel]) -> str:
    """Draws panels below each other, with a logarithmic axis of samples; the description ends with the last figures.

    Args:
        title: The picture's name.
        description: What it shows.
        samples: How many each point stands for, ascending.
        x_label: What there are so many of.
        panels: The panels.
    """
    ends = "; ".join(
        f"{panel.heading}: " + ", ".join(f"{line.label} {line.figures[-1]['value']:.2f}" for line in panel.lines)
        for panel in panels
    )
    d = Drawing(title, f"{description} At the last point: {ends}.", 20 + len(panels) * (_HEIGHT + 96))
    top = 20.0
    for panel in panels:
        d.text(16, top + 16, panel.heading, style="label")
        _draw_panel(d, panel, samples, x_label, top + 42)
        top += _HEIGHT + 96
    return d.svg()


def _draw_panel(d: Drawing, panel: Panel, samples: Sequence[int], x_label: str, top: float) -> None:
    logs = [math.log(count) for count in samples]
    x = [_LEFT + (_RIGHT - _LEFT) * (log - logs[0]) / (logs[-1] - logs[0]) for log in logs]

    def y(figure: float) -> float:
        return top + _HEIGHT * (1 - figure)

    for share in (0.0, 0.5, 1.0):
        d.text(_LEFT - 16, y(share) + 5, f"{share:g}", style="small aside", align="end")
    for place, count in zip(x, samples, strict=True):
        d.text(place, top + _HEIGHT + 22, str(count), style="small aside", align="middle")
    d.text(_RIGHT + 16, top + _HEIGHT + 22, x_label, style="small aside")
    for line in panel.lines:
        values = [y(figure["value"]) for figure in line.figures]
        d.arrow(*zip(x, values, strict=True), kind=line.kind, head=False)
        for place, figure in zip(x, line.figures, strict=True):
            interval = (place, y(figure["low"])), (place, y(figure["high"]))
            d.arrow(*interval, kind="soft" if line.kind == "soft" else "", head=False)
    for line, height in _apart([(line, y(line.figures[-1]["value"])) for line in panel.lines]):
        d.text(_RIGHT + 16, height + 5, f"{line.label} {line.figures[-1]['value']:.2f}", style="small")


def _apart(labels: Sequence[tuple[Line, float]]) -> list[tuple[Line, float]]:
    """Moves labels that would overlap away from each other, downwards from the uppermost."""
    placed: list[tuple[Line, float]] = []
    for line, height in sorted(labels, key=lambda label: label[1]):
        placed.append((line, max(height, placed[-1][1] + _LINE_OF_TEXT) if placed else height))
    return placed


_INPUTS: Mapping[str, Stroke] = MappingProxyType({"text + gaze": "soft", "text only": "", "gaze only": "dashed"})
_METRICS = ("OSS", "CLS")


def _curve(name: str, title: str, description: str, x_label: str, all_samples: int = 0) -> str:
    """Draws a report of `python -m training curve`; `all_samples` is how many its point "all" stands for."""
    rows = results(name)
    first = f"{next(iter(_INPUTS))}, "
    points = [row.removeprefix(first) for row in rows if row.startswith(first)]
    counts = [all_samples if point == "all samples" else int(point.split()[0]) for point in points]
    panels = [
        Panel(
            metric,
            [Line(label, [rows[f"{label}, {p}"][metric] for p in points], kind) for label, kind in _INPUTS.items()],
        )
        for metric in _METRICS
    ]
    return line_chart(title, description, counts, x_label, panels)


def support_curve() -> str:
    """What a persona's samples bring, for people whom training has not seen."""
    return _curve(
        "tiny-unseen-support-curve",
        "How many samples a persona needs",
        "OSS and CLS of descriptions for people whom training has not seen, over the number of samples that their "
        "personas are made from, with 95 % intervals over people: from text and gaze, from text only, from gaze only.",
        "samples",
    )


def training_curve() -> str:
    """What training samples bring, for people whom training has not seen."""
    return _curve(
        "tiny-unseen-training-curve",
        "How many training samples of each person DEPER needs",
        "OSS and CLS of descriptions for people whom training has not seen, over the number of training samples of "
        "each of 1,200 other people, with 95 % intervals over people: personas from text and gaze, from text only, "
        "from gaze only.",
        "samples each",
        all_samples=8,
    )


CHARTS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"support-curve": support_curve, "training-curve": training_curve}
)
"""The name of each chart -> what draws it."""
