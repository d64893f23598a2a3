"""Closed-set identification: whose samples are these, of the people seen in training? DEPER beside classical answers.

Everything that is chosen (the weights of DEPER's views, the classical text classifier's regularisation) is chosen by
cross-validation over the photographs of the training split; the samples of the split "val" decide nothing.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.people.accuracy import DEPER, ONE_TRAINING, Table, accuracy_table, systems, top1_accuracy
from training.people.classical import GAZE_WEIGHT, REGULARISATIONS, gaze_log_probabilities, text_log_probabilities
from training.people.experiment import MOST_SAMPLES, Experiment, Mask
from training.people.nearest_centroid import Vectors, centroid_scores, unit
from training.people.score_fusion import (
    MODALITIES,
    Modality,
    Scores,
    Weights,
    fit_weights,
    fuse_views,
    mean_scores,
    weighted_sum,
)

CLASSICAL = "classical"

_MOST_QUERIES = 20


class Fold(NamedTuple):
    """Which samples are trained on and which are held out, (n,) each; a sample may be neither."""

    training: Mask
    held_out: Mask


def photograph_folds(image_of: NDArray[np.integer], folds: int, within: Mask, seed: int = 0) -> list[Fold]:
    """Folds of a cross-validation: photographs, shuffled once, are dealt to the folds in turn.

    Args:
        image_of: (n,) the photograph of each sample.
        folds: How many.
        within: The samples to divide; the others are neither trained on nor held out.
        seed: Of the shuffling.

    Raises:
        InvalidArgumentError: Fewer than 2 folds, or more than photographs.
    """
    images = np.unique(image_of[within])
    if not 2 <= folds <= len(images):
        raise InvalidArgumentError(f"{folds} folds of {len(images)} photographs; give 2 to {len(images)}")
    shuffled = np.random.default_rng(seed).permutation(images)
    held_out = [within & np.isin(image_of, shuffled[fold::folds]) for fold in range(folds)]
    return [Fold(within & ~mask, mask) for mask in held_out]


def draw_queries(
    subjects: NDArray[np.integer], size: int, most: int = _MOST_QUERIES, seed: int = 0
) -> list[NDArray[np.intp]]:
    """Queries of `size` samples of one person: all there are, or `most` random ones of each person if there are more.

    Args:
        subjects: (n,) whose sample each is.
        size: Samples in a query, at least 1; a person who has fewer makes one query of all.
        most: Most queries of a person; single samples are always all there.
        seed: Of the random queries.

    Returns:
        The rows of each query's samples.
    """
    rng = np.random.default_rng(seed)
    queries: list[NDArray[np.intp]] = []
    for subject in np.unique(subjects):
        rows = np.flatnonzero(subjects == subject)
        count = min(size, len(rows))
        if count == 1 or math.comb(len(rows), count) <= most:
            queries += [np.array(query) for query in itertools.combinations(rows, count)]
        else:
            queries += [rng.choice(rows, count, replace=False) for _ in range(most)]
    return queries


def query_means(vectors: Vectors, queries: Iterable[Sequence[int] | NDArray[np.intp]]) -> Vectors:
    """(m, k): the mean over each query's rows of (n, k) vectors."""
    return np.stack([vectors[rows].mean(axis=0) for rows in queries])


@attrs.frozen
class ModelSelection:
    """What cross-validation over the training split's photographs chose, with its figures.

    Attributes:
        weights: Of DEPER's views, for the ensemble.
        training_weights: The same for each training alone.
        accuracy: Top-1 from one sample by each view, and by all views together.
        regularisation: Of the classical text classifier.
        regularisation_accuracy: Top-1 from one sample's text by each regularisation.
    """

    weights: Weights
    training_weights: list[Weights]
    accuracy: dict[str, float]
    regularisation: float
    regularisation_accuracy: dict[float, float]

    def facts(self) -> dict[str, object]:
        """The choice as a report has it."""
        return {
            "within the training split, fitted weights of DEPER's views": rounded(self.weights),
            "share right there": rounded(self.accuracy),
            f"chosen there, the text baseline's C ({self.regularisation:g})": rounded(self.regularisation_accuracy),
        }


