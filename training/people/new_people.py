"""Few-shot identification of people whom training has never seen: enrolled by a few samples, told apart by others."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
from training.people.classical import (
    GAZE_WEIGHT,
    gaze_log_probabilities,
    gaze_vectors,
    text_log_probabilities,
    text_vectors,
)
from training.people.evidence import VIEWS
from training.people.experiment import Experiment
from training.people.held_out import Mask
from training.people.nearest_centroid import Vectors, centroid_scores, unit
from training.people.score_fusion import (
    MODALITIES,
    Modality,
    Scores,
    View,
    Weights,
    fit_weights,
    fuse_views,
    mean_scores,
    weighted_sum,
)
from training.people.training_search import Schedule

NEAREST_MEAN_GAZE_WEIGHT = 0.1
"""Of gaze in the sum of the classical cosines; of 0.05, 0.1 and 0.2 it does best with these people."""

NEAREST_MEAN, FITTED_ANEW = "nearest mean", "fitted anew"
CLASSICAL = (NEAREST_MEAN, FITTED_ANEW)

_NOBODY = -1  # whose samples are drawn in no episode

# --- episodes: who is enrolled by which samples, and which samples are to be identified


@attrs.frozen(eq=False)
class Episode:
    """One random enrolment: p people's support samples, and their queries, all on the same photographs.

    Attributes:
        support: (p, shots) rows of the samples that enrol each person.
        queries: (p, samples) rows of the samples whose mean is each person's query, of photographs that no support
            sample is of.
    """

    support: NDArray[np.intp]
    queries: NDArray[np.intp]


@attrs.frozen(eq=False)
class Group:
    """New people who are told apart from each other, and their episodes.

    Attributes:
        people: (p,)
        episodes: Samples of a query -> the random enrolments; 1 is among the numbers.
    """

    people: NDArray[np.integer]
    episodes: dict[int, list[Episode]]


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


def draw_episodes(
    image_of: NDArray[np.integer],
    subject_of: NDArray[np.integer],
    people: NDArray[np.integer],
    *,
    shots: int,
    samples: int,
    draws: int,
    seed: int = 0,
) -> list[Episode]:
    """Random enrolments of these people.

    Args:
        image_of: (n,) the photograph of each sample.
        subject_of: (n,) whose sample each is.
        people: (p,) whom to enrol.
        shots: Photographs that enrol them.
        samples: Other photographs, on which they are identified.
        draws: How many enrolments.
        seed: Of the draws.

    Raises:
        InvalidArgumentError: There is to be no draw, or too few photographs have a sample of each of the people.
    """
    if draws < 1:
        raise InvalidArgumentError(f"draws is {draws}; at least 1 is needed")
    row_of = {(int(image_of[row]), int(subject_of[row])): row for row in np.flatnonzero(np.isin(subject_of, people))}
    shared = [image for image in np.unique(image_of) if all((int(image), int(person)) in row_of for person in people)]
    if len(shared) < shots + samples:
        raise InvalidArgumentError(
            f"people {people.tolist()} share {len(shared)} photographs; {shots} to be enrolled by and {samples} others "
            "to be identified on are needed"
        )
    rng = np.random.default_rng([seed, *people.tolist()])
    episodes = []
    for _ in range(draws):
        photographs = rng.choice(shared, shots + samples, replace=False)
        rows = np.array([[row_of[int(image), int(person)] for image in photographs] for person in people])
        episodes.append(Episode(rows[:, :shots], rows[:, shots:]))
    return episodes


def draw_groups(experiment: Experiment, size: int, shots: int, draws: int) -> list[Group]:
    """Draws the episodes of group after group; everybody is in one group, except those who are left over.

    Only samples with both description and trajectory enrol people or identify them, so that all rows are of the same.

    Args:
        experiment: The samples.
        size: New people in a group.
        shots: Samples that enrol a person.
        draws: Random enrolments of each group, for queries of one sample and of `shots`, or less where there are not
            so many other photographs.

    Raises:
        InvalidArgumentError: There are too few people or photographs, or is to be no draw.
    """
    image_of = experiment.data.image_of
    subject_of = np.where(experiment.has("text + gaze"), experiment.data.subject_of, _NOBODY)
    most = max(1, min(shots, len(np.unique(image_of)) - shots))

    def episodes(people: NDArray[np.integer], samples: int) -> list[Episode]:
        return draw_episodes(image_of, subject_of, people, shots=shots, samples=samples, draws=draws)

    return [
        Group(people, {samples: episodes(people, samples) for samples in sorted({1, most})})
        for people in people_groups(len(experiment.data.subjects), size)
    ]


# --- measuring

GroupScores = dict[int, dict[Modality, Scores]]
"""A system's scores for one group of p people: samples of a query -> by modality, (draws, p, p)."""


