"""ROUGE-L as COCO caption evaluation has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.metrics.caption_scores import CaptionScores, score_pairs
from training.metrics.tokenization import Tokenizer, Tokens, tokenize_pairs

_BETA = 1.2


def rouge_l(candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer) -> CaptionScores:
    """ROUGE-L (Lin 2004): F of the longest common subsequence with COCO's β = 1.2, in [0, 1].

    Args:
        candidates: n descriptions as predicted.
        references: n descriptions as written, one for each candidate.
        tokenizer: See `tokenization.Tokenizer`.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty, or hold anything but strings.
        MissingRequirementError: See `tokenization.tokenize`.
    """

    def score(candidate: Tokens, reference: Tokens) -> float:
        common = _longest_common_subsequence(candidate, reference)
        if common == 0:
            return 0.0
        precision, recall = common / len(candidate), common / len(reference)
        return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)

    # COCO splits an empty text into one empty word, so two empty texts are a perfect match.
    pairs = tokenize_pairs(candidates, references, tokenizer)
    scores = np.array(score_pairs(*pairs, lambda tokens: tokens or ("",), score))
    return CaptionScores(scores, float(scores.mean()))


def _longest_common_subsequence(left: Tokens, right: Tokens) -> int:
    """Length of the longest common subsequence, a row of the table per machine-word operation (Hyyrö 2004)."""
    positions: dict[str, int] = {}
    for index, token in enumerate(left):
        positions[token] = positions.get(token, 0) | 1 << index
    everywhere = (1 << len(left)) - 1
    row = everywhere
    for token in right:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return len(left) - row.bit_count()
