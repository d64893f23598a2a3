"""BLEU-4, CIDEr and ROUGE-L as COCO caption evaluation has them (METEOR has a file of its own).

Every description is a candidate of its own against one reference, that person's own (METHOD "Metrics"). The numbers
equal those of `pycocoevalcap`; BLEU, CIDEr and ROUGE-L are stated anew here so that thousands of pairs of few texts are
cheap (subject identification) and CIDEr's document frequency can come from a larger corpus than the pairs scored.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import attrs
import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.metrics.checks import ProgramError, check_pairs, check_texts, find_coco_file, find_java

Tokenizer = Literal["ptb", "words", "split"]
"""How a text becomes words. There is no default: figures of different tokenizers do not compare.

ptb: Stanford's Penn Treebank tokenizer, lower-cased, punctuation dropped: COCO's own; needs Java.
words: lower-cased runs of letters and digits, apostrophes kept inside; needs nothing.
split: the texts are tokenized already; split at whitespace, nothing else.
"""

Tokens = tuple[str, ...]
NGrams = Counter[Tokens]
Prepared = TypeVar("Prepared")
Score = TypeVar("Score")

MAX_ORDER = 4
_WORD = re.compile(r"\w+(?:['’]\w+)*")
# The upper-case brackets never meet a lower-cased token, so brackets stay, as they do in COCO's own tokenizer.
_PTB_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
# A healthy start takes a second, and a second tokenizes some million characters.
_PTB_START_SECONDS = 120.0
_PTB_CHARACTERS_PER_SECOND = 10_000
_CIDER_SIGMA = 6.0
_ROUGE_BETA = 1.2


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


def tokenize(texts: Sequence[str], tokenizer: Tokenizer) -> list[Tokens]:
    """Splits texts into words; a text without words gives an empty tuple.

    Raises:
        InvalidArgumentError: If the tokenizer is not one of `Tokenizer`, or the texts are none, or not strings.
        MissingRequirementError: If "ptb" is asked for without Java or without pycocoevalcap.
        ProgramError: If Java fails, or does not end.
    """
    texts = check_texts("texts", texts)
    if tokenizer == "ptb":
        return _tokenize_ptb(texts)
    if tokenizer == "words":
        return [tuple(_WORD.findall(text.lower())) for text in texts]
    if tokenizer == "split":
        return [tuple(text.split()) for text in texts]
    raise InvalidArgumentError(f'tokenizer is {tokenizer!r}; choose "ptb", "words" or "split"')


def bleu4(candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer) -> CaptionScores:
    """BLEU-4 (Papineni et al. 2002) with COCO's smoothing, in [0, 1].

    Args:
        candidates: n descriptions as predicted.
        references: n descriptions as written, one for each candidate.
        tokenizer: See `Tokenizer`.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty, or hold anything but strings.
        MissingRequirementError: See `tokenize`.
    """
    statistics = bleu_statistics(candidates, references, tokenizer=tokenizer)
    return CaptionScores(bleu4_from_statistics(statistics), float(bleu4_from_statistics(statistics.sum(axis=0))))


def bleu_statistics(
    candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer
) -> NDArray[np.float64]:
    """The counts that BLEU-4 is made of; they add up over pairs, so a resampled corpus costs one sum.

    Returns:
        (n, 10): n-grams of order 1 to 4 that match, n-grams of order 1 to 4 in the candidate, the candidate's length in
        words, the reference's length in words.
    """

    def count(candidate: tuple[int, NGrams], reference: tuple[int, NGrams]) -> list[int]:
        (length, ngrams), (reference_length, reference_ngrams) = candidate, reference
        matches = [0] * MAX_ORDER
        for ngram in ngrams.keys() & reference_ngrams.keys():
            matches[len(ngram) - 1] += min(ngrams[ngram], reference_ngrams[ngram])
        guesses = [max(0, length - order) for order in range(MAX_ORDER)]
        return [*matches, *guesses, length, reference_length]

    pairs = tokenize_pairs(candidates, references, tokenizer)
    return np.array(_score_pairs(*pairs, lambda tokens: (len(tokens), _ngrams(tokens)), count), dtype=np.float64)


def bleu4_from_statistics(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """BLEU-4 of rows, or of sums of rows, of `bleu_statistics`: shape (..., 10) to (...) in [0, 1]."""
    matches, guesses = statistics[..., :MAX_ORDER], statistics[..., MAX_ORDER : 2 * MAX_ORDER]
    length, reference_length = statistics[..., 2 * MAX_ORDER], statistics[..., 2 * MAX_ORDER + 1]
    # COCO's two small numbers: a missing order leaves a tiny score that still ranks pairs, never a division by zero.
    precision = np.prod((matches + 1e-15) / (guesses + 1e-9), axis=-1) ** (1 / MAX_ORDER)
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    # An empty candidate has a ratio of 1e-15 or so: its penalty is 0, whatever the exponent.
    scores: NDArray[np.float64] = precision * np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return scores


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
            MissingRequirementError: See `tokenize`.
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
            counts.update(_ngrams(tokens).keys())
        return cls(counts, len(references), tokenizer)


@attrs.frozen(eq=False)
class _WeightedText:
    weights: list[dict[Tokens, float]]  # tf-idf, a dict per n-gram order
    norms: list[float]
    bigrams: int  # COCO measures length in these

    @classmethod
    def of(cls, tokens: Tokens, frequency: DocumentFrequency) -> _WeightedText:
        weights: list[dict[Tokens, float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in _ngrams(tokens).items():
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
        penalty = math.exp(-((self.bigrams - reference.bigrams) ** 2) / (2 * _CIDER_SIGMA**2))
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
        tokenizer: See `Tokenizer`.
        document_frequency: Of a larger corpus of references; None takes it from these n.

    Raises:
        InvalidArgumentError: As for `bleu4`; if n is 1 without a document frequency; or if the document frequency was
            counted with another tokenizer.
        MissingRequirementError: See `tokenize`.
    """
    if document_frequency is not None and document_frequency.tokenizer != tokenizer:
        raise InvalidArgumentError(
            f'the document frequency was counted with the tokenizer "{document_frequency.tokenizer}", the pairs are to '
            f'be split with "{tokenizer}"; use one for both'
        )
    pairs = tokenize_pairs(candidates, references, tokenizer)
    frequency = document_frequency or DocumentFrequency.of_tokens(pairs[1], tokenizer)
    scores = np.array(_score_pairs(*pairs, lambda tokens: _WeightedText.of(tokens, frequency), _WeightedText.cider))
    return CaptionScores(scores, float(scores.mean()))


