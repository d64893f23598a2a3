"""People whom training has never seen: enrolled by a few samples each, told apart on other photographs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.centroids import Vectors, Whitening, centroid_scores, unit
from training.classical import (
    GAZE_WEIGHT,
    gaze_log_probabilities,
    gaze_vectors,
    text_log_probabilities,
    text_vectors,
)
from training.evaluation.report import Figure
from training.identification import (
    GAZE_SHARE,
    MODALITIES,
    ONE_TRAINING,
    SHRINKAGE,
    Experiment,
    Modality,
    Trained,
    credit_table,
    credits_of,
)

NEAREST_MEAN_GAZE_WEIGHT = 0.1
"""Of gaze in the sum of the classical cosines; of 0.05, 0.1 and 0.2 it does best with these people."""

CLASSICAL = ("nearest mean", "fitted anew")

Scorer = Callable[["Enrolment"], Vectors]
"""An enrolment -> (p queries, p people) scores; the highest wins."""


@attrs.frozen(eq=False)
class Enrolment:
    """One draw: new people, the samples that enrol them, and others to be identified by, all on the same photographs.

    Attributes:
        support: (p, shots) rows of the samples that enrol them.
        queries: (p, asked) rows of their samples to be identified by the mean, of photographs that no support is of.
    """

    support: NDArray[np.intp]
    queries: NDArray[np.intp]


def people_groups(count: int, size: int, seed: int = 0) -> list[NDArray[np.integer]]:
    """Deals people 0 … count - 1, shuffled once, to count // size disjoint groups; who is left over is in none.

    Raises:
        InvalidArgumentError: There would be fewer than 2 people in a group, or fewer than 2 groups.
    """
    if size < 2 or count // size < 2:
        raise InvalidArgumentError(
            f"{count} people in groups of {size}: at least 2 groups of at least 2 are needed, one of them to learn from"
        )
    shuffled = np.random.default_rng(seed).permutation(count)[: count // size * size]
    return [np.sort(group) for group in shuffled.reshape(-1, size)]


def enrolments(
    image_of: NDArray[np.integer],
    subject_of: NDArray[np.integer],
    people: NDArray[np.integer],
    *,
    shots: int,
    asked: int,
    draws: int,
    seed: int = 0,
) -> list[Enrolment]:
    """Random enrolments of these people.

    Args:
        image_of: (n,) the photograph of each sample.
        subject_of: (n,) whose sample each is.
        people: (p,) whom to enrol.
        shots: Photographs that enrol them.
        asked: Other photographs, on which they are identified.
        draws: How many enrolments.
        seed: Of the draws.

    Raises:
        InvalidArgumentError: Too few photographs have a sample of each of the people.
    """
    row_of = {(int(image_of[row]), int(subject_of[row])): row for row in np.flatnonzero(np.isin(subject_of, people))}
    shared = [image for image in np.unique(image_of) if all((int(image), int(person)) in row_of for person in people)]
    if len(shared) < shots + asked:
        raise InvalidArgumentError(
            f"people {people.tolist()} share {len(shared)} photographs; {shots} to be enrolled by and {asked} others "
            "to be identified on are needed"
        )
    rng = np.random.default_rng([seed, *people.tolist()])
    drawn = []
    for _ in range(draws):
        photographs = rng.choice(shared, shots + asked, replace=False)
        rows = np.array([[row_of[int(image), int(person)] for image in photographs] for person in people])
        drawn.append(Enrolment(rows[:, :shots], rows[:, shots:]))
    return drawn


def nearest_mean(vectors: Vectors) -> Scorer:
    """Cosines between the mean of each query's normalised vectors and that of each person's support.

    Args:
        vectors: (n, k) one vector a sample.
    """
    vectors = unit(vectors)

    def score(enrolment: Enrolment) -> Vectors:
        people, shots = enrolment.support.shape
        support = vectors[enrolment.support.reshape(-1)]
        queries = vectors[enrolment.queries].mean(axis=1)
        return centroid_scores(queries, support, np.repeat(np.arange(people), shots), people)

    return score


def both(text: Scorer, gaze: Scorer, weight: float) -> Scorer:
    """The sum of two scores, the second one weighted."""
    return lambda enrolment: text(enrolment) + weight * gaze(enrolment)


def measure(
    experiment: Experiment, size: int, shots: int, draws: int, regularisation: float, folder: Path
) -> dict[str, dict[str, Figure]]:
    """Identification among new people, group by group: the others are learned from, and these are enrolled.

    DEPER learns from the others' samples of the training split; persona and query are means of whitened z_s, and the
    cosine of those of gaze alone is added with `GAZE_SHARE` (see `training.identification`). The classical answers are
    the nearest mean of TF-IDF vectors and of standardised gaze statistics, whose terms, weights and spreads are the
    others'; and the classifiers of `training.classical`, fitted anew to the samples that enrol.

    Args:
        experiment: The samples.
        size: New people in a group; all people take their turn, but those who are left over.
        shots: Samples that enrol a new person.
        draws: Random enrolments of each group, for each number of samples asked about.
        regularisation: Of the text classifier.
        folder: Keeps the trainings of each group.

    Returns:
        Rows (system, modality) -> columns (1 sample, k samples asked about) -> share of right answers with a 95 %
        interval over people; below them differences, person by person. k is `shots`, or less where there are not so
        many other photographs.

    Raises:
        InvalidArgumentError: There are too few people or photographs.
    """
    image_of, subject_of = experiment.data.image_of, experiment.data.subject_of
    credits: dict[tuple[str, Modality, int], list[NDArray[np.float64]]] = {}
    most = max(1, min(shots, len(np.unique(image_of)) - shots))
    names: dict[int, list[int]] = {1: [], most: []}
    for number, people in enumerate(people_groups(len(experiment.data.subjects), size)):
        others = experiment.is_training & ~np.isin(subject_of, people)
        each = [_deper(experiment, others, trained) for trained in experiment.train(others, folder / str(number))]
        scorers = {
            "DEPER": [_together(each)],
            ONE_TRAINING: each,
            "nearest mean": [_nearest_mean(experiment, others)],
            "fitted anew": [_fitted_anew(experiment, regularisation)],
        }
        for asked in names:
            for enrolment in enrolments(image_of, subject_of, people, shots=shots, asked=asked, draws=draws):
                names[asked] += people.tolist()
                for system in experiment.systems(*CLASSICAL):
                    scores = [by_modality(enrolment) for by_modality in scorers[system]]
                    for modality in MODALITIES:
                        own = [credits_of(by[modality], np.arange(len(people))) for by in scores]
                        credits.setdefault((system, modality, asked), []).append(np.mean(own, axis=0))
    differences = {f"DEPER less {other}": other for other in CLASSICAL}
    return credit_table(credits, names, experiment.systems(*CLASSICAL), differences)


# --- the systems: an enrolment -> scores by modality

_ByModality = Callable[[Enrolment], Mapping[Modality, Vectors]]


def _together(trainings: Sequence[_ByModality]) -> _ByModality:
    def scores(enrolment: Enrolment) -> Mapping[Modality, Vectors]:
        each = [by_modality(enrolment) for by_modality in trainings]
        return {modality: np.mean([by[modality] for by in each], axis=0) for modality in MODALITIES}

    return scores


def _deper(experiment: Experiment, others: NDArray[np.bool_], trained: Trained) -> _ByModality:
    known = experiment.data.subject_of[others]
    single = {
        modality: nearest_mean(Whitening.fit(vectors[others], known, SHRINKAGE)(vectors))
        for modality, vectors in trained.vectors.items()
    }
    return _scoring({**single, "text + gaze": both(single["text + gaze"], single["gaze"], GAZE_SHARE)})


def _nearest_mean(experiment: Experiment, others: NDArray[np.bool_]) -> _ByModality:
    known, samples = experiment.rows(others), experiment.samples
    text, gaze = nearest_mean(text_vectors(known, samples)), nearest_mean(gaze_vectors(known, samples))
    return _scoring({"text + gaze": both(text, gaze, NEAREST_MEAN_GAZE_WEIGHT), "text": text, "gaze": gaze})


def _scoring(scorers: Mapping[Modality, Scorer]) -> _ByModality:
    return lambda enrolment: {modality: scorer(enrolment) for modality, scorer in scorers.items()}


def _fitted_anew(experiment: Experiment, regularisation: float) -> _ByModality:
    samples = experiment.samples

    def scores(enrolment: Enrolment) -> Mapping[Modality, Vectors]:
        support, queries = (
            [samples[row] for row in rows.reshape(-1)] for rows in (enrolment.support, enrolment.queries)
        )
        text, gaze = (
            log_probabilities.reshape(*enrolment.queries.shape, -1).mean(axis=1)
            for log_probabilities in (
                text_log_probabilities(support, queries, regularisation),
                gaze_log_probabilities(support, queries),
            )
        )
        return {"text + gaze": text + GAZE_WEIGHT * gaze, "text": text, "gaze": gaze}

    return scores
