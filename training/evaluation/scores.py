"""All metrics of several systems on one data set, with intervals over people, and person by person.

Every metric is a function of sums over rows: of n-gram counts (BLEU-4), of matches (METEOR), of scores and their number
(the others). So one sum a person gives the person's figure, and sums of sums give the bootstrap's.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np

from pydeper.errors import InvalidArgumentError
from training.evaluation.report import Figure
from training.evaluation.sum_statistics import SumStatistics
from training.metrics.arguments import check_lengths, check_texts
from training.metrics.bleu import bleu4_from_statistics, bleu_statistics
from training.metrics.cider import cider
from training.metrics.human_consistency import human_consistency
from training.metrics.meteor import meteor_from_statistics, meteor_statistics, one_program
from training.metrics.object_sequence_score import noun_sequences, score_sequences
from training.metrics.requirements import check_meteor
from training.metrics.rouge import rouge_l
from training.metrics.subject_identification import subject_identification
from training.metrics.tokenization import Tokenizer, tokenize
from training.metrics.wordnet import Lemmas

METRICS = ("BLEU-4", "CIDEr", "METEOR", "ROUGE-L", "OSS", "CLS", "HC", "m-BLEU-4")
PEOPLE = "the people themselves"

_CONSISTENCY = ("HC", "m-BLEU-4")

_CLS_SCORERS = {"BLEU-4": "bleu4", "METEOR": "meteor", "ROUGE-L": "rouge_l", "CIDEr": "cider"}


def check_metrics(metrics: Sequence[str]) -> None:
    """Finds before hours of work what would keep `score_systems` from measuring these.

    Raises:
        InvalidArgumentError: One is none of `METRICS`.
        MissingRequirementError: METEOR is among them, and Java or pycocoevalcap is missing.
    """
    if strange := [metric for metric in metrics if metric not in METRICS]:
        raise InvalidArgumentError(f"metrics: {strange[0]!r} is none of {', '.join(METRICS)}")
    if "METEOR" in metrics:
        check_meteor("metrics: METEOR")


def shared_programs(metrics: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """A block in which all calls of `score_systems` share METEOR's Java program, if these metrics need it."""
    return one_program() if "METEOR" in metrics else contextlib.nullcontext()


@attrs.frozen(eq=False)
class Scores:
    """The figures of one data set.

    Attributes:
        systems: System -> metric -> figure with its interval. `PEOPLE`, the last, has "HC" and "m-BLEU-4" alone.
        people: System -> person -> metric -> figure; "HC" and "m-BLEU-4", which are about several people, are not among
            them.
        unmeasured: Metric -> why there is none.
        chance: What CLS would be if every reference fitted equally well; None where it was not measured.
        statistics: System -> metric -> what its figure is made of, so that systems can be compared.
    """

    systems: dict[str, dict[str, Figure]]
    people: dict[str, dict[str, dict[str, Figure]]]
    unmeasured: dict[str, str]
    chance: float | None = None
    statistics: dict[str, dict[str, SumStatistics]] = attrs.field(factory=dict, repr=False)


