"""Closed-set identification: whose samples are these, of the people seen in training? DEPER beside classical answers.

Everything that is chosen (how stage 1 trains, the weights of all scores, the classical text classifier's
regularisation) is chosen by cross-validation over the photographs of the training split; the samples of the split "val"
decide nothing.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.people.accuracy import (
    DEPER,
    DEPER_AND_CLASSICAL,
    ONE_TRAINING,
    Table,
    accuracy_table,
    systems,
    top1_accuracy,
)
from training.people.classical import REGULARISATIONS
from training.people.evidence import (
    CLASSIFIERS,
    EVIDENCE,
    VIEWS,
    Classifier,
    FoldEvidence,
    Source,
    all_scores,
    classical_log_probabilities,
    classical_sum,
)
from training.people.experiment import MOST_SAMPLES, Experiment
from training.people.held_out import Fold, Query, enough_folds, photograph_folds
from training.people.score_fusion import (
    MODALITIES,
    Modality,
    Scores,
    Weights,
    equal_weights,
    fit_weights,
    log_likelihood,
    mean_scores,
    weighted_sum,
)
from training.people.training_search import Schedule, Trial, search

CLASSICAL = "classical"


@attrs.frozen
class ModelSelection:
    """What cross-validation over the training split's photographs chose, with its figures.

    Attributes:
        trials: The trainings that were tried.
        schedule: The chosen one.
        decisions: On how many held-out samples all choices were made.
        weights: Of DEPER's views, by row, for the ensemble.
        training_weights: The same for each training alone.
        fusion: Of DEPER's views and the classical classifiers together, by row.
        accuracy: Top-1 from one sample of DEPER's rows, and of DEPER and the classical classifiers together.
        regularisation: Of the classical text classifier.
        regularisation_accuracy: Top-1 from one sample's text by each regularisation.
    """

    trials: list[Trial]
    schedule: Schedule
    decisions: int
    weights: dict[Modality, Weights]
    training_weights: list[dict[Modality, Weights]]
    fusion: dict[Modality, dict[Source, float]]
    accuracy: dict[str, float]
    regularisation: float
    regularisation_accuracy: dict[float, float]

    def facts(self) -> dict[str, object]:
        """The choices as a report has them."""
        return {
            "chosen within the training split": str(self.schedule),
            "log-likelihood there of every training that was tried": {
                str(trial.schedule): round(trial.log_likelihood, 3) for trial in self.trials
            },
            "samples held out there": self.decisions,
            "fitted there, weights of DEPER's views": rounded(self.weights["text + gaze"]),
            "fitted there, weights of DEPER and the classical classifiers": {
                modality: rounded(weights) for modality, weights in self.fusion.items()
            },
            "top-1 accuracy there": rounded(self.accuracy),
            f"chosen there, the text baseline's C ({self.regularisation:g})": rounded(self.regularisation_accuracy),
        }


@attrs.frozen(eq=False)
class _Pool:
    """The held-out samples of several folds, one by one: by row, the scores of each training and of the classifiers."""

    trained: dict[Modality, list[dict[Modality, Scores]]]
    classical: dict[Modality, dict[Classifier, Scores]]
    labels: dict[Modality, NDArray[np.integer]]

    @classmethod
    def of(cls, folds: Sequence[FoldEvidence]) -> "_Pool":
        """Pools folds with the same trainings; rows that nothing is held out for are left out."""
        trained, classical, labels = {}, {}, {}
        for modality in MODALITIES:
            evidence = [(fold, queries) for fold in folds if (queries := fold.queries(modality, 1))]
            if not evidence:
                continue
            labels[modality] = np.concatenate([fold.labels(queries) for fold, queries in evidence])
            classical[modality] = _joined([fold.classical(modality, queries) for fold, queries in evidence])
            by_fold = [fold.deper(modality, queries) for fold, queries in evidence]
            trained[modality] = [_joined(own) for own in zip(*by_fold, strict=True)]
        return cls(trained, classical, labels)

    def log_likelihood(self) -> float:
        """Of the right person by one training's views with fitted weights: mean over samples, then over rows."""
        return float(
            np.mean([log_likelihood(scores, self.labels[modality]) for modality, (scores,) in self.trained.items()])
        )


