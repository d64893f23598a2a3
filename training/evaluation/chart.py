"""Results as a picture, one panel a metric: a bar for each system, or a line over the number of samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path
from training.evaluation.bootstrap import Interval
from training.evaluation.report import Figure
from training.metrics.requirements import MissingRequirementError

_PANELS_IN_A_ROW = 4


def write_chart(
    path: str | os.PathLike[str], results: Mapping[str, Mapping[str, Figure]], *, title: str | None = None
) -> None:
    """Draws results as bars, by atomic rename; metrics have panels, and so scales, of their own.

    Args:
        path: A file whose suffix names a format of matplotlib's: .png, .svg, .pdf.
        results: System -> metric -> figure, as for `report.write_report`; what was not measured has no bar.
        title: Heading.

    Raises:
        InvalidArgumentError: If there is no figure to draw.
        MissingRequirementError: If matplotlib is not installed.
    """
    metrics = _measured(results.values())
    canvas, panels = _panels(metrics, height=1.3 + 0.32 * len(results), sharey=True)
    names = list(results)
    colours = {system: f"C{number % 10}" for number, system in enumerate(names)}
    for panel, metric in zip(panels, metrics, strict=False):
        for place, system in enumerate(names):
            figure = results[system].get(metric)
            if figure is None:
                continue
            value = figure.estimate if isinstance(figure, Interval) else figure
            panel.barh(place, value, color=colours[system], height=0.7)
            if isinstance(figure, Interval):
                panel.plot([figure.low, figure.high], [place, place], color="black", linewidth=1.2, marker="|")
        panel.set_xlim(left=0)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    _save(canvas, path, title)


def write_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, Sequence[Mapping[str, Figure]]],
    *,
    x: Sequence[float],
    labels: Sequence[str],
    x_label: str,
    title: str | None = None,
) -> None:
    """Draws figures as lines over a number of samples, on a logarithmic axis, by atomic rename.

    Args:
        path: See `write_chart`.
        curves: Line -> at each of the n points, metric -> figure; an interval is drawn as a band.
        x: n positions, above 0.
        labels: n names of the points.
        x_label: What is counted.
        title: Heading.

    Raises:
        InvalidArgumentError: If there is no figure to draw.
        MissingRequirementError: If matplotlib is not installed.
    """
    metrics = _measured(figures for points in curves.values() for figures in points)
    canvas, panels = _panels(metrics, height=2.6)
    for panel, metric in zip(panels, metrics, strict=False):
        for number, points in enumerate(curves.values()):
            drawn = [(place, figures[metric]) for place, figures in zip(x, points, strict=True) if metric in figures]
            known = [(place, figure) for place, figure in drawn if figure is not None]
            values = [figure.estimate if isinstance(figure, Interval) else figure for _, figure in known]
            panel.plot([place for place, _ in known], values, color=f"C{number}", marker="o", markersize=3)
            banded = [(place, figure) for place, figure in known if isinstance(figure, Interval)]
            lows, highs = ([getattr(figure, end) for _, figure in banded] for end in ("low", "high"))
            panel.fill_between([place for place, _ in banded], lows, highs, color=f"C{number}", alpha=0.15, linewidth=0)
        panel.set_xscale("log")
        panel.set_xticks(list(x), list(labels))
        panel.minorticks_off()
        panel.set_xlabel(x_label, fontsize=8)
    canvas.legend(panels[0].get_lines(), list(curves), loc="outside lower center", ncols=len(curves), fontsize=8)
    _save(canvas, path, title)


def _measured(rows: Iterable[Mapping[str, Figure]]) -> list[str]:
    """The metrics that some row has a figure of, in the order in which rows bring them."""
    rows = list(rows)
    metrics = dict.fromkeys(metric for row in rows for metric, figure in row.items() if figure is not None)
    if not metrics:
        raise InvalidArgumentError("results hold no figure to draw; at least one system with one metric is needed")
    return list(dict.fromkeys(metric for row in rows for metric in row if metric in metrics))


def _panels(metrics: Sequence[str], *, height: float, sharey: bool = False) -> tuple[Any, Any]:
    """A canvas with a titled panel for each metric, each so many inches high, and the panels."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingRequirementError('charts need matplotlib; run `pip install -e ".[train]"`') from error
    columns = min(_PANELS_IN_A_ROW, len(metrics))
    rows = -(-len(metrics) // columns)
    # Figures of their own, never pyplot's: nothing is shown, and nothing global is changed.
    canvas = Canvas(figsize=(3 * columns, height * rows + 0.4), layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(rows, columns, squeeze=False, sharey=sharey).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        panel.set_title(metric, fontsize=10)
        panel.tick_params(labelsize=8)
    for panel in panels[len(metrics) :]:
        panel.set_axis_off()
    return canvas, panels


def _save(canvas: Any, path: str | os.PathLike[str], title: str | None) -> None:
    if title:
        canvas.suptitle(title, fontsize=11)
    with atomic_path(Path(path)) as temporary:
        canvas.savefig(temporary, dpi=150)
