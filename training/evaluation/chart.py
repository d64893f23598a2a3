"""Results as a picture: one panel a metric, one bar a system, with its interval."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydeper.atomic import atomic_path
from pydeper.errors import InvalidArgumentError
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
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise MissingRequirementError('charts need matplotlib; run `pip install -e ".[train]"`') from error
    metrics = [
        metric
        for metric in dict.fromkeys(metric for figures in results.values() for metric in figures)
        if any(figures.get(metric) is not None for figures in results.values())
    ]
    if not metrics:
        raise InvalidArgumentError("results hold no figure to draw; at least one system with one metric is needed")
    columns = min(_PANELS_IN_A_ROW, len(metrics))
    rows = -(-len(metrics) // columns)
    # Figures of their own, never pyplot's: nothing is shown, and nothing global is changed.
    canvas = Canvas(figsize=(3 * columns, (1.3 + 0.32 * len(results)) * rows + 0.4), layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(rows, columns, squeeze=False, sharey=True).ravel()
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
        panel.set_title(metric, fontsize=10)
        panel.set_xlim(left=0)
        panel.tick_params(labelsize=8)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    for panel in panels[len(metrics) :]:
        panel.set_axis_off()
    if title:
        canvas.suptitle(title, fontsize=11)
    with atomic_path(Path(path)) as temporary:
        canvas.savefig(temporary, dpi=150)