def rouge_l(candidates: Sequence[str], references: Sequence[str], *, tokenizer: Tokenizer) -> CaptionScores:
    """ROUGE-L (Lin 2004): F of the longest common subsequence with COCO's β = 1.2, in [0, 1].

    Args:
        candidates: n descriptions as predicted.
        references: n descriptions as written, one for each candidate.
        tokenizer: See `Tokenizer`.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty, or hold anything but strings.
        MissingRequirementError: See `tokenize`.
    """

    def score(candidate: Tokens, reference: Tokens) -> float:
        common = _longest_common_subsequence(candidate, reference)
        if common == 0:
            return 0.0
        precision, recall = common / len(candidate), common / len(reference)
        return (1 + _ROUGE_BETA**2) * precision * recall / (recall + _ROUGE_BETA**2 * precision)

    # COCO splits an empty text into one empty word, so two empty texts are a perfect match.
    pairs = tokenize_pairs(candidates, references, tokenizer)
    scores = np.array(_score_pairs(*pairs, lambda tokens: tokens or ("",), score))
    return CaptionScores(scores, float(scores.mean()))


def _tokenize_ptb(texts: list[str]) -> list[Tokens]:
    java, jar = find_java("The PTB tokenizer"), find_coco_file("tokenizer/stanford-corenlp-3.4.1.jar")
    lines = [" ".join(text.split()) for text in texts]  # the program works line by line
    command = [java, "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    seconds = _PTB_START_SECONDS + sum(map(len, lines)) / _PTB_CHARACTERS_PER_SECOND
    try:
        finished = subprocess.run(
            [*command, "-preserveLines", "-lowerCase"],
            input="".join(line + "\n" for line in lines).encode(),
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(
            f"the PTB tokenizer was stopped after {seconds:.0f} s on {len(lines)} texts; the machine is overloaded or "
            f"Java hangs: try `{java} -version`"
        ) from error
    tokenized = finished.stdout.decode("utf-8", "replace").split("\n")[:-1]
    if finished.returncode != 0 or len(tokenized) != len(lines):
        raise ProgramError(
            f"the PTB tokenizer gave {len(tokenized)} lines for {len(lines)} texts "
            f"(exit status {finished.returncode}): {finished.stderr.decode('utf-8', 'replace').strip()}"
        )
    return [tuple(token for token in line.split() if token not in _PTB_PUNCTUATION) for line in tokenized]


def tokenize_pairs(
    candidates: Sequence[str], references: Sequence[str], tokenizer: Tokenizer
) -> tuple[list[Tokens], list[Tokens]]:
    """Splits n candidates and n references as `tokenize` does, with its errors; a text that recurs is split once."""
    candidates, references = check_pairs(candidates, references)
    texts = list(dict.fromkeys([*candidates, *references]))
    tokens = dict(zip(texts, tokenize(texts, tokenizer), strict=True))
    return [tokens[text] for text in candidates], [tokens[text] for text in references]


def _score_pairs(
    candidates: list[Tokens],
    references: list[Tokens],
    prepare: Callable[[Tokens], Prepared],
    score: Callable[[Prepared, Prepared], Score],
) -> list[Score]:
    """Scores pair by pair; a text that many pairs share is prepared once."""
    prepared = {tokens: prepare(tokens) for tokens in {*candidates, *references}}
    return [score(prepared[left], prepared[right]) for left, right in zip(candidates, references, strict=True)]


def _ngrams(tokens: Tokens) -> NGrams:
    return Counter(
        tokens[start : start + order] for order in range(1, MAX_ORDER + 1) for start in range(len(tokens) - order + 1)
    )


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
