"""Subject identification: whose samples are these? Subject embeddings, beside classical answers on the same division.

Everything that is chosen (the weights of DEPER's views here, the baseline's regularisation there) is chosen by
cross-validation over the photographs of the training split; the samples of the split "val" decide nothing.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import numpy as np
from numpy.typing import NDArray

import pydeper
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.samples.sample import Sample
from training.config import TrainingConfig
from training.data.encoded import EncodedDataset
from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.report import Figure
from training.loop.train import train
from training.people.centroids import Whitening, centroid_scores, unit
from training.people.classical import GAZE_WEIGHT, REGULARISATIONS, gaze_log_probabilities, text_log_probabilities
from training.people.fusion import fit_weights
from training.preparation.splits import TRAIN, VAL
from training.runs.folders import stage1_folder
from training.runs.frozen_parts import FrozenParts
from training.stages.embedding import embed
from training.stages.stage1 import Stage1Task

SHRINKAGE = 0.1
"""Of the whitening; see `training.people.centroids.Whitening`."""

Modality = Literal["text + gaze", "text", "gaze"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)
_WITHOUT: dict[Modality, str | None] = {"text + gaze": None, "text": "trajectory", "gaze": "text"}

ONE_TRAINING = "one training"
"""DEPER trained once, in the tables of an ensemble: the mean over its trainings."""

MOST_SAMPLES = 5
_MOST_GROUPS = 20

Scores = NDArray[np.floating]


# --- deciding


@attrs.frozen(eq=False)
class Evidence:
    """What a system makes of n samples, and how it decides on the mean over several samples of one person.

    Attributes:
        vectors: (n, k) one vector a sample.
        decide: (m, k) means of vectors -> (m, people) scores; the highest wins.
    """

    vectors: Scores
    decide: Callable[[Scores], Scores]


ByModality = dict[Modality, Evidence]


def added(parts: Sequence[Evidence], weights: Sequence[float]) -> Evidence:
    """What several systems, or several views of one, say together: the weighted sum of their scores."""
    ends = np.cumsum([part.vectors.shape[1] for part in parts])

    def decide(means: Scores) -> Scores:
        own = np.split(means, ends[:-1], axis=1)
        return sum(weight * part.decide(vectors) for part, vectors, weight in zip(parts, own, weights, strict=True))

    return Evidence(np.hstack([part.vectors for part in parts]), decide)


def together(trainings: Sequence[ByModality]) -> ByModality:
    """The mean of several trainings' scores."""
    share = [1 / len(trainings)] * len(trainings)
    return {modality: added([by[modality] for by in trainings], share) for modality in MODALITIES}


Weights = dict[Modality, float]
"""Of each view in what they say together."""


def fused(views: ByModality, weights: Weights) -> ByModality:
    """The views, but of text and gaze is decided by what all three say together.

    Words, which say more, drown gaze in a z_s of both; so that of gaze alone has a say of its own.
    """
    parts = [views[view] for view in weights]
    return {**views, "text + gaze": added(parts, list(weights.values()))}


def weighted_sum(scores: Mapping[Modality, Scores], weights: Weights) -> Scores:
    """What the views say together, of scores that are there already; `fused` is for scores of means to come."""
    total: Scores = np.sum([weight * scores[view] for view, weight in weights.items()], axis=0)
    return total


def mean_scores(trainings: Sequence[Mapping[Modality, Scores]]) -> dict[Modality, Scores]:
    """The mean of several trainings' scores, by view; `together` is for scores of means to come."""
    return {view: np.mean([scores[view] for scores in trainings], axis=0) for view in MODALITIES}


def fitted_weights(scores: Mapping[Modality, Scores], right: NDArray[np.integer]) -> Weights:
    """Weights for `fused`; see `training.people.fusion`.

    Args:
        scores: Of each view, (n, people) of decisions about one sample.
        right: (n,) the right person.
    """
    weights = fit_weights([scores[view] for view in MODALITIES], right)
    return dict(zip(MODALITIES, weights.tolist(), strict=True))


def groups_of(
    subjects: NDArray[np.integer], size: int, most: int = _MOST_GROUPS, seed: int = 0
) -> list[NDArray[np.intp]]:
    """Groups of `size` samples of one person: all there are, or `most` random ones of each person where there are more.

    Args:
        subjects: (n,) whose sample each is.
        size: Samples in a group, at least 1; who has fewer makes one group of all.
        most: Most groups of a person; single samples are always all there.
        seed: Of the random groups.
    """
    rng = np.random.default_rng(seed)
    groups: list[NDArray[np.intp]] = []
    for subject in np.unique(subjects):
        rows = np.flatnonzero(subjects == subject)
        count = min(size, len(rows))
        if count == 1 or math.comb(len(rows), count) <= most:
            groups += [np.array(group) for group in itertools.combinations(rows, count)]
        else:
            groups += [rng.choice(rows, count, replace=False) for _ in range(most)]
    return groups


