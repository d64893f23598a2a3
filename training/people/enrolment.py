"""People whom training has never seen: enrolled by a few samples each, told apart on other photographs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.evaluation.report import Figure
from training.people.centroids import Vectors, centroid_scores, unit
from training.people.classical import (
    GAZE_WEIGHT,
    gaze_log_probabilities,
    gaze_vectors,
    text_log_probabilities,
    text_vectors,
)
from training.people.identification import (
    MODALITIES,
    ONE_TRAINING,
    Experiment,
    Modality,
    Weights,
    credit_table,
    credits_of,
    fitted_weights,
    mean_scores,
    weighted_sum,
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
        InvalidArgumentError: There is to be no draw, or too few photographs have a sample of each of the people.
    """
    if draws < 1:
        raise InvalidArgumentError(f"draws is {draws}; at least 1 is needed")
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


@attrs.frozen(eq=False)
class Group:
    """New people, and how they are enrolled and asked about.

    Attributes:
        people: (p,)
        drawn: How many samples are asked about at a time -> the draws; 1 is among the numbers.
    """

    people: NDArray[np.integer]
    drawn: dict[int, list[Enrolment]]


def new_people(experiment: Experiment, size: int, shots: int, draws: int) -> list[Group]:
    """Draws the enrolments of group after group; all people take their turn, but those who are left over.

    Args:
        experiment: The samples.
        size: New people in a group.
        shots: Samples that enrol a person.
        draws: Random enrolments of each group, for each number of samples asked about: one, and `shots`, or less where
            there are not so many other photographs.

    Raises:
        InvalidArgumentError: There are too few people or photographs, or is to be no draw.
    """
    image_of, subject_of = experiment.data.image_of, experiment.data.subject_of
    most = max(1, min(shots, len(np.unique(image_of)) - shots))

    def enrolled(people: NDArray[np.integer], asked: int) -> list[Enrolment]:
        return enrolments(image_of, subject_of, people, shots=shots, asked=asked, draws=draws)

    return [
        Group(people, {asked: enrolled(people, asked) for asked in sorted({1, most})})
        for people in people_groups(len(experiment.data.subjects), size)
    ]


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


Answers = dict[int, dict[Modality, Vectors]]
"""A system's scores for one group of people: samples asked about at a time -> by modality, or view, (draws, p, p)."""


def cross_fitted(groups: Sequence[Answers]) -> list[Weights]:
    """For each group, the weights of a system's views that serve to tell the people of the other groups apart.

    Args:
        groups: The answers of each, by view, among them those about one sample, which the weights are fitted to.
    """
    fitted = []
    for number in range(len(groups)):
        others = [answers[1] for other, answers in enumerate(groups) if other != number]
        scores = {view: np.concatenate([own[view] for own in others]) for view in MODALITIES}
        rows = {view: _rows(own) for view, own in scores.items()}
        fitted.append(fitted_weights(rows, _right(scores["text"])))
    return fitted


def _fused(answers: Answers, weights: Weights) -> Answers:
    return {asked: {**scores, "text + gaze": weighted_sum(scores, weights)} for asked, scores in answers.items()}


def _rows(scores: Vectors) -> Vectors:
    """(draws, p, p) -> (draws · p, p): a row for each query."""
    return scores.reshape(-1, scores.shape[-1])


def _right(scores: Vectors) -> NDArray[np.integer]:
    """(draws · p,) the right person of each row."""
    return np.tile(np.arange(scores.shape[-1]), len(scores))


