"""Tables of several systems: figures of all systems, their differences from one of them, and seeds apart."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation.bootstrap import Interval
from training.evaluation.pooled import Pooled
from training.evaluation.predictions import Prediction
from training.evaluation.report import Figure, write_report
from training.evaluation.scores import PEOPLE, score_systems, shared_programs
from training.evaluation.sum_statistics import SumStatistics, difference
from training.tiny.evaluation import TOKENIZER, looking

CLS_SCORERS = ("BLEU-4", "ROUGE-L", "CIDEr")
"""Without METEOR, which would take hours for all pairs of people in the world."""

GROUPS = {"seen": "seen in training", "unseen": "not seen in training"}


def report_names(name: str) -> list[str]:
    """What `write_tables` may write under a name, without suffixes."""
    return [*(f"{name}-{group}{ending}" for group in GROUPS for ending in ("", "-differences")), f"{name}-seeds"]


_Trainings = Mapping[str, Sequence[Sequence[Prediction]]]
_Figures = dict[str, dict[str, Figure]]


def write_tables(
    folder: Path,
    name: str,
    answers: _Trainings,
    facts: dict[str, Any],
    metrics: Sequence[str],
    *,
    reference: str,
    unseeded: Sequence[str] = (),
) -> None:
    """Writes the tables of seen and of unseen people, differences from `reference`, and how far seeds differ.

    What there is nothing for is left out: people who were not asked, a reference that is no system, a single seed.

    Args:
        folder: Where to.
        name: What the tables' names begin with.
        answers: System -> for each training, its predictions.
        facts: What is said below each table.
        metrics: Which, see `score`.
        reference: The system that others are compared with.
        unseeded: Systems whose answers do not depend on a seed.
    """
    seeds = len(next(iter(answers.values())))
    spread: _Figures = {system: {} for system in answers if system not in unseeded and seeds > 1}
    with shared_programs(metrics):
        for group, people_are in GROUPS.items():
            by_seed = {
                system: [[row for row in rows if row.dataset == group] for rows in per_seed]
                for system, per_seed in answers.items()
            }
            if not any(map(any, by_seed.values())):
                continue
            title = f"Tiny world, people {people_are}"
            figures, statistics = _score(by_seed, metrics)
            write_report(folder, f"{name}-{group}", figures, title=title, facts=facts)
            if differences := differences_from(reference, statistics):
                title += f": how much more {reference} has than each other system"
                write_report(folder, f"{name}-{group}-differences", differences, title=title, facts=facts)
            # Each training scored by itself, to see how much the seed alone moves a figure.
            alone = [
                score({system: [by_seed[system][seed]] for system in spread}, metrics)
                for seed in range(seeds)
                if spread
            ]
            for system, deviations in spread.items():
                for metric in alone[0][system]:
                    deviations[f"{metric}, {group}"] = _deviation([scores[system][metric] for scores in alone])
    if spread:
        title = "Tiny world, standard deviation between trainings that differ in their seed alone"
        write_report(folder, f"{name}-seeds", spread, title=title, facts=facts)


def score(by_seed: _Trainings, metrics: Sequence[str]) -> _Figures:
    """Metrics of all systems; a system's predictions of several trainings are so many more images.

    Args:
        by_seed: System -> for each training, its predictions; all systems answer the same questions in one order.
        metrics: Which, beside what is looked at and in which order.

    Returns:
        System -> metric -> figure; where HC is measured, that of the people themselves is the last row.
    """
    return _score(by_seed, metrics)[0]


def differences_from(reference: str, statistics: Mapping[str, Mapping[str, SumStatistics]]) -> _Figures:
    """How much more one system has than each other one in every metric, with intervals over people."""
    own = statistics.get(reference, {})
    return {
        system: {metric: difference(own[metric], theirs) for metric, theirs in row.items()}
        for system, row in statistics.items()
        if own and system != reference
    }


def _score(by_seed: _Trainings, metrics: Sequence[str]) -> tuple[_Figures, dict[str, dict[str, SumStatistics]]]:
    pooled = Pooled.of(by_seed)
    scores = score_systems(
        pooled.images,
        pooled.subjects,
        pooled.references,
        pooled.texts,
        tokenizer=TOKENIZER,
        metrics=metrics,
        scorers=CLS_SCORERS,
    )
    looked = {system: looking(texts, pooled.references, pooled.subjects) for system, texts in pooled.texts.items()}
    figures = {
        system: {**scores.systems[system], **{metric: own.figure() for metric, own in row.items()}}
        for system, row in looked.items()
    }
    if PEOPLE in scores.systems:
        figures[PEOPLE] = scores.systems[PEOPLE]
    return figures, {system: {**scores.statistics[system], **row} for system, row in looked.items()}


def _deviation(figures: Sequence[Figure]) -> float | None:
    """Standard deviation of the estimates; None where a training has none."""
    values = [figure.estimate if isinstance(figure, Interval) else figure for figure in figures]
    measured = [value for value in values if value is not None]
    return float(np.std(measured, ddof=1)) if len(measured) == len(values) else None