def identify(
    evidence: Evidence, subjects: NDArray[np.integer], groups: Sequence[NDArray[np.intp]]
) -> NDArray[np.float64]:
    """Decides whose each group of samples is, from the mean over the group.

    Args:
        evidence: Of n samples.
        subjects: (n,) whose sample each is.
        groups: Row numbers; the samples of a group are of one person.

    Returns:
        (groups,) credits: 1 where the right person alone scores highest, 1/t where the right one is among t people who
        share the highest score, 0 otherwise.
    """
    scores = evidence.decide(np.stack([evidence.vectors[rows].mean(axis=0) for rows in groups]))
    return credits_of(scores, np.array([subjects[rows[0]] for rows in groups]))


def credits_of(scores: Scores, right: NDArray[np.integer]) -> NDArray[np.float64]:
    """What each decision is worth; see `identify`.

    Args:
        scores: (m, people)
        right: (m,) the right person.
    """
    best = scores.max(axis=1)
    credits: NDArray[np.float64] = (scores[np.arange(len(scores)), right] == best) / (scores == best[:, None]).sum(
        axis=1
    )
    return credits


def image_folds(image_of: NDArray[np.integer], folds: int, seed: int = 0) -> list[NDArray[np.bool_]]:
    """Masks (n,) of the samples held out in each fold: photographs, shuffled once, are dealt to the folds in turn.

    Raises:
        InvalidArgumentError: Fewer than 2 folds, or more than photographs.
    """
    images = np.unique(image_of)
    if not 2 <= folds <= len(images):
        raise InvalidArgumentError(f"{folds} folds of {len(images)} photographs; give 2 to {len(images)}")
    shuffled = np.random.default_rng(seed).permutation(images)
    return [np.isin(image_of, shuffled[fold::folds]) for fold in range(folds)]


# --- DEPER and the classical answers on one division into training and held-out samples


@attrs.frozen(eq=False)
class Experiment:
    """Samples, encoded once, and what is trained on them.

    Attributes:
        config: The training.
        trainings: How often it is done, with the seeds `config.seed`, `config.seed` + 1, … DEPER's scores are the
            means of theirs: an ensemble.
        parts: The frozen parts.
        samples: All samples, in the order of `data`.
        data: All samples, encoded.
    """

    config: TrainingConfig
    trainings: int
    parts: FrozenParts
    samples: Sequence[Sample]
    data: EncodedDataset

    @classmethod
    def load(cls, config: TrainingConfig, trainings: int = 1) -> "Experiment":
        """Reads and encodes the samples.

        Raises:
            InvalidArgumentError: There is to be no training.
            InvalidSampleError: The samples cannot be read, or are not divided into "train" and "val".
        """
        if trainings < 1:
            raise InvalidArgumentError(f"trainings is {trainings}; at least 1 is needed")
        samples = pydeper.read_samples(config.samples)
        if {sample.split for sample in samples} != {TRAIN, VAL}:
            raise InvalidSampleError(
                f"{config.samples}: split: every sample must be of {TRAIN!r} or {VAL!r}, and both "
                "must occur; identification is measured on the second"
            )
        parts = FrozenParts.load(config)
        return cls(config, trainings, parts, samples, parts.encode(samples))

    def systems(self, *others: str) -> tuple[str, ...]:
        """The systems of a report: DEPER, one training of it alone where there are several, and others."""
        return "DEPER", *([ONE_TRAINING] if self.trainings > 1 else []), *others

    @property
    def is_training(self) -> NDArray[np.bool_]:
        """(n,) which samples are of the training split."""
        return np.array([sample.split == TRAIN for sample in self.samples])

    def rows(self, chosen: NDArray[np.bool_]) -> list[Sample]:
        """The chosen samples."""
        return list(itertools.compress(self.samples, chosen))

    def train(self, training: NDArray[np.bool_], folder: Path) -> list[dict[Modality, Scores]]:
        """Trains stage 1 on some samples, or loads it, once for each training's seed.

        One network answers for all views; what a view lacks is withheld from it.

        Returns:
            For each training, by view: (n, subject_embedding_size) z_s of all samples, whitened.
        """
        first = self.config.seed
        return [self._train(training, folder, seed) for seed in range(first, first + self.trainings)]

    def _train(self, training: NDArray[np.bool_], folder: Path, seed: int) -> dict[Modality, Scores]:
        config, table = self.config, self.parts.text_table
        task = Stage1Task(config.network, config.stage1, subset(self.data, training), table, seed)
        train(task, config.stage1, seed, stage1_folder(folder / f"seed-{seed}"))
        known, whitened = self.data.subject_of[training], {}
        for view, without in _WITHOUT.items():
            vectors = embed(task.deper, table, self.data, without)
            whitened[view] = Whitening.fit(vectors[training], known, SHRINKAGE)(vectors)
        return whitened

    def deper(self, training: NDArray[np.bool_], queries: NDArray[np.bool_], folder: Path) -> list[ByModality]:
        """Trains on some samples and reads each view's evidence of others, for each training.

        Decided is by the cosine to the mean of each person's training samples.
        """
        known, people = self.data.subject_of[training], len(self.data.subjects)

        def evidence(vectors: Scores) -> Evidence:
            return Evidence(
                unit(vectors[queries]), lambda means: centroid_scores(means, vectors[training], known, people)
            )

        return [
            {view: evidence(vectors) for view, vectors in by_view.items()} for by_view in self.train(training, folder)
        ]

    def classical(self, training: NDArray[np.bool_], queries: NDArray[np.bool_], regularisation: float) -> "ByModality":
        """Fits the classical answers to some samples and reads the evidence of others: log-probabilities."""
        known, asked = self.rows(training), self.rows(queries)
        text = text_log_probabilities(known, asked, regularisation)
        gaze = gaze_log_probabilities(known, asked)
        vectors: dict[Modality, Scores] = {"text + gaze": text + GAZE_WEIGHT * gaze, "text": text, "gaze": gaze}
        return {modality: Evidence(array, _unchanged) for modality, array in vectors.items()}


