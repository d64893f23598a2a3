import contextlib
import os
import random
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from pydeper.errors import InvalidArgumentError
from training.metrics import meteor as meteor_module
from training.metrics import tokenization
from training.metrics.bleu import bleu1, bleu4, bleu4_from_statistics, bleu_statistics
from training.metrics.cider import DocumentFrequency, cider
from training.metrics.meteor import meteor, meteor_from_statistics, meteor_statistics, one_program
from training.metrics.requirements import MissingRequirementError, ProgramError
from training.metrics.rouge import rouge_l
from training.metrics.tokenization import tokenize

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR and the PTB tokenizer run in Java")

METRICS = [bleu4, cider, rouge_l, meteor]
PLAIN_METRICS = [bleu1, bleu4, cider, rouge_l]

texts = st.lists(st.sampled_from(["a", "the", "red", "dog", "dogs", "cat", "sees"]), max_size=12).map(" ".join)
# pycocoevalcap cannot take a corpus of empty references alone.
corpora = (
    st.lists(st.tuples(texts, texts), min_size=2, max_size=8)
    .filter(lambda pairs: any(reference for _, reference in pairs))
    .map(lambda pairs: tuple(map(list, zip(*pairs, strict=True))))
)

UGLY = [
    "A man's dog – (brown) don't; \"yes\" 3.5 p.m. in the U.S., e-mail [x] {y}",
    "",
    "hello,\nworld...",
    "It's café & co/ltd <b> 50% $3",
    "  \t ",
    "¿Qué? naïve “quotes” it‘s ‒ — …",
]


def coco(metric, candidates, references):
    """The corpus score and the scores of the pairs, from pycocoevalcap itself."""
    truth = {index: [text] for index, text in enumerate(references)}
    predicted = {index: [text] for index, text in enumerate(candidates)}
    if metric in (bleu1, bleu4):
        corpus, pairs = Bleu(4).compute_score(truth, predicted, verbose=0)
        return corpus[3 * (metric is bleu4)], pairs[3 * (metric is bleu4)]
    if metric is meteor:
        scorer = Meteor()
        with contextlib.closing(scorer.meteor_p.stdout), contextlib.closing(scorer.meteor_p.stderr):
            return scorer.compute_score(truth, predicted)
    return {cider: Cider, rouge_l: Rouge}[metric]().compute_score(truth, predicted)


def random_corpus(n, seed=0):
    generator = random.Random(seed)
    words = ["a", "the", "red", "blue", "dog", "dogs", "cat", "runs", "running", "on", "in", "street", "and", "man's"]
    return [[" ".join(generator.choices(words, k=generator.randint(0, 25))) for _ in range(n)] for _ in range(2)]


@pytest.mark.parametrize("metric", PLAIN_METRICS)
@settings(max_examples=60)
@given(corpus=corpora)
def test_equals_coco_caption_evaluation(metric, corpus):
    scores = metric(*corpus, tokenizer="split")
    expected_corpus, expected_pairs = coco(metric, *corpus)
    np.testing.assert_allclose(scores.pairs, expected_pairs, rtol=1e-9, atol=1e-12)
    assert scores.corpus == pytest.approx(expected_corpus, rel=1e-9, abs=1e-12)


@needs_java
@pytest.mark.slow
def test_meteor_equals_coco_caption_evaluation_adds_up_and_takes_any_text():
    candidates, references = random_corpus(12)
    candidates[3], references[4] = "", ""
    candidates[5] = references[6] = "||| a ||| café"
    candidates[7] = references[7]  # word for word: the chunk that METEOR's sums leave out
    candidates[8] = references[8] = ""
    ugly = [
        *UGLY,
        "|||",
        "||||| | ||| SCORE ||| EVAL",
        "a\x00b\u2028c\x85d\x1ce",
        "ﬁ 😀 שלום",
        " ".join(map(str, range(3000))),
    ]
    with one_program():  # a start takes seconds
        statistics = meteor_statistics(candidates, references, tokenizer="split")
        scores = meteor(ugly, ugly[::-1], tokenizer="words")
        own = meteor(ugly, ugly, tokenizer="words").pairs

    references[6] = "a café"  # pycocoevalcap takes the bars in a reference for the border of a second one
    expected_corpus, expected_pairs = coco(meteor, candidates, references)
    np.testing.assert_allclose(meteor_from_statistics(statistics), expected_pairs, rtol=1e-12, atol=1e-15)
    assert meteor_from_statistics(statistics.sum(axis=0)) == pytest.approx(expected_corpus, rel=1e-12)
    assert np.isfinite(scores.pairs).all()
    assert ((scores.pairs >= 0) & (scores.pairs <= 1)).all()
    assert own.tolist() == [float(bool(tokens)) for tokens in tokenize(ugly, "words")]