def measure(
    experiment: Experiment, groups: Sequence[Group], regularisation: float, schedule: Schedule, folder: Path
) -> tuple[Table, Weights]:
    """Identification among new people, group by group: the others are learned from, and these are enrolled.

    DEPER learns from the others' samples of the training split; persona and query are means of whitened z_s of each
    view, and the weights of the views are fitted to the other groups (`cross_fit_weights`). The classical answers are
    the nearest mean of TF-IDF vectors and of standardised gaze statistics, whose terms, weights and spreads are the
    others'; and the classifiers of `training.people.classical`, fitted anew to the samples that enrol.

    Args:
        experiment: The samples.
        groups: Whom to enrol, and how; at least 2.
        regularisation: Of the text classifier.
        schedule: How stage 1 is trained.
        folder: Keeps the trainings of each group.

    Returns:
        Rows (system, modality) -> columns (samples of a query) -> accuracy with a 95 % interval over people; below them
        differences, person by person. And the mean over groups of the weights of DEPER's views.
    """
    trainings: list[list[GroupScores]] = [[] for _ in range(experiment.trainings)]
    classical: dict[str, list[GroupScores]] = {system: [] for system in CLASSICAL}
    for number, group in enumerate(groups):
        others = experiment.is_training & ~np.isin(experiment.data.subject_of, group.people)
        for own, vectors in zip(trainings, experiment.train(others, schedule, folder / str(number)), strict=True):
            own.append(score_group(_views(vectors), group))
        classical[NEAREST_MEAN].append(score_group(_nearest_mean(experiment, others), group))
        classical[FITTED_ANEW].append(score_group(_fitted_anew(experiment, regularisation), group))

    ensemble: list[GroupScores] = [
        {samples: mean_scores([scores[samples] for scores in own]) for samples in group.episodes}
        for group, own in zip(groups, zip(*trainings, strict=True), strict=True)
    ]
    weights = cross_fit_weights(ensemble)
    scores = {
        DEPER: [_fuse(ensemble, weights)],
        ONE_TRAINING: [_fuse(own, cross_fit_weights(own)) for own in trainings],
        DEPER_AND_CLASSICAL: [_add_classical(ensemble, classical)],
        **{system: [own] for system, own in classical.items()},
    }
    names = systems(experiment.trainings, DEPER_AND_CLASSICAL, *CLASSICAL)
    accuracies = {
        (system, modality, samples): np.mean([_accuracy(own, modality, samples) for own in scores[system]], axis=0)
        for system in names
        for modality in MODALITIES
        for samples in groups[0].episodes
    }
    people = {
        (modality, samples): [
            person for group in groups for person in group.people.tolist() * len(group.episodes[samples])
        ]
        for modality in MODALITIES
        for samples in groups[0].episodes
    }
    differences = {f"{own} less {other}": (own, other) for own in (DEPER, DEPER_AND_CLASSICAL) for other in CLASSICAL}
    text = {samples: accuracies[DEPER, "text", samples] for samples in groups[0].episodes}
    mean_weights = {view: float(np.mean([own[view] for own in weights])) for view in MODALITIES}
    return accuracy_table(accuracies, people, names, differences, text), mean_weights


def cross_fit_weights(groups: Sequence[Mapping[int, Mapping[View, Scores]]]) -> list[dict[View, float]]:
    """For each group, the weights of views that serve to tell the people of the other groups apart.

    Args:
        groups: The scores of each, by view; those of queries of one sample are what the weights are fitted to.
    """
    fitted = []
    for number in range(len(groups)):
        others = [scores[1] for other, scores in enumerate(groups) if other != number]
        scores = {view: np.concatenate([own[view] for own in others]) for view in others[0]}
        labels = _labels(next(iter(scores.values())))
        fitted.append(fit_weights({view: _rows(own) for view, own in scores.items()}, labels))
    return fitted