def score_systems(
    images: Sequence[str],
    subjects: Sequence[str],
    references: Sequence[str],
    systems: Mapping[str, Sequence[str]],
    *,
    tokenizer: Tokenizer,
    metrics: Sequence[str] = METRICS,
    scorers: Sequence[str] | None = None,
    lemmas: Lemmas | None = None,
) -> Scores:
    """Scores systems that described the same images for the same people.

    BLEU-4 and METEOR are the corpus scores that COCO reports, the others means over samples; CLS is the mean over its
    scorers, over images with at least 2 people. HC of a system is how alike its descriptions of one image for different
    people are, as the mean BLEU-4 of pairs; m-BLEU-4 is the same against all others at once. People's own are beside
    them. Intervals are 95 %, bootstrap over people (over images for HC and m-BLEU-4); where there is but one person,
    there is none.

    Args:
        images: n image ids.
        subjects: n person ids.
        references: n descriptions as written.
        systems: System -> n descriptions as predicted.
        tokenizer: See `tokenization.Tokenizer`.
        metrics: Some of `METRICS`.
        scorers: Of CLS: BLEU-4, METEOR, ROUGE-L, CIDEr, or some of them; None: those that `metrics` names. METEOR takes
            minutes where many people described an image, since CLS compares all with all.
        lemmas: Of OSS, see `object_sequence_score.score_sequences`.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty or hold anything but strings; there is no system;
            or a metric is unknown or there is none.
        MissingRequirementError: If something that a metric needs is not installed.
    """
    cls_scorers = _check_metrics(metrics, scorers)
    if not systems or PEOPLE in systems:
        raise InvalidArgumentError(f"systems are {list(systems)}; at least one is needed, and none called {PEOPLE!r}")
    texts = {system: check_texts(f"systems[{system!r}]", predicted) for system, predicted in systems.items()}
    references = check_texts("references", references)
    check_lengths(images=images, subjects=subjects, references=references, **texts)

    shared = any(len(people) > 1 for people in _people_by_image(images, subjects).values())
    unmeasured = {} if shared else dict.fromkeys(("CLS", *_CONSISTENCY), "no image was described by 2 people")
    if len(references) < 2:
        unmeasured["CIDEr"] = "the document frequency of 1 reference says nothing"
    unmeasured = {metric: reason for metric, reason in unmeasured.items() if metric in metrics}
    measured = [metric for metric in METRICS if metric in metrics and metric not in unmeasured]

    everything = list(dict.fromkeys([*references, *(text for predicted in texts.values() for text in predicted)]))
    # OSS reads the texts as they are: alone, it needs no tokenizer and so no Java.
    tokens = tokenize(everything, tokenizer) if set(measured) - {"OSS"} else [()] * len(everything)
    words = dict(zip(everything, map(" ".join, tokens), strict=True))
    nouns = dict(zip(everything, noun_sequences(everything), strict=True)) if "OSS" in measured else {}
    truth = [words[text] for text in references]

    figures: dict[str, dict[str, Figure]] = {}
    people: dict[str, dict[str, dict[str, Figure]]] = {}
    statistics: dict[str, dict[str, SumStatistics]] = {}
    chance = None
    samples = Counter(subjects)
    for system, predicted in texts.items():
        candidates = [words[text] for text in predicted]
        parts = _captions(measured, candidates, truth, subjects)
        if "OSS" in measured:
            sequences = [[nouns[text] for text in side] for side in (predicted, references)]
            parts["OSS"] = SumStatistics.mean(score_sequences(*sequences, lemmas=lemmas), subjects)
        if "CLS" in measured:
            found = subject_identification(images, subjects, candidates, truth, tokenizer="split", scorers=cls_scorers)
            accuracies = np.mean(list(found.accuracies.values()), axis=0)
            parts["CLS"] = SumStatistics.mean(accuracies, [subjects[row] for row in found.rows])
            chance = found.chance
        statistics[system] = parts
        figures[system] = {metric: part.figure() for metric, part in parts.items()}
        by_owner = {metric: part.by_owner() for metric, part in parts.items()}
        people[system] = {
            person: {**{metric: own.get(person) for metric, own in by_owner.items()}, "samples": count}
            for person, count in samples.items()
        }
        figures[system] |= _consistency(measured, images, subjects, candidates)
    if alike := _consistency(measured, images, subjects, truth):
        figures[PEOPLE] = alike
    return Scores(figures, people, unmeasured, chance, statistics)


def _check_metrics(metrics: Sequence[str], scorers: Sequence[str] | None) -> list[str]:
    """Returns the scorers of CLS, in the order of `_CLS_SCORERS`."""
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown or not metrics:
        raise InvalidArgumentError(f"metrics is {list(metrics)!r}; choose one or more of {', '.join(METRICS)}")
    named = metrics if scorers is None else scorers
    if strange := [scorer for scorer in scorers or () if scorer not in _CLS_SCORERS]:
        raise InvalidArgumentError(f"scorers: {strange[0]!r} is none of {', '.join(_CLS_SCORERS)}")
    chosen = [scorer for metric, scorer in _CLS_SCORERS.items() if metric in named]
    if "CLS" in metrics and not chosen:
        raise InvalidArgumentError(
            f"CLS is the mean over scorers, of which metrics names none; add one or more of {', '.join(_CLS_SCORERS)}"
        )
    return chosen


def _captions(
    measured: Sequence[str], candidates: list[str], references: list[str], subjects: Sequence[str]
) -> dict[str, SumStatistics]:
    pair = (candidates, references)
    makers: dict[str, Callable[[], SumStatistics]] = {
        "BLEU-4": lambda: SumStatistics(bleu_statistics(*pair, tokenizer="split"), bleu4_from_statistics, subjects),
        "CIDEr": lambda: SumStatistics.mean(cider(*pair, tokenizer="split").pairs, subjects),
        "METEOR": lambda: SumStatistics(meteor_statistics(*pair, tokenizer="split"), meteor_from_statistics, subjects),
        "ROUGE-L": lambda: SumStatistics.mean(rouge_l(*pair, tokenizer="split").pairs, subjects),
    }
    return {metric: make() for metric, make in makers.items() if metric in measured}


def _consistency(
    measured: Sequence[str], images: Sequence[str], subjects: Sequence[str], texts: list[str]
) -> dict[str, Figure]:
    if not {*measured} & {*_CONSISTENCY}:
        return {}
    found = human_consistency(images, subjects, texts, tokenizer="split")
    owners = list(map(str, found.images))
    by_image = dict(zip(_CONSISTENCY, (found.by_image, found.multi_reference), strict=True))
    return {
        metric: SumStatistics.mean(values, owners).figure() for metric, values in by_image.items() if metric in measured
    }


def _people_by_image(images: Sequence[str], subjects: Sequence[str]) -> dict[str, set[str]]:
    people: dict[str, set[str]] = {}
    for image, subject in zip(images, subjects, strict=True):
        people.setdefault(image, set()).add(subject)
    return people
