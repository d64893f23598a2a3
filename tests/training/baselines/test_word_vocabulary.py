"""The words that captioners read and write."""

from hypothesis import given
from hypothesis import strategies as st

from training.baselines.word_vocabulary import SPECIALS, STOP, UNK, Vocabulary, words_of

TEXTS = ["A dog's bone. A red bone!", "a Dog", "x2"]


def test_words_are_lower_cased_and_sentences_end():
    assert words_of("A dog’s (red) bone. Two2!") == ["a", "dog’s", "red", "bone", STOP, "two2"]
    assert words_of(" ?! ") == []


def test_frequent_words_come_first_and_rare_ones_are_unknown():
    assert Vocabulary.of(TEXTS).words == ("a", "bone", ".", "dog", "dog's", "red", "x2")
    assert Vocabulary.of(TEXTS, min_count=2).words == ("a", "bone")
    assert Vocabulary.of(TEXTS, len(SPECIALS) + 1).words == ("a",)
    assert Vocabulary.of([], min_count=2).words == ()
    vocabulary = Vocabulary.of(TEXTS, min_count=2)
    assert vocabulary.encode("A dog bone") == [4, UNK, 5]
    assert len(vocabulary) == 6


@given(texts=st.lists(st.text()))
def test_texts_of_known_words_come_back(texts):
    vocabulary = Vocabulary.of(texts)
    for text in texts:
        words = words_of(text)
        assert vocabulary.decode(vocabulary.encode_words(words)) == " ".join(words)