def select_model(experiment: Experiment, folds: int, folder: Path) -> ModelSelection:
    """Selects by cross-validation within the training split; `folder` keeps the trainings of each fold.

    Raises:
        InvalidArgumentError: See `photograph_folds`.
        MissingRequirementError: scikit-learn or SciPy is not installed.
    """
    data = experiment.data
    by_fold: list[list[dict[Modality, Scores]]] = []
    strengths: dict[float, list[NDArray[np.float64]]] = {strength: [] for strength in REGULARISATIONS}
    people = []
    for number, fold in enumerate(photograph_folds(data.image_of, folds, within=experiment.is_training)):
        labels = data.subject_of[fold.held_out]
        people.append(labels)
        for strength, accuracies in strengths.items():  # before the training, which a missing scikit-learn would waste
            text = text_log_probabilities(experiment.rows(fold.training), experiment.rows(fold.held_out), strength)
            accuracies.append(top1_accuracy(text, labels))
        single = [[row] for row in range(len(labels))]
        trained = experiment.train(fold.training, folder / str(number))
        by_fold.append([deper_scores(experiment, views, fold, single) for views in trained])
    labels = np.concatenate(people)
    trainings = [
        {view: np.concatenate([scores[view] for scores in of_folds]) for view in MODALITIES}
        for of_folds in zip(*by_fold, strict=True)
    ]
    ensemble = mean_scores(trainings)
    weights = fit_weights(ensemble, labels)
    together = {**ensemble, "all views": weighted_sum(ensemble, weights)}
    strength_accuracy = {strength: float(np.concatenate(right).mean()) for strength, right in strengths.items()}
    return ModelSelection(
        weights=weights,
        training_weights=[fit_weights(scores, labels) for scores in trainings],
        accuracy={str(name): float(top1_accuracy(scores, labels).mean()) for name, scores in together.items()},
        regularisation=max(strength_accuracy, key=strength_accuracy.__getitem__),
        regularisation_accuracy=strength_accuracy,
    )


def measure(experiment: Experiment, selection: ModelSelection, folds: Sequence[Fold], folder: Path) -> Table:
    """Top-1 identification by both systems over folds of training and held-out samples.

    Args:
        experiment: The samples.
        selection: Weights of the views, and regularisation.
        folds: The figures pool the held-out samples of all.
        folder: Keeps the trainings of each fold.

    Returns:
        Rows (system, modality) -> columns (1 sample, k samples) -> accuracy with a 95 % interval over people. k is
        `MOST_SAMPLES`, or less where nobody has that many held-out samples. Where there are several trainings, there
        are rows of one alone: the mean over all. The last rows are differences, person by person: between DEPER and the
        classical answer, and between DEPER with gaze and without.
    """
    subject_of = experiment.data.subject_of
    most = min(int(np.bincount(subject_of[fold.held_out]).max()) for fold in folds)
    sizes = [1, min(MOST_SAMPLES, most)]
    names = systems(experiment.trainings, CLASSICAL)
    accuracies: dict[tuple[str, Modality, int], list[NDArray[np.float64]]] = {
        key: [] for key in itertools.product(names, MODALITIES, sizes)
    }
    people: dict[int, list[NDArray[np.integer]]] = {size: [] for size in sizes}
    for number, fold in enumerate(folds):
        subjects = subject_of[fold.held_out]
        trained = experiment.train(fold.training, folder / str(number) if len(folds) > 1 else folder)
        log_probabilities = classical_scores(experiment, fold, selection.regularisation)
        for size in sizes:
            queries = draw_queries(subjects, size)
            labels = np.array([subjects[rows[0]] for rows in queries])
            people[size].append(labels)
            each = [deper_scores(experiment, views, fold, queries) for views in trained]
            scores = {
                DEPER: [fuse_views(mean_scores(each), selection.weights)],
                ONE_TRAINING: list(map(fuse_views, each, selection.training_weights)),
                CLASSICAL: [{view: query_means(own, queries) for view, own in log_probabilities.items()}],
            }
            for system, view in itertools.product(names, MODALITIES):
                right = [top1_accuracy(own[view], labels) for own in scores[system]]
                accuracies[system, view, size].append(np.mean(right, axis=0))
    return accuracy_table(
        {key: np.concatenate(of_folds) for key, of_folds in accuracies.items()},
        {size: np.concatenate(labels).tolist() for size, labels in people.items()},
        names,
        {"difference": CLASSICAL},
    )


def deper_scores(
    experiment: Experiment,
    views: Mapping[Modality, Vectors],
    fold: Fold,
    queries: Sequence[Sequence[int] | NDArray[np.intp]],
) -> dict[Modality, Scores]:
    """Cosines between a query's mean vector and the centroid of each person's training samples, by view.

    Args:
        experiment: The samples.
        views: Of each view, the vectors of all samples.
        fold: Which samples make the centroids, and which the queries.
        queries: For each of m queries, its rows among the held-out samples.

    Returns:
        Of each view, (m, people).
    """
    known, people = experiment.data.subject_of[fold.training], len(experiment.data.subjects)
    return {
        view: centroid_scores(query_means(unit(vectors[fold.held_out]), queries), vectors[fold.training], known, people)
        for view, vectors in views.items()
    }


def classical_scores(experiment: Experiment, fold: Fold, regularisation: float) -> dict[Modality, Scores]:
    """Log-probabilities of the held-out samples by classifiers that are fitted to the training samples."""
    training, held_out = experiment.rows(fold.training), experiment.rows(fold.held_out)
    text = text_log_probabilities(training, held_out, regularisation)
    gaze = gaze_log_probabilities(training, held_out)
    return {"text + gaze": text + GAZE_WEIGHT * gaze, "text": text, "gaze": gaze}


def rounded(figures: Mapping[Any, float]) -> dict[str, float]:
    """Figures as a report's facts have them."""
    return {str(name): round(figure, 3) for name, figure in figures.items()}