def subset(data: EncodedDataset, chosen: NDArray[np.bool_]) -> EncodedDataset:
    """The chosen samples; people and images keep their numbers."""
    return attrs.evolve(
        data,
        samples=list(itertools.compress(data.samples, chosen)),
        origins=list(itertools.compress(data.origins, chosen)),
        image_of=data.image_of[chosen],
        descriptions=list(itertools.compress(data.descriptions, chosen)),
        subject_of=data.subject_of[chosen],
        shard_of=None if data.shard_of is None else data.shard_of[chosen],
    )


# --- choosing and measuring


@attrs.frozen
class Choice:
    """What cross-validation over the training split's photographs chose, with its figures.

    Attributes:
        weights: Of DEPER's views.
        alone: The same for each training alone.
        accuracy: Top-1 from one sample by each view, and by what they say together.
        regularisation: Of the text baseline.
        regularisation_accuracy: Top-1 from one sample's text by each regularisation.
    """

    weights: Weights
    alone: list[Weights]
    accuracy: dict[str, float]
    regularisation: float
    regularisation_accuracy: dict[float, float]

    def facts(self) -> dict[str, object]:
        """The choice as a report tells it."""
        return {
            "within the training split, fitted weights of DEPER's views": rounded(self.weights),
            "share right there": rounded(self.accuracy),
            f"chosen there, the text baseline's C ({self.regularisation:g})": rounded(self.regularisation_accuracy),
        }


def choose(experiment: Experiment, folds: int, folder: Path) -> Choice:
    """Chooses by cross-validation within the training split; `folder` keeps the trainings of each fold."""
    parts: list[dict[Modality, list[Scores]]] = [{view: [] for view in MODALITIES} for _ in range(experiment.trainings)]
    strengths: dict[float, list[NDArray[np.float64]]] = {strength: [] for strength in REGULARISATIONS}
    people = []
    for fold, (known, held_out) in enumerate(by_photographs(experiment, folds, within=experiment.is_training)):
        subjects = experiment.data.subject_of[held_out]
        people.append(subjects)
        for strength, credits in strengths.items():  # before the training, which a missing scikit-learn would waste
            text = text_log_probabilities(experiment.rows(known), experiment.rows(held_out), strength)
            credits.append(credits_of(text, subjects))
        for own, views in zip(parts, experiment.deper(known, held_out, folder / str(fold)), strict=True):
            for view, evidence in views.items():
                own[view].append(evidence.decide(evidence.vectors))
    right = np.concatenate(people)
    each = [{view: np.concatenate(scores) for view, scores in own.items()} for own in parts]
    whole = mean_scores(each)
    weights = fitted_weights(whole, right)
    judged = {**whole, "all views": weighted_sum(whole, weights)}
    accuracy = {str(name): float(credits_of(scores, right).mean()) for name, scores in judged.items()}
    alone = [fitted_weights(scores, right) for scores in each]
    strength_accuracy = {strength: float(np.concatenate(credits).mean()) for strength, credits in strengths.items()}
    best = max(strength_accuracy, key=strength_accuracy.__getitem__)
    return Choice(weights, alone, accuracy, best, strength_accuracy)


