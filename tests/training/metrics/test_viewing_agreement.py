import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from training.metrics.viewing_agreement import viewing_agreement

mentions = st.lists(st.integers(0, 5), max_size=7)


@given(st.lists(st.tuples(mentions, mentions), min_size=1, max_size=5))
def test_viewing_equals_the_plain_definition(pairs):
    first_correct = first_total = right = asked = 0
    for candidate, reference in pairs:
        first_total += bool(reference)
        first_correct += bool(candidate and reference and candidate[0] == reference[0])
        for a in range(6):
            for b in range(a):
                if all(mention in side for mention in (a, b) for side in (candidate, reference)):
                    asked += 1
                    in_candidate = candidate.index(a) < candidate.index(b)
                    right += in_candidate == (reference.index(a) < reference.index(b))
    result = viewing_agreement(*map(list, zip(*pairs, strict=True)))
    assert result.first == (first_correct / first_total if first_total else None)
    assert result.order == (right / asked if asked else None)
    assert (result.orders_total.sum(), result.first_total.sum()) == (asked, first_total)


def test_viewing_worked_example():
    result = viewing_agreement([["dog", "tree", "car"], [], ["sun"]], [["dog", "car", "tree"], ["sun"], []])
    assert result.first_correct.tolist() == [1, 0, 0]
    assert result.first_total.tolist() == [1, 1, 0]
    assert (result.first, result.order) == (1 / 2, 2 / 3)
    assert result.orders_total.tolist() == [3, 0, 0]


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [([[1]], [], "candidates has 1"), ([], [], "empty"), (["dog"], [["dog"]], "not a sequence of mentions")],
)
def test_viewing_refuses_bad_input(candidates, references, message):
    with pytest.raises(InvalidArgumentError, match=message):
        viewing_agreement(candidates, references)
