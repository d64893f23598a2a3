"""CLS: of all predictions for an image, does a person's own fit what that person wrote best? (METHOD "Metrics")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydeper.errors import InvalidArgumentError
from training.metrics.arguments import check_lengths, check_pairs
from training.metrics.bleu import bleu4
from training.metrics.cider import DocumentFrequency, cider
from training.metrics.meteor import meteor
from training.metrics.rouge import rouge_l
from training.metrics.tokenization import Tokenizer, tokenize

SCORERS = ("bleu4", "meteor", "rouge_l", "cider")

# Two scores closer than this are one: what is left of BLEU-4 where no word is shared is some 1e-16, and says nothing.
_TIE = 1e-12


@attrs.frozen(eq=False)
class SubjectIdentification:
    """How often a person's own prediction fits that person's reference best among all predictions for the image.

    Attributes:
        accuracy: Mean over scorers of the top-1 accuracy, in [0, 1].
        by_scorer: Top-1 accuracy by scorer, the mean of `accuracies`.
        chance: What equal scores would give: the mean fraction of a person's own predictions among an image's.
        rows: (m,) which of the given rows count: those of images with at least 2 people.
        accuracies: Scorer -> (m,) in [0, 1], see `top1_from_scores`.
        num_images: Images with at least 2 people.
    """

    accuracy: float
    by_scorer: Mapping[str, float]
    chance: float
    rows: NDArray[np.intp]
    accuracies: Mapping[str, NDArray[np.float64]]
    num_images: int


def subject_identification(
    images: Sequence[Hashable],
    subjects: Sequence[Hashable],
    candidates: Sequence[str],
    references: Sequence[str],
    *,
    tokenizer: Tokenizer,
    scorers: Sequence[str] = SCORERS,
) -> SubjectIdentification:
    """CLS over n rows, each one person's prediction and reference for one image.

    On every image that at least 2 people described, each reference is held fixed and all predictions for that image
    are scored against it; it is correct where the person's own prediction scores highest, and ties are shared
    (`top1_from_scores`). Accuracy is the mean over references, then over scorers. CIDEr's document frequency comes from
    all n references.

    The other way round, where a prediction is held fixed and chooses among the references, is another figure: a
    prediction that is good in general wins against a poor one here, and cannot there.

    Args:
        images: n image ids.
        subjects: n person ids.
        candidates: n descriptions as predicted.
        references: n descriptions as written.
        tokenizer: See `tokenization.Tokenizer`.
        scorers: Some of `SCORERS`; without "meteor" (and with another tokenizer than "ptb") no Java is needed.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty or hold anything but strings; a scorer is unknown
            or there is none; or no image was described by 2 people.
        MissingRequirementError: See `tokenization.tokenize` and `meteor.meteor`.
    """
    candidates, references = check_pairs(candidates, references)
    check_lengths(images=images, subjects=subjects, candidates=candidates)
    unknown = [scorer for scorer in scorers if scorer not in SCORERS]
    if unknown or not scorers:
        raise InvalidArgumentError(f"scorers is {list(scorers)!r}; choose one or more of {', '.join(SCORERS)}")

    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        rows_of[image].append(row)
    shared = [rows for rows in rows_of.values() if len({subjects[row] for row in rows}) > 1]
    if not shared:
        raise InvalidArgumentError(
            f"none of {len(rows_of)} images was described by 2 people; CLS compares people on one image"
        )

    texts = [" ".join(tokens) for tokens in tokenize([*candidates, *references], tokenizer)]
    candidates, references = texts[: len(candidates)], texts[len(candidates) :]
    pairs = [(row, other) for rows in shared for row in rows for other in rows]
    left, right = [candidates[row] for row, _ in pairs], [references[other] for _, other in pairs]

    def row_accuracies(scores: NDArray[np.float64]) -> NDArray[np.float64]:
        tables = np.split(scores, np.cumsum([len(rows) ** 2 for rows in shared])[:-1])
        return np.concatenate(
            [
                top1_from_scores(table.reshape(len(rows), -1).T, subjects=[subjects[row] for row in rows])
                for table, rows in zip(tables, shared, strict=True)
            ]
        )

    # One start of Java or one pass over the corpus serves all images.
    accuracies = {scorer: row_accuracies(_score(scorer, left, right, references)) for scorer in scorers}
    by_scorer = {scorer: float(own.mean()) for scorer, own in accuracies.items()}
    return SubjectIdentification(
        accuracy=float(np.mean(list(by_scorer.values()))),
        by_scorer=by_scorer,
        chance=float(row_accuracies(np.zeros(len(pairs))).mean()),
        rows=np.concatenate([np.array(rows, dtype=np.intp) for rows in shared]),
        accuracies=accuracies,
        num_images=len(shared),
    )


def top1_from_scores(scores: ArrayLike, *, subjects: Sequence[Hashable] | None = None) -> NDArray[np.float64]:
    """Top-1 accuracy of each reference of one image, ties shared.

    Args:
        scores: (k, k); row p, column q is the score of prediction q against reference p. Row and column p belong to one
            person.
        subjects: k person ids, where one person may have several rows; None: k different people.

    Returns:
        (k,) in [0, 1]: of the predictions that share a row's highest score (equal to 1e-12), the fraction that is the
        person's own: 1 for a win alone, 1/t where it ties with t − 1 others', 0 for a loss.

    Raises:
        InvalidArgumentError: If `scores` is not square, is empty, or holds a NaN or an infinity, or there are not k
            subjects.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1] or scores.size == 0:
        raise InvalidArgumentError(
            f"scores have shape {scores.shape}; a square table (references, predictions) is needed"
        )
    if not np.isfinite(scores).all():
        raise InvalidArgumentError(f"scores hold {int((~np.isfinite(scores)).sum())} numbers that are NaN or infinite")
    subjects = range(len(scores)) if subjects is None else subjects
    check_lengths(scores=scores, subjects=subjects)
    own = np.array([[mine == theirs for theirs in subjects] for mine in subjects])
    top = scores >= scores.max(axis=1, keepdims=True) - _TIE
    accuracies: NDArray[np.float64] = (top & own).sum(axis=1) / top.sum(axis=1)
    return accuracies


def _score(scorer: str, candidates: list[str], references: list[str], corpus: list[str]) -> NDArray[np.float64]:
    if scorer == "cider":
        frequency = DocumentFrequency.of(corpus, tokenizer="split")
        return cider(candidates, references, tokenizer="split", document_frequency=frequency).pairs
    metric = {"bleu4": bleu4, "meteor": meteor, "rouge_l": rouge_l}[scorer]
    return metric(candidates, references, tokenizer="split").pairs