def measure(
    experiment: Experiment,
    choice: Choice,
    divisions: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    folder: Path,
) -> dict[str, dict[str, Figure]]:
    """Top-1 identification by both systems over divisions into training and held-out samples.

    Args:
        experiment: The samples.
        choice: Weights of the views, and regularisation.
        divisions: Masks of training and held-out samples; the figures pool the held-out samples of all.
        folder: Keeps the trainings of each division.

    Returns:
        Rows (system, modality) -> columns (1 sample, k samples) -> share of right answers with a 95 % interval over
        people. k is `MOST_SAMPLES`, or less where nobody has that many held-out samples. Where there are several
        trainings, there are rows of one alone: the mean over all. The last rows are differences, person by person:
        between DEPER and the classical answer, and between DEPER with gaze and without.
    """
    held_out_each = [experiment.data.subject_of[held_out] for _, held_out in divisions]
    most = min(int(np.bincount(subjects).max()) for subjects in held_out_each)
    sizes = [1, min(MOST_SAMPLES, most)]
    credits: dict[tuple[str, Modality, int], list[NDArray[np.float64]]] = {}
    people: dict[int, list[NDArray[np.integer]]] = {size: [] for size in sizes}
    for number, (training, held_out) in enumerate(divisions):
        subjects = experiment.data.subject_of[held_out]
        stage = folder / str(number) if len(divisions) > 1 else folder
        each = experiment.deper(training, held_out, stage)
        systems = {
            "DEPER": [fused(together(each), choice.weights)],
            ONE_TRAINING: [fused(views, weights) for views, weights in zip(each, choice.alone, strict=True)],
            "classical": [experiment.classical(training, held_out, choice.regularisation)],
        }
        for size in sizes:
            groups = groups_of(subjects, size)
            people[size].append(np.array([subjects[rows[0]] for rows in groups]))
            for system, modality in itertools.product(experiment.systems("classical"), MODALITIES):
                own = [identify(evidence[modality], subjects, groups) for evidence in systems[system]]
                credits.setdefault((system, modality, size), []).append(np.mean(own, axis=0))
    names = {size: np.concatenate(owners).tolist() for size, owners in people.items()}
    return credit_table(credits, names, experiment.systems("classical"), {"difference": "classical"})


def credit_table(
    credits: Mapping[tuple[str, Modality, int], Sequence[NDArray[np.float64]]],
    people: Mapping[int, Sequence[int]],
    systems: Sequence[str],
    differences: Mapping[str, str],
) -> dict[str, dict[str, Figure]]:
    """Mean credits with intervals over people.

    Args:
        credits: (system, modality, samples) -> credits, in parts.
        people: Samples -> whom each of those credits, part after part, is about.
        systems: In the order of their rows; "DEPER" among them.
        differences: Heading of DEPER's differences, person by person -> the system that is taken from it.

    Returns:
        Rows (system, modality), then (heading, modality), then what gaze adds to DEPER's text; a column for each number
        of samples.
    """
    pooled = {key: np.concatenate(parts) for key, parts in credits.items()}
    rows: dict[str, dict[str, Figure]] = {}

    def add(row: str, values: Callable[[int], NDArray[np.float64]]) -> None:
        rows[row] = {column(k): bootstrap_mean(values(k), owners) for k, owners in people.items()}

    for system, modality in itertools.product(systems, MODALITIES):
        add(f"{system}, {modality}", lambda k, key=(system, modality): pooled[*key, k])
    for (heading, other), m in itertools.product(differences.items(), MODALITIES):
        add(f"{heading}, {m}", lambda k, other=other, m=m: pooled["DEPER", m, k] - pooled[other, m, k])
    add("DEPER, text + gaze less text", lambda k: pooled["DEPER", "text + gaze", k] - pooled["DEPER", "text", k])
    return rows


def column(samples: int) -> str:
    """The heading of a column: of how many samples each decision is made."""
    return "1 sample" if samples == 1 else f"{samples} samples"


# --- small parts


def by_photographs(
    experiment: Experiment, folds: int, within: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Masks (training, held out) over all samples, by photographs; samples outside `within` are in neither."""
    masks = []
    for held_out in image_folds(experiment.data.image_of[within], folds):
        asked = np.zeros_like(within)
        asked[np.flatnonzero(within)[held_out]] = True
        masks.append((within & ~asked, asked))
    return masks


def rounded(figures: Mapping[Any, float]) -> dict[str, float]:
    """Figures as a report tells them."""
    return {str(name): round(figure, 3) for name, figure in figures.items()}


def _unchanged(scores: Scores) -> Scores:
    return scores
