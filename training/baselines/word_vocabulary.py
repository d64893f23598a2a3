"""Words as captioners read and write them: lower-cased, each a number; of punctuation, the end of a sentence alone."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import attrs

from training.baselines.text_statistics import WORD

PAD, GO, EOS, UNK = SPECIALS = range(4)
"""Padding, the input before the first word, the output after the last, and any word that the vocabulary lacks."""

STOP = "."
"""The end of a sentence, which is a word of its own, so that texts keep their sentences."""

_TOKEN = re.compile(rf"{WORD}|\.")


def words_of(text: str) -> list[str]:
    """A text's words, lower-cased, and `STOP`; other punctuation is left out."""
    return _TOKEN.findall(text.lower())


@attrs.frozen
class Vocabulary:
    """The words that can be written.

    Attributes:
        words: Of the numbers from `len(SPECIALS)` on.
    """

    words: tuple[str, ...]

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, len(SPECIALS))}

    @classmethod
    def of(cls, texts: Iterable[str], size: int | None = None, *, min_count: int = 1) -> "Vocabulary":
        """The most frequent words of texts, those that are equally frequent in the order of the alphabet.

        Args:
            texts: Any texts.
            size: The most numbers, special ones included; None: as many as there are.
            min_count: How often the texts must have a word.
        """
        counts = Counter(word for text in texts for word in words_of(text))
        known = [word for word, count in counts.items() if count >= min_count]
        ranked = sorted(known, key=lambda word: (-counts[word], word))
        return cls(tuple(ranked if size is None else ranked[: max(0, size - len(SPECIALS))]))

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.words)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's words; `UNK` where there is none."""
        return self.encode_words(words_of(text))

    def encode_words(self, words: Iterable[str]) -> list[int]:
        """The numbers of words; `UNK` where there is none."""
        return [self._ids.get(word, UNK) for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        """The words of these numbers, a space between each two; special numbers are left out."""
        return " ".join(self.words[number - len(SPECIALS)] for number in ids if number not in SPECIALS)