def select_model(experiment: Experiment, folds: int, folder: Path) -> ModelSelection:
    """Selects by cross-validation within the training split.

    Args:
        experiment: The samples.
        folds: Folds that the photographs are divided into; `identification.decisions` says how many are held out.
        folder: Keeps the trainings of each fold.

    Raises:
        InvalidArgumentError: See `photograph_folds`; or no held-out sample could be identified.
        MissingRequirementError: scikit-learn or SciPy is not installed.
    """
    data, limits = experiment.data, experiment.config.identification
    divided = photograph_folds(data.image_of, folds, within=experiment.is_training)
    chosen = enough_folds(divided, limits.decisions)
    if not any(fold.readable(experiment.has(m), data.subject_of).held_out.any() for fold in chosen for m in MODALITIES):
        raise InvalidArgumentError(
            "the cross-validation within the training split holds out no sample of a person with others to learn from; "
            "it needs at least 2 people with samples of several photographs"
        )
    # Before any training, which a missing scikit-learn would waste.
    strength_accuracy = {strength: _text_accuracy(experiment, chosen, strength) for strength in REGULARISATIONS}
    regularisation = max(strength_accuracy, key=strength_accuracy.__getitem__)
    untrained = [
        FoldEvidence(experiment, fold, classical_log_probabilities(experiment, fold, regularisation)) for fold in chosen
    ]

    def pool(schedule: Schedule, trainings: int) -> _Pool:
        folders = [folder / schedule.slug / str(number) for number in range(len(untrained))]
        return _Pool.of(
            [
                attrs.evolve(evidence, trained=experiment.train(evidence.fold.training, schedule, place, trainings))
                for evidence, place in zip(untrained, folders, strict=True)
            ]
        )

    samples = int(np.mean([fold.training.sum() for fold in chosen]))
    trials = search(
        lambda schedule: pool(schedule, 1).log_likelihood(),
        limits,
        lambda schedule: schedule.steps(experiment.config, samples),
    )
    schedule = max(trials, key=lambda trial: trial.log_likelihood).schedule
    return _fit(
        pool(schedule, experiment.trainings),
        trials=trials,
        schedule=schedule,
        decisions=int(sum(fold.held_out.sum() for fold in chosen)),
        regularisation=regularisation,
        regularisation_accuracy=strength_accuracy,
    )


def _fit(pool: _Pool, **choices: Any) -> ModelSelection:
    """The weights of all scores, fitted to a pool of held-out samples, and how many of these are identified with them.

    A row that nothing was held out for has weights of 1.
    """
    weights, fusion = equal_weights(VIEWS), equal_weights(EVIDENCE)
    training_weights = [equal_weights(VIEWS) for _ in range(len(next(iter(pool.trained.values()))))]
    accuracy: dict[str, float] = {}
    for modality, trained in pool.trained.items():
        labels, ensemble = pool.labels[modality], mean_scores(trained)
        everything = all_scores(ensemble, pool.classical[modality])
        if len(ensemble) > 1:  # a single view decides alone, whatever its weight
            weights[modality] = fit_weights(ensemble, labels)
            for own, scores in zip(training_weights, trained, strict=True):
                own[modality] = fit_weights(scores, labels)
        fusion[modality] = fit_weights(everything, labels)
        sums = {
            DEPER: weighted_sum(ensemble, weights[modality]),
            DEPER_AND_CLASSICAL: weighted_sum(everything, fusion[modality]),
        }
        for system, total in sums.items():
            accuracy[f"{system}, {modality}"] = float(top1_accuracy(total, labels).mean())
    return ModelSelection(
        weights=weights, training_weights=training_weights, fusion=fusion, accuracy=accuracy, **choices
    )


def _text_accuracy(experiment: Experiment, folds: Sequence[Fold], regularisation: float) -> float:
    """Top-1 accuracy of the classical text classifier from one sample; 0 where no text is held out."""
    right = []
    for fold in folds:
        scores = classical_log_probabilities(experiment, fold, regularisation, CLASSIFIERS["text"])
        evidence = FoldEvidence(experiment, fold, scores)
        if queries := evidence.queries("text", 1):
            right.append(top1_accuracy(classical_sum(evidence.classical("text", queries)), evidence.labels(queries)))
    return float(np.concatenate(right).mean()) if right else 0.0


