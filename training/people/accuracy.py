"""Top-1 accuracy of identification, and the table of systems, modalities and differences that reports show."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.report import Figure
from training.people.score_fusion import MODALITIES, Modality, Scores

Table = dict[str, dict[str, Figure]]
"""Row (system, modality) -> column (samples of a query) -> accuracy with its interval."""

DEPER = "DEPER"
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
    people: Mapping[int, Sequence[int]],
    systems: Sequence[str],
    differences: Mapping[str, str],
) -> Table:
    """Mean accuracies with 95 % intervals over people.

    Args:
        accuracies: (system, modality, samples of a query) -> (queries,) accuracies.
        people: Samples of a query -> whose each of those queries is.
        systems: In the order of their rows; "DEPER" among them.
        differences: Heading of DEPER's differences, person by person -> the system that is subtracted from it.

    Returns:
        Rows (system, modality), then (heading, modality), then what gaze adds to DEPER's text; a column for each number
        of samples.
    """
    rows: Table = {}

    def add(row: str, values: Callable[[int], NDArray[np.float64]]) -> None:
        rows[row] = {column(k): bootstrap_mean(values(k), owners) for k, owners in people.items()}

    for system, modality in itertools.product(systems, MODALITIES):
        add(f"{system}, {modality}", lambda k, key=(system, modality): accuracies[*key, k])
    for (heading, other), m in itertools.product(differences.items(), MODALITIES):
        add(f"{heading}, {m}", lambda k, other=other, m=m: accuracies[DEPER, m, k] - accuracies[other, m, k])
    add("DEPER, text + gaze less text", lambda k: accuracies[DEPER, "text + gaze", k] - accuracies[DEPER, "text", k])
    return rows


def column(samples: int) -> str:
    """The heading of a column: how many samples of a person make a query."""
    return "1 sample" if samples == 1 else f"{samples} samples"
