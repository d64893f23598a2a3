"""What BLEU-4, CIDEr, ROUGE-L, METEOR and OSS share: their result, and how pairs of texts are scored.

Every description is a candidate of its own against one reference, that person's own (METHOD "Metrics"). The numbers
equal those of `pycocoevalcap`; BLEU, CIDEr and ROUGE-L are stated anew here so that thousands of pairs of few texts are
cheap (subject identification) and CIDEr's document frequency can come from a larger corpus than the pairs scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from training.metrics.tokenization import Tokens

NGrams = Counter[Tokens]
Prepared = TypeVar("Prepared")
Score = TypeVar("Score")

MAX_ORDER = 4
"""Longest n-grams of BLEU-4 and CIDEr."""


@attrs.frozen(eq=False)
class CaptionScores:
    """What a metric says of a corpus.

    Attributes:
        pairs: (n,) float64, the score of every pair alone.
        corpus: The score of the corpus as COCO reports it: from pooled counts for BLEU-4 and METEOR, the mean of the
            pairs for CIDEr and ROUGE-L.
    """

    pairs: NDArray[np.float64]
    corpus: float


def score_pairs(
    candidates: list[Tokens],
    references: list[Tokens],
    prepare: Callable[[Tokens], Prepared],
    score: Callable[[Prepared, Prepared], Score],
) -> list[Score]:
    """Scores pair by pair; a text that many pairs share is prepared once."""
    prepared = {tokens: prepare(tokens) for tokens in {*candidates, *references}}
    return [score(prepared[left], prepared[right]) for left, right in zip(candidates, references, strict=True)]


def ngrams(tokens: Tokens) -> NGrams:
    """Counts a text's n-grams of order 1 to `MAX_ORDER`."""
    return Counter(
        tokens[start : start + order] for order in range(1, MAX_ORDER + 1) for start in range(len(tokens) - order + 1)
    )
