import random
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from pydeper.errors import InvalidArgumentError
from training.metrics.rouge import rouge_l
from training.metrics.subject_identification import subject_identification, top1_from_scores

PLAIN = ("bleu4", "rouge_l", "cider")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR runs in Java")


def plain_accuracy(images, subjects, candidates, references, scorer):
    """CLS pair by pair, with pycocoevalcap; CIDEr of one candidate against the whole corpus at once."""

    def score(candidate, row):
        truth, predicted = {0: [references[row]]}, {0: [candidate]}
        if scorer == "bleu4":
            return Bleu(4).compute_score(truth, predicted, verbose=0)[0][3]
        if scorer == "rouge_l":
            return Rouge().compute_score(truth, predicted)[0]
        corpus = {other: [reference] for other, reference in enumerate(references)}
        return Cider().compute_score(corpus, {other: [candidate] for other in corpus})[1][row]

    credits = []
    for row, image in enumerate(images):
        others = [other for other in range(len(images)) if images[other] == image]
        if len({subjects[other] for other in others}) < 2:
            continue
        scores = {other: score(candidates[other], row) for other in others}
        best = [other for other in others if scores[other] >= max(scores.values()) - 1e-12]
        credits.append(sum(subjects[other] == subjects[row] for other in best) / len(best))
    return np.mean(credits)


@st.composite
def corpora(draw):
    word = st.sampled_from(["a", "red", "dog", "cat", "sees", "the", "big"])
    text = st.lists(word, max_size=8).map(" ".join)
    rows = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), text, text), min_size=3, max_size=10))
    rows += [(9, 0, draw(text), "a dog"), (9, 1, draw(text), draw(text))]  # one image of two people at least
    return tuple(map(list, zip(*rows, strict=True)))


@settings(max_examples=30)
@given(corpora())
def test_equals_the_plain_definition(corpus):
    result = subject_identification(*corpus, tokenizer="split", scorers=PLAIN)
    for scorer in PLAIN:
        assert result.by_scorer[scorer] == pytest.approx(plain_accuracy(*corpus, scorer))
    assert result.accuracy == pytest.approx(np.mean(list(result.by_scorer.values())))
    assert all(0 <= credit.min() <= credit.max() <= 1 for credit in result.accuracies.values())


def people_on_images(num_people, num_images, seed=0):
    """Everybody has words of their own and describes every image; predictions lose some of the words."""
    generator = random.Random(seed)
    rows = []
    for image in range(num_images):
        scene = [f"thing{generator.randrange(40)}" for _ in range(12)]
        for person in range(num_people):
            reference = [word for thing in scene for word in (f"style{person}", thing)]
            prediction = [word for word in reference if generator.random() < 0.8]
            rows.append((f"image{image}", f"person{person}", " ".join(prediction), " ".join(reference)))
    return tuple(map(list, zip(*rows, strict=True)))


def test_people_with_words_of_their_own_are_found_and_strangers_are_not():
    images, subjects, candidates, references = people_on_images(25, 20)
    result = subject_identification(images, subjects, candidates, references, tokenizer="words", scorers=PLAIN)
    assert result.by_scorer == dict.fromkeys(PLAIN, 1.0)
    assert result.chance == pytest.approx(1 / 25)
    assert result.num_images == 20
    same = [candidates[0]] * len(candidates)
    tied = subject_identification(images, subjects, same, references, tokenizer="words", scorers=PLAIN)
    assert tied.by_scorer == pytest.approx(dict.fromkeys(PLAIN, 1 / 25))


def test_predictions_compete_for_each_reference():
    """Predictions of uneven quality: the best of them wins against the others' references, not only against its own."""
    generator = random.Random(0)
    images, people, predictions, references = [], [], [], []
    for image in range(40):
        thing = [f"thing{image}-{number}" for number in range(8)]  # what everybody says of it
        for person in range(4):
            own = [f"style{person}-{number}" for number in range(4)]
            kept = 0.35 + 0.2 * person  # the later the person, the better predicted
            references.append(" ".join(thing + own))
            predictions.append(" ".join(word for word in thing + own if generator.random() < kept))
            images.append(image)
            people.append(person)
    found = subject_identification(images, people, predictions, references, tokenizer="split", scorers=["rouge_l"])
    by_hand = []
    for row, reference in enumerate(references):
        rivals = [other for other in range(len(images)) if images[other] == images[row]]
        scores = [rouge_l([predictions[other]], [reference], tokenizer="split").corpus for other in rivals]
        best = [other for other, score in zip(rivals, scores, strict=True) if score == max(scores)]
        by_hand.append((row in best) / len(best))
    assert found.accuracy == pytest.approx(np.mean(by_hand))
    by_person = [np.mean(by_hand[person::4]) for person in range(4)]
    assert by_person == sorted(by_person)
    turned = subject_identification(images, people, references, predictions, tokenizer="split", scorers=["rouge_l"])
    assert abs(turned.accuracy - found.accuracy) > 0.1


