from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu

from pydeper.errors import InvalidArgumentError
from training.metrics.bleu import multi_reference_bleu4
from training.metrics.human_consistency import human_consistency


def test_human_consistency_equals_the_plain_definition():
    images = ["x", "x", "x", "y", "y", "z"]
    subjects = ["ana", "ben", "cem", "ana", "ben", "ana"]
    texts = [
        "a red dog on grass",
        "a red dog on a mat",
        "one dog",
        "the big house is old",
        "the big house is new",
        "sea",
    ]
    by_image = {}
    for left, right in permutations(range(6), 2):
        if images[left] == images[right]:
            score = Bleu(4).compute_score({0: [texts[right]]}, {0: [texts[left]]}, verbose=0)[0][3]
            by_image.setdefault(images[left], []).append(score)
    result = human_consistency(images, subjects, texts, tokenizer="words")
    assert result.images == ("x", "y")
    np.testing.assert_allclose(result.by_image, [np.mean(by_image["x"]), np.mean(by_image["y"])])
    assert result.mean == pytest.approx(result.by_image.mean())
    several = {}
    for left, image in enumerate(images):
        if others := [texts[right] for right in range(6) if images[right] == image and right != left]:
            score = Bleu(4).compute_score({0: others}, {0: [texts[left]]}, verbose=0)[0][3]
            several.setdefault(image, []).append(score)
    np.testing.assert_allclose(result.multi_reference, [np.mean(several["x"]), np.mean(several["y"])])
    assert result.multi_reference[0] > result.by_image[0]  # three people
    assert result.multi_reference[1] == pytest.approx(result.by_image[1])  # two people


WORDS = st.lists(st.sampled_from(["a", "the", "red", "dog", "cat", "sees"]), max_size=10).map(" ".join)


@given(st.lists(st.tuples(WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=4)), min_size=1, max_size=4))
def test_several_references_are_scored_as_pycocoevalcap_does(rows):
    candidates, references = map(list, zip(*rows, strict=True))
    _, expected = Bleu(4).compute_score(
        dict(enumerate(references)), {i: [c] for i, c in enumerate(candidates)}, verbose=0
    )
    np.testing.assert_allclose(multi_reference_bleu4(candidates, references, tokenizer="split"), expected[3], rtol=1e-9)


def test_human_consistency_does_not_compare_a_person_with_themselves():
    text = "the same five words here"
    result = human_consistency(["x"] * 3, ["ana", "ana", "ben"], [text, text, "nothing alike"], tokenizer="words")
    assert result.mean < 1e-3


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["", "a dog", "a dog on a mat"]))))
def test_human_consistency_is_a_share_that_the_order_of_rows_does_not_change(rows):
    rows = [*rows, (9, 0, "a red dog on a mat"), (9, 1, "a dog on a mat")]
    there, back = (
        human_consistency(*map(list, zip(*order, strict=True)), tokenizer="split") for order in (rows, rows[::-1])
    )
    assert 0 <= there.mean <= 1 + 1e-12
    assert there.mean == pytest.approx(back.mean)
    assert set(there.images) == set(back.images)


@pytest.mark.parametrize(
    ("images", "subjects", "texts", "message"),
    [
        (["x"], ["ana"], ["a"], "described by 2 people"),
        (["x", "x"], ["ana", "ana"], ["a", "b"], "described by 2 people"),
        (["x"], ["ana", "ben"], ["a", "b"], "images has 1"),
        ([], [], [], "empty"),
        (["x", "x"], ["ana", "ben"], ["a", None], "NoneType"),
    ],
)
def test_human_consistency_refuses_bad_input(images, subjects, texts, message):
    with pytest.raises(InvalidArgumentError, match=message):
        human_consistency(images, subjects, texts, tokenizer="words")