def _joined(folds: Sequence[Mapping[Any, Scores]]) -> dict[Any, Scores]:
    return {name: np.concatenate([scores[name] for scores in folds]) for name in folds[0]}


def measure(experiment: Experiment, selection: ModelSelection, folds: Sequence[Fold], folder: Path) -> Table:
    """Top-1 identification by all systems over folds of training and held-out samples.

    Args:
        experiment: The samples.
        selection: How stage 1 trains, the weights, and the regularisation.
        folds: The figures pool the held-out samples of all.
        folder: Keeps the trainings of each fold.

    Returns:
        Rows (system, modality) -> columns (1 sample, k samples) -> accuracy with a 95 % interval over people. k is
        `MOST_SAMPLES`, or less where nobody has that many held-out samples. Where there are several trainings, there
        are rows of one alone: the mean over all. "DEPER + classical" is the weighted sum of all scores. The last rows
        are differences, person by person. A row is of the samples that hold what it reads, and empty where none does.
    """
    most = min(int(np.bincount(experiment.data.subject_of[fold.held_out]).max()) for fold in folds)
    sizes = sorted({1, min(MOST_SAMPLES, most)})
    names = systems(experiment.trainings, DEPER_AND_CLASSICAL, CLASSICAL)
    accuracies: dict[tuple[str, Modality, int], list[NDArray[np.float64]]] = defaultdict(list)
    people: dict[tuple[Modality, int], list[int]] = {key: [] for key in itertools.product(MODALITIES, sizes)}
    text_alone: dict[int, list[NDArray[np.float64]]] = {size: [] for size in sizes}
    for number, fold in enumerate(folds):
        evidence = FoldEvidence(
            experiment,
            fold,
            classical_log_probabilities(experiment, fold, selection.regularisation),
            experiment.train(fold.training, selection.schedule, folder / str(number) if len(folds) > 1 else folder),
        )
        for modality, size in people:
            if not (queries := evidence.queries(modality, size)):
                continue
            labels = evidence.labels(queries)
            people[modality, size] += labels.tolist()
            for system, scores in _decide(evidence, modality, queries, selection).items():
                right = [top1_accuracy(own, labels) for own in scores]
                accuracies[system, modality, size].append(np.mean(right, axis=0))
            if modality == "text + gaze":
                text = mean_scores(evidence.deper("text", queries))["text"]
                text_alone[size].append(top1_accuracy(text, labels))
    return accuracy_table(
        {key: np.concatenate(of_folds) for key, of_folds in accuracies.items()},
        people,
        names,
        {"difference": (DEPER, CLASSICAL), f"{DEPER_AND_CLASSICAL} less {CLASSICAL}": (DEPER_AND_CLASSICAL, CLASSICAL)},
        {size: np.concatenate(of_folds) for size, of_folds in text_alone.items() if of_folds},
    )


def _decide(
    evidence: FoldEvidence, modality: Modality, queries: Sequence[Query], selection: ModelSelection
) -> dict[str, list[Scores]]:
    """By system, the scores of a row; those of "one training" are a list of all."""
    each, classical = evidence.deper(modality, queries), evidence.classical(modality, queries)
    ensemble = mean_scores(each)
    everything = all_scores(ensemble, classical)
    return {
        DEPER: [weighted_sum(ensemble, selection.weights[modality])],
        ONE_TRAINING: [
            weighted_sum(own, weights[modality]) for own, weights in zip(each, selection.training_weights, strict=True)
        ],
        DEPER_AND_CLASSICAL: [weighted_sum(everything, selection.fusion[modality])],
        CLASSICAL: [classical_sum(classical)],
    }


def rounded(figures: Mapping[Any, float]) -> dict[str, float]:
    """Figures as a report's facts have them."""
    return {str(name): round(figure, 3) for name, figure in figures.items()}
