"""What decides whose a held-out sample is: scores of DEPER's views and of classical classifiers, of one fold.

Every row of a table is of the samples that hold what it reads: one without a trajectory is in no row of gaze, one
without a description in no row of text, and "text + gaze" needs both.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.samples.sample import Sample
from training.people.classical import GAZE_WEIGHT, gaze_log_probabilities, text_log_probabilities
from training.people.experiment import Experiment
from training.people.held_out import Fold, Query, held_out_queries, query_means
from training.people.nearest_centroid import Vectors, centroid_scores, unit
from training.people.score_fusion import MODALITIES, Modality, Scores

Classifier = Literal["classical, text", "classical, gaze"]
Source = Modality | Classifier
"""Where a score comes from: a view of DEPER's, or a classical classifier."""

VIEWS: dict[Modality, tuple[Modality, ...]] = {"text + gaze": MODALITIES, "text": ("text",), "gaze": ("gaze",)}
"""The views of DEPER's that decide a row."""

CLASSIFIERS: dict[Modality, tuple[Classifier, ...]] = {
    "text + gaze": ("classical, text", "classical, gaze"),
    "text": ("classical, text",),
    "gaze": ("classical, gaze",),
}
"""The classical classifiers that decide a row."""

EVIDENCE: dict[Modality, tuple[Source, ...]] = {row: (*VIEWS[row], *CLASSIFIERS[row]) for row in MODALITIES}
"""All that decides a row of DEPER and the classical classifiers together."""


def all_scores(deper: Mapping[Modality, Scores], classical: Mapping[Classifier, Scores]) -> dict[Source, Scores]:
    """The scores of DEPER's views and of the classical classifiers together."""
    return dict(itertools.chain(deper.items(), classical.items()))


@attrs.frozen(eq=False)
class FoldEvidence:
    """The scores of one fold's held-out samples.

    Attributes:
        experiment: The samples.
        fold: Which are trained on, and which are held out.
        log_probabilities: By each classical classifier, (n, people); NaN where it says nothing.
        trained: For each training, the vectors of all samples by view, as `Experiment.train` returns them.
    """

    experiment: Experiment
    fold: Fold
    log_probabilities: Mapping[Classifier, Scores]
    trained: Sequence[Mapping[Modality, Vectors]] = ()

    def readable(self, modality: Modality) -> Fold:
        """The fold's samples that a row of this modality is about."""
        return self.fold.readable(self.experiment.has(modality), self.experiment.data.subject_of)

    def queries(self, modality: Modality, size: int) -> list[Query]:
        """What a row of this modality decides on: queries of so many samples."""
        return held_out_queries(self.readable(modality), self.experiment.data.subject_of, size)

    def labels(self, queries: Sequence[Query]) -> NDArray[np.integer]:
        """(m,) whose each query is."""
        return np.array([self.experiment.data.subject_of[rows[0]] for rows in queries], np.intp)

    def deper(self, modality: Modality, queries: Sequence[Query]) -> list[dict[Modality, Scores]]:
        """For each training and view that decides the row: (m, people) cosines.

        They are between a query's mean vector and the centroid of each person's training samples; -1 for people without
        any.
        """
        subject_of, people = self.experiment.data.subject_of, len(self.experiment.data.subjects)

        def cosines(view: Modality, vectors: Vectors) -> Scores:
            support = self.readable(view).training
            known, owners = np.unique(subject_of[support], return_inverse=True)
            scores = np.full((len(queries), people), -1.0)
            scores[:, known] = centroid_scores(
                query_means(unit(vectors), queries), vectors[support], owners, len(known)
            )
            return scores

        return [{view: cosines(view, vectors[view]) for view in VIEWS[modality]} for vectors in self.trained]

    def classical(self, modality: Modality, queries: Sequence[Query]) -> dict[Classifier, Scores]:
        """For each classifier that decides the row: (m, people) mean log-probabilities."""
        return {name: query_means(self.log_probabilities[name], queries) for name in CLASSIFIERS[modality]}


def classical_log_probabilities(
    experiment: Experiment,
    fold: Fold,
    regularisation: float,
    classifiers: Sequence[Classifier] = CLASSIFIERS["text + gaze"],
) -> dict[Classifier, Scores]:
    """The classical classifiers, fitted to a fold's training samples.

    Args:
        experiment: The samples.
        fold: Which are trained on, and which are held out.
        regularisation: Of the text classifier.
        classifiers: Which of them.

    Returns:
        By each, (n, people) log-probabilities of the held-out samples that it reads, NaN in all other rows. People of
        whom it knows no sample are as improbable as the least probable of the others.

    Raises:
        MissingRequirementError: scikit-learn is not installed.
    """
    data = experiment.data

    def fitted(modality: Modality, classify: Callable[[list[Sample], list[Sample]], NDArray[np.float64]]) -> Scores:
        training, held_out = fold.readable(experiment.has(modality), data.subject_of)
        scores = np.full((len(data), len(data.subjects)), np.nan)
        if held_out.any():
            found = classify(experiment.rows(training), experiment.rows(held_out))
            scores[held_out] = found.min(axis=1, keepdims=True)
            scores[np.ix_(held_out, np.unique(data.subject_of[training]))] = found
        return scores

    kinds: dict[Classifier, Callable[[], Scores]] = {
        "classical, text": lambda: fitted("text", partial(text_log_probabilities, regularisation=regularisation)),
        "classical, gaze": lambda: fitted("gaze", gaze_log_probabilities),
    }
    return {name: kinds[name]() for name in classifiers}


def classical_sum(scores: Mapping[Classifier, Scores]) -> Scores:
    """The classical answer of a row: its log-probabilities added, gaze weighted `GAZE_WEIGHT` beside text."""
    gaze_weight = GAZE_WEIGHT if len(scores) > 1 else 1.0
    total: Scores = np.sum([(gaze_weight if "gaze" in name else 1.0) * own for name, own in scores.items()], axis=0)
    return total
