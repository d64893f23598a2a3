import contextlib
import random
import shutil
import subprocess
import sys

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
from training.evaluation import captions
from training.evaluation.captions import DocumentFrequency, bleu4, cider, meteor, rouge_l, tokenize
from training.evaluation.checks import MissingRequirementError

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR and the PTB tokenizer run in Java")

METRICS = [bleu4, cider, rouge_l, meteor]
PLAIN_METRICS = [bleu4, cider, rouge_l]

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
    if metric is bleu4:
        corpus, pairs = Bleu(4).compute_score(truth, predicted, verbose=0)
        return corpus[3], pairs[3]
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
def test_meteor_equals_coco_caption_evaluation():
    candidates, references = random_corpus(12)
    candidates[3], references[4] = "", ""
    candidates[5] = references[6] = "||| a ||| café"
    scores = meteor(candidates, references, tokenizer="split")
    references[6] = "a café"  # pycocoevalcap takes the bars in a reference for the border of a second one
    expected_corpus, expected_pairs = coco(meteor, candidates, references)
    assert scores.corpus == expected_corpus
    assert scores.pairs.tolist() == expected_pairs


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


@given(corpus=corpora)
@settings(max_examples=40)
def test_bleu_statistics_add_up_to_the_corpus_score(corpus):
    statistics = captions.bleu_statistics(*corpus, tokenizer="split")
    assert captions.bleu4_from_statistics(statistics.sum(axis=0)) == bleu4(*corpus, tokenizer="split").corpus


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
        (["a", None], ["a", "b"], r"candidates\[1\] is a NoneType"),
        (["a", "b"], ["a", ["b"]], r"references\[1\] is a list"),
    ],
)
@needs_java
def test_bad_lists_are_refused(metric, candidates, references, message):
    with pytest.raises(InvalidArgumentError, match=message):
        metric(candidates, references, tokenizer="words")


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


@pytest.mark.parametrize("name", ["meteor", "tokenize"])
def test_a_java_that_fails_is_reported_with_what_it_printed(monkeypatch, tmp_path, name):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho no memory for you >&2\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RuntimeError, match="no memory for you"):
        meteor(["a"], ["a"], tokenizer="words") if name == "meteor" else tokenize(["a"], "ptb")


def test_missing_pycocoevalcap_is_an_error_with_the_pip_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/java")
    with pytest.raises(MissingRequirementError, match="pip install"):
        meteor(["a"], ["a"], tokenizer="words")


def test_evaluation_imports_nothing_heavy():
    modules = ["captions", "object_sequence_score", "subject_identification", "human_consistency", "probes", "report"]
    code = "import sys\n" + "".join(f"import training.evaluation.{module}\n" for module in modules)
    code += "print(sorted({'torch', 'spacy', 'nltk', 'sklearn', 'scipy'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
