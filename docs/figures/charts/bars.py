"""Bar charts of docs/results: one for each question that the results page answers first."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs

from docs.figures.charts.results import Figure, results
from docs.figures.drawing import Drawing, Kind

_LEFT, _RIGHT, _ROW = 196, 492, 34  # where 0 and 1 stand, and the height of a bar's row


@attrs.frozen
class Bar:
    """One figure with its 95 % interval, all three from 0 to 1."""

    label: str
    value: float
    low: float
    high: float
    kind: Kind = "learned"


@attrs.frozen
class Group:
    """Bars below a heading, with what guessing scores there, if that is known."""

    heading: str
    bars: Sequence[Bar]
    chance: float | None = None


def bar_chart(title: str, description: str, groups: Sequence[Group]) -> str:
    """Draws groups of bars from 0 to 1 below each other; the description ends with every figure."""
    figures = "; ".join(
        f"{group.heading}: " + ", ".join(f"{bar.label} {bar.value:.2f}" for bar in group.bars) for group in groups
    )
    height = 20 + sum(40 + _ROW * len(group.bars) for group in groups) + 34
    d = Drawing(title, f"{description} {figures}.", height)
    y = 20.0
    for group in groups:
        d.text(16, y + 16, group.heading, style="label")
        top = y = y + 34
        for bar in group.bars:
            _draw_bar(d, bar, y)
            y += _ROW
        if group.chance is not None:
            d.arrow((_x(group.chance), top - 4), (_x(group.chance), y - 4), kind="dashed", head=False)
        y += 6
    for share in (0.0, 0.5, 1.0):
        d.text(_x(share), y + 16, f"{share:g}", style="small aside", align="middle")
    if any(group.chance is not None for group in groups):
        d.text(16, y + 16, "dashed: guessing", style="small aside")
    return d.svg()


def _draw_bar(d: Drawing, bar: Bar, y: float) -> None:
    d.text(16, y + 17, bar.label, style="small")
    d.box(_x(0), y, max(_x(bar.value) - _x(0), 1), 22, kind=bar.kind)
    d.arrow((_x(bar.low), y + 11), (_x(min(bar.high, 1.0)), y + 11), head=False)
    d.text(_RIGHT + 12, y + 17, f"{bar.value:.2f}", style="small")


def _x(share: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * share


def _bar(label: str, figure: Figure, kind: Kind = "learned") -> Bar:
    return Bar(label, figure["value"], figure["low"], figure["high"], kind)


def unseen_people() -> str:
    """How far five samples bring people whom training has not seen, by metric."""
    shares = results("tiny-unseen-way")["DEPER, 5 samples"]
    return bar_chart(
        "How well a persona imitates somebody whom training has not seen",
        "One bar a metric, from 0, the model without a persona, to 1, the model that is told the person's true traits. "
        "The line in a bar is the 95 % interval over people.",
        [Group("From no persona (0) to a perfect one (1)", [_bar(metric, own) for metric, own in shares.items()])],
    )


def looking() -> str:
    """Telling apart people who differ in their scanning order alone, by what the persona was made from."""
    rows = results("tiny-looking")
    bars = [_bar(row, own["5 samples"], "frozen" if row == "text only" else "learned") for row, own in rows.items()]
    return bar_chart(
        "What looking adds",
        "People who speak alike and differ only in the order in which they look at things: the share of them who are "
        "recognised among eight by five new samples, by what their personas are made from.",
        [Group("Recognised among eight who speak alike", bars, rows["text only"]["chance"]["value"])],
    )


def real_people() -> str:
    """Identifying real people by one sample, beside classical classifiers."""
    groups = []
    for heading, name, chance, rival in (
        ("One sample, among the 25 people of the training", "scene_description-6-folds", 1 / 25, "classical"),
        (
            "One sample, among five people new to the model",
            "scene_description-new-people",
            1 / 5,
            "fitted anew",
        ),
    ):
        rows = results(name)
        bars = [
            _bar("DEPER, text + gaze", rows["DEPER, text + gaze"]["1 sample"]),
            _bar("DEPER, text", rows["DEPER, text"]["1 sample"]),
            _bar("DEPER, gaze", rows["DEPER, gaze"]["1 sample"]),
            _bar("classical, text + gaze", rows[f"{rival}, text + gaze"]["1 sample"], "frozen"),
        ]
        groups.append(Group(heading, bars, chance))
    return bar_chart(
        "Real people, identified by one description and two seconds of gaze",
        "The share of samples whose person is named right, with 95 % intervals over people.",
        groups,
    )


def ablations() -> str:
    """Which objects are named in which order for people whom training has not seen: DEPER, its ablations, baselines."""
    ours, others = [], []
    for system, row in results("tiny-table-unseen").items():
        if system.startswith("DEPER"):
            ours.append(_bar(system.removeprefix("DEPER, "), row["OSS"]))
        elif "OSS" in row:
            others.append(_bar(system.removesuffix(" per person").replace(" with ", ", "), row["OSS"], "frozen"))
    return bar_chart(
        "DEPER, its ablations and baselines",
        "The object sequence score (OSS), which compares which objects are named in which order with what the person "
        "said, for people whom training has not seen, from five samples; with 95 % intervals over people.",
        [
            Group("OSS of DEPER, and without each component", ours),
            Group("OSS of the baselines, and the ceiling", others),
        ],
    )


CHARTS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"unseen-people": unseen_people, "looking": looking, "real-people": real_people, "ablations": ablations}
)
"""The name of each chart -> what draws it."""