def test_the_order_of_people_does_not_matter():
    columns = people_on_images(5, 3, seed=1)
    columns[2][:] = ["thing1 thing2" for _ in columns[2]]
    result = subject_identification(*columns, tokenizer="words", scorers=PLAIN)
    order = random.Random(0).sample(range(15), 15)
    shuffled = subject_identification(
        *([column[row] for row in order] for column in columns), tokenizer="words", scorers=PLAIN
    )
    assert shuffled.by_scorer == pytest.approx(result.by_scorer)
    for row, credit in zip(shuffled.rows, shuffled.accuracies["cider"], strict=True):
        assert credit == pytest.approx(result.accuracies["cider"][result.rows.tolist().index(order[row])])


@needs_java
@pytest.mark.slow
def test_meteor_is_one_of_four_scorers():
    result = subject_identification(*people_on_images(3, 2), tokenizer="ptb")
    assert list(result.by_scorer) == ["bleu4", "meteor", "rouge_l", "cider"]
    assert result.by_scorer["meteor"] == 1.0


def test_cider_of_one_image_of_two_people_is_not_always_0():
    images, subjects = ["x", "x", "y"], ["ana", "ben", "ana"]
    references = ["a red dog", "a big cat", "a house"]
    result = subject_identification(images, subjects, references, references, tokenizer="words", scorers=["cider"])
    assert result.by_scorer == {"cider": 1.0}
    assert result.rows.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("scores", "credits"),
    [
        ([[2, 1], [0, 3]], [1, 1]),
        ([[1, 2], [3, 0]], [0, 0]),
        ([[1, 1], [1, 1]], [0.5, 0.5]),
        ([[5, 5, 0], [0, 0, 0], [9, 8, 7]], [0.5, 1 / 3, 0]),
        ([[1e-16, 3e-16], [0, 0.1]], [0.5, 1]),
        ([[7]], [1]),
    ],
)
def test_top1_shares_ties(scores, credits):
    np.testing.assert_allclose(top1_from_scores(scores), credits)


def test_top1_counts_every_prediction_of_the_person():
    scores = [[1, 5, 5], [0, 5, 5], [5, 5, 0]]
    np.testing.assert_allclose(top1_from_scores(scores, subjects=["ana", "ana", "ben"]), [0.5, 0.5, 0])


@pytest.mark.parametrize("scores", [[[1, 2]], [], [1, 2], [[[1]]], [[float("nan")]], [[1, 2], [float("inf"), 0]]])
def test_top1_refuses_what_is_no_table(scores):
    with pytest.raises(InvalidArgumentError, match="scores"):
        top1_from_scores(scores)


def test_top1_refuses_subjects_of_another_number():
    with pytest.raises(InvalidArgumentError, match="scores has 1, subjects has 2"):
        top1_from_scores([[1]], subjects=["ana", "ben"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["x"]}, "images has 1"),
        ({"subjects": []}, "subjects has 0"),
        ({"candidates": ["a"]}, "candidates has 1"),
        ({"references": ["a", 3]}, r"references\[1\] is a int"),
        ({"subjects": ["ana", "ana"]}, "described by 2 people"),
        ({"images": ["x", "y"]}, "none of 2 images"),
        ({"scorers": ["spice"]}, "spice"),
        ({"scorers": []}, "one or more of"),
        ({"tokenizer": "none"}, "tokenizer is 'none'"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {
        "images": ["x", "x"],
        "subjects": ["ana", "ben"],
        "candidates": ["a", "b"],
        "references": ["a", "b"],
        "tokenizer": "words",
        "scorers": ["bleu4"],
    }
    subject_identification(**good)
    with pytest.raises(InvalidArgumentError, match=message):
        subject_identification(**{**good, **change})
