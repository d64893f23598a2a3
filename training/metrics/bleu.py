"""BLEU-1 and BLEU-4 as COCO caption evaluation has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.metrics.caption_scores import MAX_ORDER, CaptionScores, NGrams, ngrams, score_pairs
from training.metrics.tokenization import Tokenizer, tokenize, tokenize_pairs


def bleu4(candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer) -> CaptionScores:
    """BLEU-4 (Papineni et al. 2002) with COCO's smoothing, in [0, 1].

    Args:
        candidates: n descriptions as predicted.
        references: n descriptions as written, one for each candidate.
        tokenizer: See `tokenization.Tokenizer`.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty, or hold anything but strings.
        MissingRequirementError: See `tokenization.tokenize`.
    """
    statistics = bleu_statistics(candidates, references, tokenizer=tokenizer)
    return CaptionScores(bleu4_from_statistics(statistics), float(bleu4_from_statistics(statistics.sum(axis=0))))


def bleu1(candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer) -> CaptionScores:
    """BLEU-1, of single words; otherwise as `bleu4`."""
    statistics = bleu_statistics(candidates, references, tokenizer=tokenizer)
    return CaptionScores(bleu_from_statistics(statistics, 1), float(bleu_from_statistics(statistics.sum(axis=0), 1)))


def multi_reference_bleu4(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, tokenizer: Tokenizer
) -> NDArray[np.float64]:
    """BLEU-4 of every candidate against several references at once, with COCO's smoothing.

    An n-gram matches as often as the reference has it that has it most often, and the length that the candidate's is
    compared with is the nearest reference's, the shorter of two that are equally near.

    Args:
        candidates: n texts.
        references: n lists of one text or more.
        tokenizer: See `tokenization.Tokenizer`.

    Returns:
        (n,) in [0, 1].
    """
    texts = list(dict.fromkeys([*candidates, *(text for several in references for text in several)]))
    words = dict(zip(texts, tokenize(texts, tokenizer), strict=True))
    counts = {text: ngrams(words[text]) for text in texts}
    rows = []
    for candidate, several in zip(candidates, references, strict=True):
        most: NGrams = Counter()
        for reference in several:
            most |= counts[reference]
        length = len(words[candidate])
        nearest = min((len(words[reference]) for reference in several), key=lambda other: (abs(other - length), other))
        rows.append(_statistics((length, counts[candidate]), (nearest, most)))
    return bleu4_from_statistics(np.array(rows, dtype=np.float64))


def bleu_statistics(
    candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer
) -> NDArray[np.float64]:
    """The counts that BLEU-4 is made of; they are summed over pairs, so a resampled corpus costs one sum.

    Returns:
        (n, 10): n-grams of order 1 to 4 that match, n-grams of order 1 to 4 in the candidate, the candidate's length in
        words, the reference's length in words.
    """
    pairs = tokenize_pairs(candidates, references, tokenizer)
    return np.array(score_pairs(*pairs, lambda tokens: (len(tokens), ngrams(tokens)), _statistics), dtype=np.float64)


def _statistics(candidate: tuple[int, NGrams], reference: tuple[int, NGrams]) -> list[int]:
    (length, counts), (reference_length, reference_counts) = candidate, reference
    matches = [0] * MAX_ORDER
    for ngram in counts.keys() & reference_counts.keys():
        matches[len(ngram) - 1] += min(counts[ngram], reference_counts[ngram])
    guesses = [max(0, length - order) for order in range(MAX_ORDER)]
    return [*matches, *guesses, length, reference_length]


def bleu4_from_statistics(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU-4 of rows, or of sums of rows, of `bleu_statistics`: shape (..., 10) to (...) in [0, 1]."""
    return bleu_from_statistics(statistics, MAX_ORDER)


def bleu_from_statistics(statistics: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """BLEU with n-grams of 1 to `order` words; otherwise as `bleu4_from_statistics`."""
    matches, guesses = statistics[..., :order], statistics[..., MAX_ORDER : MAX_ORDER + order]
    length, reference_length = statistics[..., 2 * MAX_ORDER], statistics[..., 2 * MAX_ORDER + 1]
    # COCO's two small numbers: a missing order leaves a tiny score that still ranks pairs, never a division by zero.
    precision = np.prod((matches + 1e-15) / (guesses + 1e-9), axis=-1) ** (1 / order)
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    # An empty candidate has a ratio of 1e-15 or so: its penalty is 0, whatever the exponent.
    scores: NDArray[np.float64] = precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return scores
