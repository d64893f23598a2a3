"""The points of a curve, and what is made of them: a JSON file, a table and a chart."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from pydeper.errors import InvalidArgumentError
from training.evaluation.chart import write_curves
from training.evaluation.evaluate import ScoreSettings, file_name
from training.evaluation.pooled import Pooled
from training.evaluation.predictions import Prediction
from training.evaluation.report import Figure, check_reports, command_line, format_table, write_report
from training.evaluation.scores import PEOPLE, check_metrics, score_systems, shared_programs

INPUTS: Mapping[str, str | None] = {"text + gaze": None, "text only": "trajectory", "gaze only": "text"}
"""What a persona is made from, and the modality that is withheld from the samples for it."""

Answers = Mapping[str, Sequence[Sequence[Prediction]]]
"""Input -> for each repetition (a draw of samples, say), its predictions."""

Score = Callable[[Answers], Mapping[str, Mapping[str, Figure]]]
"""Input -> metric -> figure; a row `PEOPLE` may stand behind them."""


@attrs.frozen
class Point:
    """One point of a curve.

    Attributes:
        label: How it is called, such as "5" or "all".
        samples: Samples of each person, in the mean.
        answers: What was predicted there; every point has the same inputs.
    """

    label: str
    samples: float
    answers: Answers


@attrs.frozen(kw_only=True)
class Curve:
    """What a curve is of.

    Attributes:
        kind: Of its files' names, such as "support-curve".
        title: Heading, before the data set's name.
        x_label: What its points count.
    """

    kind: str
    title: str
    x_label: str

    def report_name(self, dataset: str) -> str:
        """What a data set's files are called, without suffix."""
        return f"{file_name(dataset)}-{self.kind}"

    def check(self, folder: Path, datasets: Sequence[str], metrics: Sequence[str]) -> None:
        """Finds before hours of work what would keep `write` from its end.

        Raises:
            InvalidArgumentError: A metric is unknown.
            OutputError: The folder holds other files of these names.
            MissingRequirementError: METEOR is among the metrics and cannot run here.
        """
        check_metrics(metrics)
        check_reports(folder, [self.report_name(dataset) for dataset in datasets], (".json", ".md", ".png"))

    def write(
        self, folder: Path, dataset: str, points: Sequence[Point], score: Score, facts: Mapping[str, Any]
    ) -> None:
        """Scores the points; writes and prints.

        Args:
            folder: Gets the JSON file, the table and the chart.
            dataset: Whose points these are.
            points: In the order of their samples.
            score: Scores a point.
            facts: What else a reader has to know.
        """
        scored = [dict(score(point.answers)) for point in points]
        people = [rows.pop(PEOPLE) for rows in scored if PEOPLE in rows]
        lines = {name: [rows[name] for rows in scored] for name in points[0].answers}
        rows = {
            f"{name}, {point.label} {'sample' if point.label == '1' else 'samples'}": figures
            for name, line in lines.items()
            for point, figures in zip(points, line, strict=True)
        } | ({PEOPLE: people[0]} if people else {})
        name, title = self.report_name(dataset), f"{self.title}: {dataset}"
        write_report(folder, name, rows, title=title, facts=facts)
        write_curves(
            folder / f"{name}.png",
            lines,
            x=[point.samples for point in points],
            labels=[point.label for point in points],
            x_label=self.x_label,
            title=title,
        )
        print(f"\n{title}\n\n{format_table(rows)}\n\n{folder / name}.json, .md and .png")


def input_folder(folder: Path, name: str) -> Path:
    """Where the predictions of an input are, in the folder of a point."""
    return folder / name.replace(" + ", "-").replace(" ", "-")


def command(kind: str, counts: Sequence[int] | None, changes: Sequence[str] = ()) -> str:
    """The command that makes a curve, as reports name it, without what only says where files are."""
    words = ["python", "-m", "training", "curve", kind]
    words += ["--counts", *map(str, counts)] if counts is not None else []
    return command_line(words, changes)


def scorer(settings: ScoreSettings) -> Score:
    """Scores the answers of a point as `python -m training evaluate` does, all repetitions together."""

    def score(answers: Answers) -> Mapping[str, Mapping[str, Figure]]:
        pooled = Pooled.of(answers)
        with shared_programs(settings.metrics):
            return score_systems(
                pooled.images,
                pooled.subjects,
                pooled.references,
                pooled.texts,
                tokenizer=settings.tokenizer,
                metrics=settings.metrics,
                lemmas=settings.lemmas() if "OSS" in settings.metrics else None,
            ).systems

    return score


def chosen_counts(asked: Sequence[int] | None, default: Sequence[int], most: int, why: str) -> list[int]:
    """The numbers of samples that there are points of, ascending.

    Args:
        asked: Those that were named; None: those of the default that are possible.
        default: See there.
        most: The highest number that is possible.
        why: Why it is the highest.

    Raises:
        InvalidArgumentError: A number that was named is below 1 or above `most`, or none is left.
    """
    for count in asked or ():
        if not 1 <= count <= most:
            raise InvalidArgumentError(f"counts: {count} is not from 1 to {most}: {why}; leave it out")
    counts = sorted({count for count in (default if asked is None else asked) if count <= most})
    if not counts:
        raise InvalidArgumentError(f"counts: none of {', '.join(map(str, default))} is possible: {why}; name others")
    return counts