def measure(
    experiment: Experiment, groups: Sequence[Group], regularisation: float, folder: Path
) -> tuple[dict[str, dict[str, Figure]], Weights]:
    """Identification among new people, group by group: the others are learned from, and these are enrolled.

    DEPER learns from the others' samples of the training split; persona and query are means of whitened z_s of each
    view, and what the views say together is weighted as serves in telling the other groups apart (`cross_fitted`). The
    classical answers are the nearest mean of TF-IDF vectors and of standardised gaze statistics, whose terms, weights
    and spreads are the others'; and the classifiers of `training.people.classical`, fitted anew to the samples that
    enrol.

    Args:
        experiment: The samples.
        groups: Whom to enrol, and how; at least 2.
        regularisation: Of the text classifier.
        folder: Keeps the trainings of each group.

    Returns:
        Rows (system, modality) -> columns (number of samples asked about) -> share of right answers with a 95 %
        interval over people; below them differences, person by person. And the mean over groups of the weights of
        DEPER's views.
    """
    each: list[list[Answers]] = [[] for _ in range(experiment.trainings)]
    classical: dict[str, list[Answers]] = {system: [] for system in CLASSICAL}
    for number, group in enumerate(groups):
        others = experiment.is_training & ~np.isin(experiment.data.subject_of, group.people)
        for own, vectors in zip(each, experiment.train(others, folder / str(number)), strict=True):
            own.append(_answers(_views(vectors), group))
        classical["nearest mean"].append(_answers(_nearest_mean(experiment, others), group))
        classical["fitted anew"].append(_answers(_fitted_anew(experiment, regularisation), group))

    together = [
        {asked: mean_scores([answers[asked] for answers in own]) for asked in group.drawn}
        for group, own in zip(groups, zip(*each, strict=True), strict=True)
    ]
    weights = cross_fitted(together)
    systems = {
        "DEPER": [list(map(_fused, together, weights))],
        ONE_TRAINING: [list(map(_fused, own, cross_fitted(own))) for own in each],
        **{system: [own] for system, own in classical.items()},
    }
    credits = {
        (system, modality, asked): [np.mean([_credits(own, modality, asked) for own in systems[system]], axis=0)]
        for system in experiment.systems(*CLASSICAL)
        for modality in MODALITIES
        for asked in groups[0].drawn
    }
    names = {
        asked: [person for group in groups for person in group.people.tolist() * len(group.drawn[asked])]
        for asked in groups[0].drawn
    }
    differences = {f"DEPER less {other}": other for other in CLASSICAL}
    mean_weights = {view: float(np.mean([own[view] for own in weights])) for view in MODALITIES}
    return credit_table(credits, names, experiment.systems(*CLASSICAL), differences), mean_weights


def _credits(groups: Sequence[Answers], modality: Modality, asked: int) -> NDArray[np.float64]:
    """(groups · draws · p,) what the decisions are worth; see `training.people.identification.identify`."""
    scores = np.concatenate([answers[asked][modality] for answers in groups])
    return credits_of(_rows(scores), _right(scores))


# --- the systems: an enrolment -> scores by modality

_ByModality = Callable[[Enrolment], Mapping[Modality, Vectors]]


def _answers(scorer: _ByModality, group: Group) -> Answers:
    def stacked(drawn: Sequence[Enrolment]) -> dict[Modality, Vectors]:
        draws = [scorer(enrolment) for enrolment in drawn]
        return {modality: np.stack([scores[modality] for scores in draws]) for modality in MODALITIES}

    return {asked: stacked(drawn) for asked, drawn in group.drawn.items()}


def _views(vectors: Mapping[Modality, Vectors]) -> _ByModality:
    return _scoring({view: nearest_mean(own) for view, own in vectors.items()})


def _nearest_mean(experiment: Experiment, others: NDArray[np.bool_]) -> _ByModality:
    known, samples = experiment.rows(others), experiment.samples
    text, gaze = nearest_mean(text_vectors(known, samples)), nearest_mean(gaze_vectors(known, samples))

    def both(enrolment: Enrolment) -> Vectors:
        return text(enrolment) + NEAREST_MEAN_GAZE_WEIGHT * gaze(enrolment)

    return _scoring({"text + gaze": both, "text": text, "gaze": gaze})


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
