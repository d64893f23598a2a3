import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer

from benchmarks.object_sequence_score import PlainScore, all_pairs, make_descriptions
from pydeper.errors import InvalidArgumentError
from training.metrics import object_sequence_score as oss
from training.metrics import wordnet
from training.metrics.object_sequence_score import noun_sequences, object_sequence_score, score_sequences
from training.metrics.requirements import MissingRequirementError
from training.metrics.wordnet import nltk_lemmas, wordnet_lemmas

# "couch" and "lounge" share a lemma, "couch" and "frame" another, "lounge" and "frame" none; "run…" share a stem.
LEMMAS = {
    "couch": {"couch", "sofa", "frame"},
    "lounge": {"couch", "lounge"},
    "frame": {"frame"},
    "dog": {"dog"},
    "runs": {"dog"},
}
WORDS = [*LEMMAS, "run", "running", "tree", "trees"]

sequences = st.lists(st.sampled_from(WORDS), max_size=9)


def lemmas(word):
    return frozenset(LEMMAS.get(word, ()))


def plain_score(candidate, reference, lemmas=lemmas):
    """METHOD's definition, word for word: the whole table of Needleman and Wunsch."""

    def match(left, right):
        if left == right:
            return 1.0
        if PorterStemmer().stem(left) == PorterStemmer().stem(right):
            return 0.8
        return 0.7 if lemmas(left) & lemmas(right) else 0.0

    if not candidate and not reference:
        return 1.0
    table = [[0.0] * (len(reference) + 1) for _ in range(len(candidate) + 1)]
    for i, left in enumerate(candidate, start=1):
        for j, right in enumerate(reference, start=1):
            table[i][j] = max(table[i - 1][j - 1] + match(left, right), table[i - 1][j], table[i][j - 1])
    return min(1.0, table[-1][-1] / max(len(candidate), len(reference)))


@settings(max_examples=80)
@given(st.lists(st.tuples(sequences, sequences), min_size=1, max_size=8))
def test_equals_the_plain_definition(pairs):
    candidates, references = map(list, zip(*pairs, strict=True))
    expected = [plain_score(candidate, reference) for candidate, reference in pairs]
    np.testing.assert_allclose(score_sequences(candidates, references, lemmas=lemmas), expected, atol=1e-12)


@given(sequences, sequences)
@settings(max_examples=60)
def test_is_symmetric_bounded_and_1_for_the_same_sequence(left, right):
    there, back, same = score_sequences([left, right, left], [right, left, left], lemmas=lemmas)
    assert 0 <= there <= 1
    assert there == pytest.approx(back)
    assert same == 1


@pytest.mark.parametrize(
    ("candidate", "reference", "score"),
    [
        ([], [], 1.0),
        (["dog"], [], 0.0),
        ([], ["dog"], 0.0),
        (["dog"], ["dog"], 1.0),
        (["tree"], ["trees"], 0.8),
        (["couch"], ["lounge"], 0.7),
        (["lounge"], ["frame"], 0.0),
        (["run"], ["runs"], 0.8),
        (["unknown"], ["word"], 0.0),
        (["dog", "tree"], ["tree", "dog"], 0.5),
        (["dog", "tree", "tree"], ["dog"], 1 / 3),
        (["couch", "dog"], ["lounge", "tree", "dog"], 1.7 / 3),
    ],
)
def test_worked_examples(candidate, reference, score):
    assert score_sequences([candidate], [reference], lemmas=lemmas) == pytest.approx([score])


def test_blocks_of_any_size_give_the_same_scores(monkeypatch):
    generator = np.random.default_rng(0)
    sides = [[list(generator.choice(WORDS, size=n)) for n in generator.integers(0, 12, size=60)] for _ in range(2)]
    whole = score_sequences(*sides, lemmas=lemmas)
    monkeypatch.setattr(oss, "CELLS_AT_ONCE", 100)
    np.testing.assert_array_equal(score_sequences(*sides, lemmas=lemmas), whole)
    np.testing.assert_allclose(whole, [plain_score(*pair) for pair in zip(*sides, strict=True)], atol=1e-12)


def test_nouns_are_lower_case_lemmas_in_order():
    texts = ["Two dogs and the tall man are in Paris.", "", "It is very small!", "Women, then children; then women."]
    assert noun_sequences(texts) == [
        ["dog", "man", "paris"],
        [],
        [],
        ["woman", "child", "woman"],
    ]


def test_text_to_score_with_the_real_pipeline_and_wordnet():
    candidates = ["Two dogs sit on the couch near a car.", "It is small.", "A tree.", "It is small."]
    references = ["A dog is on a sofa, beside an automobile.", "Very nice!", "Very nice!", "A tree."]
    scores = object_sequence_score(candidates, references)
    np.testing.assert_allclose(scores.pairs, [(1 + 0.7 + 0.7) / 3, 1, 0, 0])
    assert scores.corpus == pytest.approx(scores.pairs.mean())


def test_wordnet_lemmas_are_those_of_every_synset_of_the_word():
    lemmas_of = wordnet_lemmas()
    assert lemmas_of("couch") == {"couch", "sofa", "lounge", "cast", "frame", "put", "redact"}
    assert {"car", "automobile", "railcar", "gondola"} <= lemmas_of("car")
    assert "truck" not in lemmas_of("car")
    assert lemmas_of("no such word") == frozenset()