def _add_classical(deper: Sequence[GroupScores], classical: Mapping[str, Sequence[GroupScores]]) -> list[GroupScores]:
    """By row, the sum of DEPER's views and the classical answers, with weights that are fitted to the other groups."""
    total: list[GroupScores] = [{samples: {} for samples in own} for own in deper]
    for modality, views in VIEWS.items():
        every = [
            {
                samples: {view: scores[view] for view in views}
                | {
                    (system, view): answers[number][samples][view]
                    for system, answers in classical.items()
                    for view in views
                    if view != "text + gaze"  # whose classical answer is the sum of the other two
                }
                for samples, scores in own.items()
            }
            for number, own in enumerate(deper)
        ]
        for own, scores, weights in zip(total, every, cross_fit_weights(every), strict=True):
            for samples in own:
                own[samples][modality] = weighted_sum(scores[samples], weights)
    return total


def _fuse(groups: Sequence[GroupScores], weights: Sequence[Weights]) -> list[GroupScores]:
    return [
        {samples: fuse_views(scores, fitted) for samples, scores in own.items()}
        for own, fitted in zip(groups, weights, strict=True)
    ]


def _accuracy(groups: Sequence[GroupScores], modality: Modality, samples: int) -> NDArray[np.float64]:
    """(groups · draws · p,) top-1 accuracy of each query."""
    scores = np.concatenate([own[samples][modality] for own in groups])
    return top1_accuracy(_rows(scores), _labels(scores))


def _rows(scores: Scores) -> Scores:
    """(draws, p, p) -> (draws · p, p): a row for each query."""
    return scores.reshape(-1, scores.shape[-1])


def _labels(scores: Scores) -> NDArray[np.integer]:
    """(draws · p,) the right person of each row."""
    return np.tile(np.arange(scores.shape[-1]), len(scores))


# --- the systems: an episode -> scores, and these by modality

Scorer = Callable[[Episode], Scores]
"""An episode -> (p queries, p people) scores."""

ModalityScorer = Callable[[Episode], Mapping[Modality, Scores]]


def score_group(scorer: ModalityScorer, group: Group) -> GroupScores:
    """A system's scores in all episodes of a group."""

    def stacked(episodes: Sequence[Episode]) -> dict[Modality, Scores]:
        draws = [scorer(episode) for episode in episodes]
        return {modality: np.stack([scores[modality] for scores in draws]) for modality in MODALITIES}

    return {samples: stacked(episodes) for samples, episodes in group.episodes.items()}


def nearest_mean(vectors: Vectors) -> Scorer:
    """Cosines between the mean of each query's normalised vectors and that of each person's support.

    Args:
        vectors: (n, k) one vector a sample.
    """
    vectors = unit(vectors)

    def score(episode: Episode) -> Scores:
        people, shots = episode.support.shape
        support = vectors[episode.support.reshape(-1)]
        queries = vectors[episode.queries].mean(axis=1)
        return centroid_scores(queries, support, np.repeat(np.arange(people), shots), people)

    return score


def _views(vectors: Mapping[Modality, Vectors]) -> ModalityScorer:
    return _by_modality({view: nearest_mean(own) for view, own in vectors.items()})


def _nearest_mean(experiment: Experiment, others: Mask) -> ModalityScorer:
    complete = experiment.has("text + gaze")
    known, samples = experiment.rows(others & complete), experiment.rows(complete)

    def cosines(vectors: Vectors) -> Scorer:
        every = np.zeros((len(complete), vectors.shape[1]))
        every[complete] = vectors
        return nearest_mean(every)

    text, gaze = cosines(text_vectors(known, samples)), cosines(gaze_vectors(known, samples))

    def both(episode: Episode) -> Scores:
        return text(episode) + NEAREST_MEAN_GAZE_WEIGHT * gaze(episode)

    return _by_modality({"text + gaze": both, "text": text, "gaze": gaze})


def _by_modality(scorers: Mapping[Modality, Scorer]) -> ModalityScorer:
    return lambda episode: {modality: scorer(episode) for modality, scorer in scorers.items()}


def _fitted_anew(experiment: Experiment, regularisation: float) -> ModalityScorer:
    samples = experiment.samples

    def scores(episode: Episode) -> Mapping[Modality, Scores]:
        support, queries = (
            [samples[row] for row in rows.reshape(-1).tolist()] for rows in (episode.support, episode.queries)
        )
        text, gaze = (
            log_probabilities.reshape(*episode.queries.shape, -1).mean(axis=1)
            for log_probabilities in (
                text_log_probabilities(support, queries, regularisation),
                gaze_log_probabilities(support, queries),
            )
        )
        return {"text + gaze": text + GAZE_WEIGHT * gaze, "text": text, "gaze": gaze}

    return scores
