"""CIDEr as COCO caption evaluation has it (CIDEr-D)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from pydeper.errors import InvalidArgumentError
from training.metrics.caption_scores import MAX_ORDER, CaptionScores, NGrams, ngrams, score_pairs
from training.metrics.tokenization import Tokenizer, Tokens, tokenize, tokenize_pairs

_SIGMA = 6.0


@attrs.frozen
class DocumentFrequency:
    """In how many references of a corpus every 1- to 4-gram occurs, for CIDEr's inverse document frequency.

    Attributes:
        counts: n-gram -> references that hold it.
        documents: References in all, at least 2: from a single one every weight, and so every score, would be 0.
        tokenizer: The tokenizer that the n-grams come from.
    """

    counts: Mapping[Tokens, int] = attrs.field(repr=False)
    documents: int
    tokenizer: Tokenizer

    @classmethod
    def of(cls, references: Sequence[str], *, tokenizer: Tokenizer) -> DocumentFrequency:
        """Counts the n-grams of a reference corpus, every reference a document.

        Raises:
            InvalidArgumentError: If there are fewer than 2 references.
            MissingRequirementError: See `tokenization.tokenize`.
        """
        return cls.of_tokens(tokenize(references, tokenizer), tokenizer)

    @classmethod
    def of_tokens(cls, references: Sequence[Tokens], tokenizer: Tokenizer) -> DocumentFrequency:
        """Like `of`, for references that `tokenize` has split."""
        if len(references) < 2:
            raise InvalidArgumentError(
                "CIDEr's document frequency was asked of 1 reference, from which every n-gram weighs 0; "
                "take it from the whole reference corpus: document_frequency=DocumentFrequency.of(all_references, …)"
            )
        counts: NGrams = Counter()
        for tokens in references:
            counts.update(ngrams(tokens).keys())
        return cls(counts, len(references), tokenizer)


@attrs.frozen(eq=False)
class _WeightedText:
    weights: list[dict[Tokens, float]]  # tf-idf, a dict per n-gram order
    norms: list[float]
    bigrams: int  # COCO measures length in these

    @classmethod
    def of(cls, tokens: Tokens, frequency: DocumentFrequency) -> _WeightedText:
        weights: list[dict[Tokens, float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in ngrams(tokens).items():
            rarity = math.log(frequency.documents) - math.log(max(1, frequency.counts.get(ngram, 0)))
            weights[len(ngram) - 1][ngram] = count * rarity
        norms = [math.sqrt(sum(weight**2 for weight in order.values())) for order in weights]
        return cls(weights, norms, max(0, len(tokens) - 1))

    def cider(self, reference: _WeightedText) -> float:
        similarity = 0.0
        for order in range(MAX_ORDER):
            norm = self.norms[order] * reference.norms[order]
            if norm > 0:
                mine, theirs = self.weights[order], reference.weights[order]
                shared = mine.keys() & theirs.keys()
                similarity += sum(min(mine[ngram], theirs[ngram]) * theirs[ngram] for ngram in shared) / norm
        penalty = math.exp(-((self.bigrams - reference.bigrams) ** 2) / (2 * _SIGMA**2))
        return 10 * penalty * similarity / MAX_ORDER


def cider(
    candidates: Sequence[str],
    references: Sequence[str],
    *,
    tokenizer: Tokenizer,
    document_frequency: DocumentFrequency | None = None,
) -> CaptionScores:
    """CIDEr (Vedantam et al. 2015; the clipped, length-penalised form that COCO reports), in [0, 10].

    Args:
        candidates: n descriptions as predicted.
        references: n descriptions as written, one for each candidate.
        tokenizer: See `tokenization.Tokenizer`.
        document_frequency: Of a larger corpus of references; None takes it from these n.

    Raises:
        InvalidArgumentError: As for `bleu.bleu4`; if n is 1 without a document frequency; or if the document frequency
            was counted with another tokenizer.
        MissingRequirementError: See `tokenization.tokenize`.
    """
    if document_frequency is not None and document_frequency.tokenizer != tokenizer:
        raise InvalidArgumentError(
            f'the document frequency was counted with the tokenizer "{document_frequency.tokenizer}", the pairs are to '
            f'be split with "{tokenizer}"; use one for both'
        )
    pairs = tokenize_pairs(candidates, references, tokenizer)
    frequency = document_frequency or DocumentFrequency.of_tokens(pairs[1], tokenizer)
    scores = np.array(score_pairs(*pairs, lambda tokens: _WeightedText.of(tokens, frequency), _WeightedText.cider))
    return CaptionScores(scores, float(scores.mean()))