@needs_java
def test_ptb_tokens_equal_coco_caption_evaluation():
    expected = PTBTokenizer().tokenize({index: [{"caption": text}] for index, text in enumerate(UGLY)})
    assert tokenize(UGLY, "ptb") == [tuple(expected[index][0].split()) for index in range(len(UGLY))]


@needs_java
def test_ptb_tokens_do_not_depend_on_the_locale(monkeypatch):
    expected = tokenize(UGLY, "ptb")
    monkeypatch.setenv("LC_ALL", "C")
    assert tokenize(UGLY, "ptb") == expected
    assert "café" in expected[3]


@needs_java
@pytest.mark.parametrize("metric", [rouge_l, cider])
def test_tokenizing_inside_a_metric_is_tokenizing_before_it(metric):
    candidates, references = UGLY, UGLY[::-1]
    tokenized = [" ".join(tokens) for tokens in tokenize(UGLY, "ptb")]
    inside = metric(candidates, references, tokenizer="ptb")
    before = metric(tokenized, tokenized[::-1], tokenizer="split")
    np.testing.assert_array_equal(inside.pairs, before.pairs)
    assert inside.corpus == before.corpus


def test_plain_words_are_lower_case_and_bare():
    assert tokenize(["The dog's RED-ish ball, no. 3!", "... "], "words") == [
        ("the", "dog's", "red", "ish", "ball", "no", "3"),
        (),
    ]


def test_figures_worked_out_by_hand():
    # 4 of 5 words, 3 of 4 bigrams, 2 of 3 trigrams, 1 of 2 four-grams; equal lengths.
    scores = bleu4(["a b c d x"], ["a b c d e"], tokenizer="split")
    assert scores.corpus == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # The common subsequence "a c" has 2 of 3 words of the candidate and 2 of 4 of the reference.
    precision, recall = 2 / 3, 2 / 4
    expected = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)
    assert rouge_l(["a x c"], ["a b c d"], tokenizer="split").corpus == pytest.approx(expected)
    assert cider(["a b c d", "x"], ["a b c d", "y"], tokenizer="split").pairs == pytest.approx([10.0, 0.0])


@pytest.mark.parametrize("metric", PLAIN_METRICS)
@given(corpus=corpora, order=st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_scores_are_bounded_and_the_order_of_pairs_does_not_matter(metric, corpus, order):
    best = 10.0 if metric is cider else 1.0
    scores = metric(*corpus, tokenizer="split")
    assert ((scores.pairs >= 0) & (scores.pairs <= best + 1e-9)).all()
    assert 0 <= scores.corpus <= best + 1e-9
    rows = order.sample(range(len(scores.pairs)), len(scores.pairs))
    shuffled = metric(*([side[row] for row in rows] for side in corpus), tokenizer="split")
    np.testing.assert_allclose(shuffled.pairs, scores.pairs[rows], rtol=1e-12, atol=1e-12)
    assert shuffled.corpus == pytest.approx(scores.corpus)
    # Nothing fits a reference better than itself, but for what COCO's smoothing leaves where no word is right.
    assert (metric(corpus[1], corpus[1], tokenizer="split").pairs >= scores.pairs - 1e-7).all()


@given(corpus=corpora)
@settings(max_examples=40)
def test_bleu_statistics_add_up_to_the_corpus_score(corpus):
    statistics = bleu_statistics(*corpus, tokenizer="split")
    assert bleu4_from_statistics(statistics.sum(axis=0)) == bleu4(*corpus, tokenizer="split").corpus


def test_document_frequency_of_a_larger_corpus():
    candidates, references = random_corpus(40)
    frequency = DocumentFrequency.of(references, tokenizer="split")
    _, expected = coco(cider, candidates, references)
    for start in (0, 7, 39):
        alone = cider(
            candidates[start : start + 1],
            references[start : start + 1],
            tokenizer="split",
            document_frequency=frequency,
        )
        assert alone.pairs == pytest.approx(expected[start : start + 1])


def test_document_frequency_of_one_reference_or_another_tokenizer_is_refused():
    with pytest.raises(InvalidArgumentError, match="whole reference corpus"):
        cider(["a dog"], ["a dog"], tokenizer="words")
    frequency = DocumentFrequency.of(["a dog", "a cat"], tokenizer="words")
    with pytest.raises(InvalidArgumentError, match=r'"words".*"split"'):
        cider(["a dog"], ["a dog"], tokenizer="split", document_frequency=frequency)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        (["a", "b"], ["a"], "candidates has 2, references has 1"),
        ([], [], "candidates is empty"),
        (["a"], [], "references is empty"),
        ("a dog", ["a dog"], "candidates is one string"),
        (["a", "half \ud83d of one"], ["a", "b"], r"candidates\[1\] holds half a surrogate pair at character 5"),
        (["a", None], ["a", "b"], r"candidates\[1\] is a NoneType"),
        (["a", "b"], ["a", ["b"]], r"references\[1\] is a list"),
    ],
)
@needs_java
def test_bad_lists_are_refused(metric, candidates, references, message):
    with pytest.raises(InvalidArgumentError, match=message):
        metric(candidates, references, tokenizer="words")


