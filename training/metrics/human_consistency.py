"""HC: how alike do different people describe one image? (METHOD "Metrics")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.metrics.arguments import check_lengths, check_texts
from training.metrics.bleu import bleu4, multi_reference_bleu4
from training.metrics.tokenization import Tokenizer


@attrs.frozen(eq=False)
class HumanConsistency:
    """How alike people are.

    Attributes:
        mean: Mean of `by_image`, in [0, 1].
        images: The m images with descriptions by at least 2 people, as first met.
        by_image: (m,) HC: mean BLEU-4 over an image's ordered pairs of descriptions by different people.
        multi_reference: (m,) m-BLEU-4: mean over an image's descriptions of BLEU-4 against all those by other people at
            once, which is the higher the more people there are.
    """

    mean: float
    images: tuple[Hashable, ...]
    by_image: NDArray[np.float64]
    multi_reference: NDArray[np.float64]


def human_consistency(
    images: Sequence[Hashable], subjects: Sequence[Hashable], descriptions: Sequence[str], *, tokenizer: Tokenizer
) -> HumanConsistency:
    """Mean BLEU-4 between different people's descriptions of one image, in pairs and against all others at once.

    BLEU is not symmetric, so either description of a pair is once the candidate. Every image counts the same, however
    many people described it.

    Args:
        images: n image ids.
        subjects: n person ids.
        descriptions: n descriptions as written.
        tokenizer: See `tokenization.Tokenizer`.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty or hold anything but strings, or no image was
            described by 2 people.
        MissingRequirementError: See `tokenization.tokenize`.
    """
    descriptions = check_texts("descriptions", descriptions)
    check_lengths(images=images, subjects=subjects, descriptions=descriptions)
    rows_of: dict[Hashable, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        rows_of[image].append(row)
    pairs = [
        (image, row, other)
        for image, rows in rows_of.items()
        for row in rows
        for other in rows
        if subjects[row] != subjects[other]
    ]
    if not pairs:
        raise InvalidArgumentError(
            f"none of {len(rows_of)} images was described by 2 people; HC compares people on one"
        )
    scores = bleu4(
        [descriptions[row] for _, row, _ in pairs], [descriptions[other] for _, _, other in pairs], tokenizer=tokenizer
    ).pairs
    by_image = _means(pairs, scores)
    others: dict[int, list[str]] = defaultdict(list)
    for _, row, other in pairs:
        others[row].append(descriptions[other])
    rows = [(image, row, row) for image, own in rows_of.items() for row in own if row in others]
    multiple = multi_reference_bleu4(
        [descriptions[row] for _, row, _ in rows], [others[row] for _, row, _ in rows], tokenizer=tokenizer
    )
    return HumanConsistency(
        mean=float(np.mean([*by_image.values()])),
        images=tuple(by_image),
        by_image=np.array([*by_image.values()]),
        multi_reference=np.array([*_means(rows, multiple).values()]),
    )


def _means(rows: Sequence[tuple[Hashable, int, int]], scores: NDArray[np.float64]) -> dict[Hashable, float]:
    """Returns the mean score of each image's rows, the images as first met."""
    scores_of: dict[Hashable, list[float]] = defaultdict(list)
    for (image, _, _), score in zip(rows, scores, strict=True):
        scores_of[image].append(float(score))
    return {image: float(np.mean(found)) for image, found in scores_of.items()}