def test_real_wordnet_through_the_plain_definition():
    words = ["car", "automobile", "sofa", "couch", "man", "adult_male", "person", "street", "road", "bike", "bicycle"]
    generator = np.random.default_rng(1)
    sides = [[list(generator.choice(words, size=8)) for _ in range(20)] for _ in range(2)]
    expected = [plain_score(*pair, lemmas=wordnet_lemmas()) for pair in zip(*sides, strict=True)]
    np.testing.assert_allclose(score_sequences(*sides), expected, atol=1e-12)


def test_very_long_sequences_and_texts():
    generator = np.random.default_rng(0)
    long, other = (list(generator.choice(WORDS, size=length)) for length in (70, 2000))
    scores = score_sequences([long, long, [], ["dog"]], [long, other, long, long], lemmas=lemmas)
    np.testing.assert_allclose(scores[:1], 1.0)
    assert 60 / 2000 <= scores[1] <= 70 / 2000
    assert scores[2] == 0.0
    assert scores[3] == pytest.approx(plain_score(["dog"], long))
    (nouns,) = noun_sequences(["The dog is " + 1_000_000 * "o"])  # more than spaCy takes with its parser
    assert nouns[0] == "dog"


def test_texts_of_other_scripts_and_odd_characters():
    texts = ["\x00", "😀😀", "Собака на траве.", "一只狗", "a\u2028dog\x85", "||| dog |||", "\n\n"]
    scores = object_sequence_score(texts, texts, lemmas=lemmas)
    assert scores.pairs.tolist() == [1.0] * len(texts)
    assert (object_sequence_score(texts, texts[::-1], lemmas=lemmas).pairs >= 0).all()


@pytest.mark.parametrize("source", ["meteor", "nltk"])
def test_equals_a_plain_loop_over_spacy_and_nltk(source):
    if source == "nltk":
        try:
            nltk_lemmas()
        except MissingRequirementError as error:
            pytest.skip(str(error))
    plain = PlainScore(source)
    pairs = [*all_pairs(make_descriptions(2, 2), 2), ("", "A dog."), ("A dog.", ""), ("", "It is small."), ("", "")]
    expected = [plain.score(plain.nouns(candidate), plain.nouns(reference)) for candidate, reference in pairs]
    lemmas_of = nltk_lemmas() if source == "nltk" else wordnet_lemmas()
    found = object_sequence_score(*map(list, zip(*pairs, strict=True)), lemmas=lemmas_of).pairs
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert 0.1 < found.mean() < 0.9


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ([["dog"]], [], "candidates has 1, references has 0"),
        ([], [], "empty"),
        (["dog"], [["dog"]], r"candidates\[0\] is 'dog'"),
        ([["dog"]], [["dog", 3]], r"references\[0\]"),
    ],
)
def test_bad_sequences_are_refused(candidates, references, message):
    with pytest.raises(InvalidArgumentError, match=message):
        score_sequences(candidates, references, lemmas=lemmas)


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [(["a"], ["a", "b"], "candidates has 1"), ([], [], "empty"), ([1], ["a"], "int"), ("dog", "dog", "one string")],
)
def test_bad_texts_are_refused(candidates, references, message):
    with pytest.raises(InvalidArgumentError, match=message):
        object_sequence_score(candidates, references)


def test_a_missing_pipeline_says_how_to_get_it():
    with pytest.raises(MissingRequirementError, match=r"'en_core_web_none'.*requirements-spacy-model.txt"):
        noun_sequences(["a dog"], pipeline="en_core_web_none")


def test_a_pipeline_that_cannot_tell_nouns_is_refused(tmp_path):
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(InvalidArgumentError, match="needs a tagger and a lemmatizer"):
        noun_sequences(["a dog"], pipeline=str(tmp_path / "blank"))


def test_a_jar_without_wordnet_says_what_to_do(monkeypatch, tmp_path):
    jar = tmp_path / "meteor.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("other", "")
    monkeypatch.setattr(wordnet, "find_coco_file", lambda relative: jar)
    with pytest.raises(MissingRequirementError, match="pip install"):
        wordnet_lemmas.__wrapped__()


@pytest.fixture
def no_caches():
    """What a metric keeps once it is loaded is loaded anew, before and after."""
    kept = [oss.load_pipeline, oss.porter_stemmer, wordnet.nltk_lemmas]
    for function in kept:
        function.cache_clear()
    yield
    for function in kept:
        function.cache_clear()


@pytest.mark.usefixtures("no_caches")
@pytest.mark.parametrize(
    ("module", "call", "message"),
    [
        ("spacy", lambda: noun_sequences(["a dog"]), "finding nouns needs spaCy"),
        ("nltk.stem.porter", lambda: score_sequences([["dog"]], [["dog"]], lemmas=lemmas), "Porter stems need nltk"),
        ("nltk.corpus", nltk_lemmas, "WordNet needs nltk"),
    ],
)
def test_a_missing_package_is_an_error_with_the_pip_line(monkeypatch, module, call, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingRequirementError, match=rf"{message}; run `pip install"):
        call()


def test_missing_nltk_data_is_an_error_that_says_how_to_get_it(tmp_path):
    program = """
from training.metrics.wordnet import nltk_lemmas
try:
    nltk_lemmas()
except RuntimeError as error:
    print(error)
"""
    environment = {**os.environ, "NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nltk's WordNet is not installed")
    assert str(tmp_path) in done.stdout
    assert "run `python -m nltk.downloader wordnet`, or point NLTK_DATA at" in done.stdout