@pytest.mark.parametrize("metric", PLAIN_METRICS)
def test_empty_and_very_long_texts(metric):
    long = " ".join(f"word{i % 997}" for i in range(20_000))
    scores = metric(["", "", "a dog", long, long], ["", "a dog", "", long, "a dog"], tokenizer="words").pairs
    assert np.isfinite(scores).all()
    assert scores[3] == pytest.approx(10.0 if metric is cider else 1.0)
    assert (np.delete(scores, [0, 3]) < 1e-3).all()


def test_a_tokenizer_must_be_named_and_known():
    with pytest.raises(TypeError, match="tokenizer"):
        bleu4(["a"], ["a"])
    with pytest.raises(InvalidArgumentError, match=r'choose "ptb", "words" or "split"$'):
        bleu4(["a"], ["a"], tokenizer="spacy")


def test_missing_java_is_an_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingRequirementError, match=r"PTB tokenizer runs in Java.*apt-get install"):
        bleu4(["a"], ["a"], tokenizer="ptb")
    with pytest.raises(MissingRequirementError, match=r"METEOR runs in Java.*apt-get install"):
        meteor(["a"], ["a"], tokenizer="words")
    assert bleu4(["a b c d"], ["a b c d"], tokenizer="words").corpus == pytest.approx(1.0)


@pytest.fixture
def fake_java(monkeypatch, tmp_path):
    """Puts a `java` on PATH that does what it is told; returns a function that gives its process id."""

    def put(behaviour):
        java = tmp_path / "java"
        java.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n{behaviour}\n")
        java.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return lambda: int((tmp_path / "pid").read_text())

    return put


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("name", ["meteor", "tokenize"])
def test_a_java_that_fails_is_reported_with_what_it_printed(fake_java, name):
    fake_java("echo no memory for you >&2; exit 1")
    with pytest.raises(ProgramError, match="no memory for you"):
        meteor(["a"], ["a"], tokenizer="words") if name == "meteor" else tokenize(["a"], "ptb")


@pytest.mark.parametrize("behaviour", ["exec sleep 60", "cat > /dev/null; exec sleep 60"])
def test_a_java_that_does_not_answer_is_stopped(monkeypatch, fake_java, behaviour):
    process = fake_java(behaviour)
    monkeypatch.setattr(meteor_module, "ANSWER_SECONDS", 0.3)
    with pytest.raises(ProgramError, match=r"no answer for 0\.3 s, on the candidate 'a dog"):
        meteor(["a dog" + " runs" * 100_000], ["a"], tokenizer="words")  # more than a pipe holds
    assert not is_running(process())
    monkeypatch.setattr(tokenization, "PTB_START_SECONDS", 0.3)
    with pytest.raises(ProgramError, match="was stopped after 0 s on 1 texts"):
        tokenize(["a"], "ptb")
    assert not is_running(process())


def test_a_java_that_answers_something_else_is_reported(fake_java):
    process = fake_java("read line; echo 1.0 2.0; exec cat > /dev/null")
    with pytest.raises(ProgramError, match=r"not given 23 counts, but: 1\.0 2\.0"):
        meteor(["a"], ["a"], tokenizer="words")
    assert not is_running(process())


def test_the_program_ends_with_the_block_even_where_it_ignores_the_end_of_its_input(monkeypatch, fake_java):
    counts = " ".join(["1"] * 23)
    process = fake_java(f"while read line; do echo {counts}; done; exec cat > /dev/null")
    with one_program():
        meteor(["a"], ["a"], tokenizer="words")
        assert is_running(process())
        meteor(["b"], ["b"], tokenizer="words")
    assert not is_running(process())
    with pytest.raises(ZeroDivisionError), one_program():
        raise ZeroDivisionError
    assert not is_running(process())


def test_a_pair_that_comes_again_within_a_block_is_not_scored_again(fake_java):
    fake_java("n=0; while read line; do n=$((n + 1)); echo $(yes $n | head -n 23); done")
    candidates, references = ["a", "b", "a", "a"], ["a", "a", "a", "b"]
    with one_program():
        first = meteor_statistics(candidates, references, tokenizer="words")
        assert meteor_statistics(candidates, references, tokenizer="words").tolist() == first.tolist()
    assert first[:, 0].tolist() == [1, 2, 1, 3]
    assert meteor_statistics(["b"], ["a"], tokenizer="words")[0, 0] == 1  # another program


def test_missing_pycocoevalcap_is_an_error_with_the_pip_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/java")
    with pytest.raises(MissingRequirementError, match="pip install"):
        meteor(["a"], ["a"], tokenizer="words")
