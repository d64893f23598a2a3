"""Subject identification: whose samples are these? Subject embeddings, beside classical answers on the same split.

Everything that is chosen (the decision rule here, the baseline's regularisation there) is chosen by cross-validation
over the photographs of the training split; the samples of the split "val" decide nothing.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

import pydeper
from pydeper.errors import InvalidArgumentError, InvalidSampleError
from pydeper.samples import Sample
from training import loop
from training.classical import GAZE_WEIGHT, REGULARISATIONS, gaze_log_probabilities, text_log_probabilities
from training.config import TrainingConfig
from training.data.encoded import EncodedDataset
from training.data.splits import TRAIN, VAL
from training.evaluation.bootstrap import bootstrap_mean
from training.evaluation.report import Figure, format_table, write_report
from training.runs import FrozenParts, stage1_folder
from training.stage1 import Stage1Task, embed

Rule = Literal["head", "centroid"]
"""How z_s becomes scores: the subject head's logits, or the cosine to the mean of each person's training samples."""

Modality = Literal["text + gaze", "text", "gaze"]
_WITHOUT: dict[Modality, str | None] = {"text + gaze": None, "text": "trajectory", "gaze": "text"}

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


def centroid_scores(queries: Scores, support: Scores, subjects: NDArray[np.integer], count: int) -> Scores:
    """Cosines between queries and the mean of each person's normalised support vectors.

    Args:
        queries: (m, k)
        support: (n, k)
        subjects: (n,) people, 0 … count - 1, each at least once.
        count: People.

    Returns:
        (m, count)

    Raises:
        InvalidArgumentError: Somebody has no support.
    """
    if absent := sorted(set(range(count)) - set(subjects.tolist())):
        raise InvalidArgumentError(
            f"people {absent[:5]} have no support; the centroid rule needs at least one sample each"
        )
    unit = _unit(support)
    means = np.stack([unit[subjects == subject].mean(axis=0) for subject in range(count)])
    return _unit(queries) @ _unit(means).T


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
    own = scores[np.arange(len(groups)), [subjects[rows[0]] for rows in groups]]
    best = scores.max(axis=1)
    credits: NDArray[np.float64] = (own == best) / (scores == best[:, None]).sum(axis=1)
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
        parts: The frozen parts.
        samples: All samples, in the order of `data`.
        data: All samples, encoded.
    """

    config: TrainingConfig
    parts: FrozenParts
    samples: Sequence[Sample]
    data: EncodedDataset

    @classmethod
    def load(cls, config: TrainingConfig) -> "Experiment":
        """Reads and encodes the samples.

        Raises:
            InvalidSampleError: The samples cannot be read, or are not divided into "train" and "val".
        """
        samples = pydeper.read_samples(config.samples)
        if {sample.split for sample in samples} != {TRAIN, VAL}:
            raise InvalidSampleError(
                f"{config.samples}: split: every sample must be of {TRAIN!r} or {VAL!r}, and both "
                "must occur; identification is measured on the second"
            )
        parts = FrozenParts.load(config)
        return cls(config, parts, samples, parts.encode(samples))

    @property
    def is_training(self) -> NDArray[np.bool_]:
        """(n,) which samples are of the training split."""
        return np.array([sample.split == TRAIN for sample in self.samples])

    def rows(self, chosen: NDArray[np.bool_]) -> list[Sample]:
        """The chosen samples."""
        return list(itertools.compress(self.samples, chosen))

    def deper(
        self, training: NDArray[np.bool_], queries: NDArray[np.bool_], folder: Path
    ) -> dict[Rule, dict[Modality, Evidence]]:
        """Trains stage 1 on some samples, or loads it, and reads the evidence of others by either rule.

        One network answers for all modalities; what is not asked for is withheld from it.
        """
        config, people = self.config, len(self.data.subjects)
        known, asked = subset(self.data, training), subset(self.data, queries)
        task = Stage1Task(config.network, config.stage1, known, self.parts.text_table, config.seed)
        loop.run(task, config.stage1, config.seed, folder)
        evidence: dict[Rule, dict[Modality, Evidence]] = {"head": {}, "centroid": {}}
        for modality, without in _WITHOUT.items():
            support, vectors = (embed(task.deper, self.parts.text_table, data, without) for data in (known, asked))

            def by_head(means: Scores) -> Scores:
                with torch.no_grad():
                    return np.asarray(task.deper.subject_head(torch.from_numpy(means)))

            def by_centroid(means: Scores, support: Scores = support) -> Scores:
                return centroid_scores(means, support, known.subject_of, people)

            evidence["head"][modality] = Evidence(vectors, by_head)
            evidence["centroid"][modality] = Evidence(_unit(vectors), by_centroid)
        return evidence

    def classical(
        self, training: NDArray[np.bool_], queries: NDArray[np.bool_], regularisation: float
    ) -> dict[Modality, Evidence]:
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
        rule: DEPER's decision rule.
        rule_accuracy: Top-1 from one sample's text + gaze by each rule.
        regularisation: Of the text baseline.
        regularisation_accuracy: Top-1 from one sample's text by each regularisation.
    """

    rule: Rule
    rule_accuracy: dict[Rule, float]
    regularisation: float
    regularisation_accuracy: dict[float, float]

    def facts(self) -> dict[str, object]:
        """The choice as a report tells it."""
        return {
            f"chosen within the training split, DEPER's rule ({self.rule})": _rounded(self.rule_accuracy),
            f"chosen there, the text baseline's C ({self.regularisation:g})": _rounded(self.regularisation_accuracy),
        }


def choose(experiment: Experiment, folds: int, folder: Path) -> Choice:
    """Chooses by cross-validation within the training split; `folder` keeps one stage 1 a fold."""
    training = experiment.is_training
    rules: dict[Rule, list[NDArray[np.float64]]] = {rule: [] for rule in get_args(Rule)}
    strengths: dict[float, list[NDArray[np.float64]]] = {strength: [] for strength in REGULARISATIONS}
    for fold, (known, held_out) in enumerate(_divisions(experiment, folds, within=training)):
        subjects = experiment.data.subject_of[held_out]
        singles = groups_of(subjects, 1)
        by_rule = experiment.deper(known, held_out, stage1_folder(folder / str(fold)))
        for rule, evidence in by_rule.items():
            rules[rule].append(identify(evidence["text + gaze"], subjects, singles))
        for strength, credits in strengths.items():
            text = text_log_probabilities(experiment.rows(known), experiment.rows(held_out), strength)
            credits.append(identify(Evidence(text, _unchanged), subjects, singles))
    rule_accuracy = {rule: float(np.concatenate(credits).mean()) for rule, credits in rules.items()}
    strength_accuracy = {strength: float(np.concatenate(credits).mean()) for strength, credits in strengths.items()}
    return Choice(
        max(rule_accuracy, key=rule_accuracy.__getitem__),
        rule_accuracy,
        max(strength_accuracy, key=strength_accuracy.__getitem__),
        strength_accuracy,
    )


def measure(
    experiment: Experiment,
    choice: Choice,
    divisions: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]],
    folder: Path,
) -> dict[str, dict[str, Figure]]:
    """Top-1 identification by both systems over divisions into training and held-out samples.

    Args:
        experiment: The samples.
        choice: Rule and regularisation.
        divisions: Masks of training and held-out samples; the figures pool the held-out samples of all.
        folder: Keeps one stage 1 a division.

    Returns:
        Rows (system, modality) -> columns (1 sample, k samples) -> share of right answers with a 95 % interval over
        people. k is `MOST_SAMPLES`, or less where nobody has that many held-out samples. The last rows are the
        differences between DEPER and the classical answer, person by person.
    """
    held_out_each = [experiment.data.subject_of[held_out] for _, held_out in divisions]
    most = min(int(np.bincount(subjects).max()) for subjects in held_out_each)
    sizes = [1, min(MOST_SAMPLES, most)]
    credits: dict[tuple[str, Modality, int], list[NDArray[np.float64]]] = {}
    people: dict[int, list[NDArray[np.integer]]] = {size: [] for size in sizes}
    for number, (training, held_out) in enumerate(divisions):
        subjects = experiment.data.subject_of[held_out]
        stage = stage1_folder(folder / str(number) if len(divisions) > 1 else folder)
        systems = {
            "DEPER": experiment.deper(training, held_out, stage)[choice.rule],
            "classical": experiment.classical(training, held_out, choice.regularisation),
        }
        for size in sizes:
            groups = groups_of(subjects, size)
            people[size].append(np.array([subjects[rows[0]] for rows in groups]))
            for system, by_modality in systems.items():
                for modality, evidence in by_modality.items():
                    credits.setdefault((system, modality, size), []).append(identify(evidence, subjects, groups))
    labels = ("DEPER", "classical", "difference")
    rows: dict[str, dict[str, Figure]] = {f"{a}, {b}": {} for a, b in itertools.product(labels, _WITHOUT)}
    for size, modality in itertools.product(sizes, _WITHOUT):
        deper, classical = (np.concatenate(credits[system, modality, size]) for system in labels[:2])
        for label, values in zip(labels, (deper, classical, deper - classical), strict=True):
            interval = bootstrap_mean(values, np.concatenate(people[size]).tolist())
            rows[f"{label}, {modality}"]["1 sample" if size == 1 else f"{size} samples"] = interval
    return rows


def run(config: TrainingConfig, folder: Path, report: Path, selection_folds: int, folds: Sequence[int]) -> None:
    """Chooses, trains, measures and reports.

    Args:
        config: The training.
        folder: Keeps checkpoints: `stage-1` (training split), `selection` and `folds-K`.
        report: Gets `NAME-split.json` and `.md` of the fixed split, and `NAME-K-folds.*` of each cross-validation.
        selection_folds: Folds of the cross-validation within the training split.
        folds: For each K, K-fold cross-validation over all photographs is measured as well.
    """
    options = [f"--selection-folds {selection_folds}", *(["--folds", *map(str, folds)] if folds else [])]
    experiment = Experiment.load(config)
    choice = choose(experiment, selection_folds, folder / "selection")
    training = experiment.is_training
    everything = np.ones_like(training)
    protocols = [("split", "fixed split", [(training, ~training)], folder)]
    protocols += [
        (
            f"{k}-folds",
            f"{k} folds over photographs",
            _divisions(experiment, k, within=everything),
            folder / f"folds-{k}",
        )
        for k in folds
    ]
    for suffix, protocol, divisions, checkpoints in protocols:
        started = time.perf_counter()
        rows = measure(experiment, choice, divisions, checkpoints)
        facts = {
            "command": " ".join(["python -m training identify --data FOLDER --out FOLDER", *options]),
            "protocol": protocol,
            "people": len(experiment.data.subjects),
            "chance": round(1 / len(experiment.data.subjects), 4),
            "samples, training / held out": [[int(a.sum()), int(b.sum())] for a, b in divisions],
            "intervals": "95 %, bootstrap over people",
            **choice.facts(),
            "DEPER": summary(config),
            "seconds": round(time.perf_counter() - started, 1),
        }
        title = f"Subject identification: {config.name}, {protocol}"
        write_report(report, f"{config.name}-{suffix}", rows, title=title, facts=facts)
        print(f"\n{protocol}\n{format_table(rows)}")


def summary(config: TrainingConfig) -> str:
    """The settings that matter most, in one line."""
    network, stage = config.network, config.stage1
    return (
        f"{config.image_encoder} at {config.image_size} pixels, {config.vlm}, D {network.hidden_size}, "
        f"z_s {network.subject_embedding_size}, layers {network.encoder_layers} + {network.decoder_layers}, dropout "
        f"{network.dropout}, {stage.steps} steps of {stage.batch_size * stage.accumulation} samples, rate "
        f"{stage.learning_rate}, decay {stage.weight_decay}, λ {stage.contrastive_weight}, weight of L_traj "
        f"{stage.trajectory_weight}, modality dropout {stage.modality_dropout}, seed {config.seed}"
    )


# --- small parts


def _divisions(
    experiment: Experiment, folds: int, within: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Masks (training, held out) over all samples, by photographs; samples outside `within` are in neither."""
    masks = []
    for held_out in image_folds(experiment.data.image_of[within], folds):
        asked = np.zeros_like(within)
        asked[np.flatnonzero(within)[held_out]] = True
        masks.append((within & ~asked, asked))
    return masks


def _rounded(accuracies: Mapping[Any, float]) -> dict[str, float]:
    return {str(choice): round(accuracy, 3) for choice, accuracy in accuracies.items()}


def _unchanged(scores: Scores) -> Scores:
    return scores


def _unit(vectors: Scores) -> Scores:
    unit: Scores = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True).clip(min=1e-12)
    return unit
