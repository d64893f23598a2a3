"""Top-1 accuracy of identification, and the table of systems, modalities and differences that reports show."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.report import Figure
from training.people.score_fusion import MODALITIES, Modality, Scores

Table = dict[str, dict[str, Figure]]
"""Row (system, modality) -> column (samples of a query) -> accuracy with its interval."""

DEPER = "DEPER"
DEPER_AND_CLASSICAL = "DEPER + classical"
"""The weighted sum of DEPER's scores and those of the classical classifiers."""
ONE_TRAINING = "one training"
"""DEPER trained once, in the tables of an ensemble: the mean over its trainings."""


def systems(trainings: int, *others: str) -> tuple[str, ...]:
    """The systems of a table: DEPER, one training of it alone where there are several, and others."""
    return DEPER, *([ONE_TRAINING] if trainings > 1 else []), *others


def top1_accuracy(scores: Scores, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Whether the right person scores highest, query by query; ties are shared.

    Args:
        scores: (n, people)
        labels: (n,) the right person of each query.

    Returns:
        (n,) in [0, 1]: 1 where the right person alone scores highest, 1/t where the right one is among t people who
        share the highest score, 0 otherwise.
    """
    best = scores.max(axis=1)
    is_best = scores[np.arange(len(scores)), labels] == best
    accuracies: NDArray[np.float64] = is_best / (scores == best[:, None]).sum(axis=1)
    return accuracies


def accuracy_table(
    accuracies: Mapping[tuple[str, Modality, int], NDArray[np.float64]],
    people: Mapping[tuple[Modality, int], Sequence[int]],
    systems: Sequence[str],
    differences: Mapping[str, tuple[str, str]],
    text_alone: Mapping[int, NDArray[np.float64]],
) -> Table:
    """Mean accuracies with 95 % intervals over people.

    Args:
        accuracies: (system, modality, samples of a query) -> (queries,) accuracies.
        people: (modality, samples of a query) -> whose each of those queries is.
        systems: In the order of their rows; "DEPER" among them.
        differences: Heading of differences, query by query -> a system, and the one that is subtracted from it.
        text_alone: Samples of a query -> accuracies by DEPER's text of the queries that "text + gaze" has.

    Returns:
        Rows (system, modality), then (heading, modality), then what gaze adds to DEPER's text; a column for each number
        of samples. Nothing was measured (None) where the queries are of fewer than two people.
    """
    rows: Table = {}

    def add(row: str, modality: Modality, values: Callable[[int], NDArray[np.float64]]) -> None:
        rows[row] = {
            column(k): bootstrap_mean(values(k), owners) if len(set(owners)) > 1 else None
            for (own, k), owners in people.items()
            if own == modality
        }

    def of(system: str, modality: Modality, k: int) -> NDArray[np.float64]:
        return accuracies[system, modality, k]

    def difference(one: str, other: str, modality: Modality, k: int) -> NDArray[np.float64]:
        return of(one, modality, k) - of(other, modality, k)

    for system, m in itertools.product(systems, MODALITIES):
        add(f"{system}, {m}", m, partial(of, system, m))
    for (heading, (one, other)), m in itertools.product(differences.items(), MODALITIES):
        add(f"{heading}, {m}", m, partial(difference, one, other, m))
    both: Modality = "text + gaze"
    add("DEPER, text + gaze less text", both, lambda k: accuracies[DEPER, both, k] - text_alone[k])
    return rows


def column(samples: int) -> str:
    """The heading of a column: how many samples of a person make a query."""
    return "1 sample" if samples == 1 else f"{samples} samples"
