"""New people: who is enrolled by what, and that scores and credits are what a plain loop gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from training.people.enrolment import cross_fitted, enrolments, nearest_mean, people_groups


@given(st.integers(4, 40), st.integers(2, 6), st.integers(0, 3))
def test_groups_are_disjoint_and_of_one_size(count, size, seed):
    if count // size < 2:
        with pytest.raises(InvalidArgumentError, match="at least 2 groups"):
            people_groups(count, size, seed)
        return
    groups = people_groups(count, size, seed)
    assert [len(group) for group in groups] == [size] * (count // size)
    assert len(set(np.concatenate(groups).tolist())) == size * (count // size)
    assert set(np.concatenate(groups).tolist()) <= set(range(count))


def everybody_on_every_photograph(people=6, photographs=9):
    image_of, subject_of = np.divmod(np.random.default_rng(0).permutation(people * photographs), people)
    return image_of, subject_of


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_enrolments_are_of_the_people_on_the_same_photographs_and_never_of_those_asked(shots, asked, seed):
    image_of, subject_of = everybody_on_every_photograph()
    people = np.array([1, 4, 5])
    drawn = enrolments(image_of, subject_of, people, shots=shots, asked=asked, draws=5, seed=seed)
    assert len(drawn) == 5
    for enrolment in drawn:
        assert (enrolment.support.shape, enrolment.queries.shape) == ((3, shots), (3, asked))
        for rows in (enrolment.support, enrolment.queries):
            assert (subject_of[rows] == people[:, None]).all()
            assert (image_of[rows] == image_of[rows[0]]).all()
        used = [*image_of[enrolment.support[0]], *image_of[enrolment.queries[0]]]
        assert len(set(used)) == shots + asked


def test_a_photograph_that_somebody_lacks_is_not_drawn():
    image_of, subject_of = everybody_on_every_photograph()
    lacking = (image_of == 2) & (subject_of == 4)
    image_of, subject_of = image_of[~lacking], subject_of[~lacking]
    for enrolment in enrolments(image_of, subject_of, np.array([1, 4]), shots=4, asked=4, draws=10):
        assert 2 not in image_of[np.hstack((enrolment.support, enrolment.queries))]
    with pytest.raises(InvalidArgumentError, match="share 8 photographs; 5 to be enrolled by and 4 others"):
        enrolments(image_of, subject_of, np.array([1, 4]), shots=5, asked=4, draws=1)


def test_the_nearest_mean_is_that_of_a_plain_loop():
    rng = np.random.default_rng(1)
    image_of, subject_of = everybody_on_every_photograph()
    vectors = rng.normal(size=(len(image_of), 7))

    def unit(vector):
        return vector / np.linalg.norm(vector)

    for enrolment in enrolments(image_of, subject_of, np.array([0, 2, 3]), shots=3, asked=2, draws=4):

        def cosines(rows=enrolment):
            personas = [unit(np.mean([unit(vectors[row]) for row in own], axis=0)) for own in rows.support]
            queries = [unit(np.mean([unit(vectors[row]) for row in own], axis=0)) for own in rows.queries]
            return np.array([[query @ persona for persona in personas] for query in queries])

        np.testing.assert_allclose(nearest_mean(vectors)(enrolment), cosines())


def test_a_groups_weights_are_fitted_to_the_other_groups():
    """Gaze tells the people of the first group apart, text those of the others: so for these alone gaze counts."""
    rng = np.random.default_rng(2)

    def answers(told_by):
        scores = {view: rng.normal(size=(40, 3, 3)) for view in ("text + gaze", "text", "gaze")}
        scores[told_by] = scores[told_by] + 2 * np.eye(3)
        return {1: scores}

    first, second, third = cross_fitted([answers("gaze"), answers("text"), answers("text")])
    assert first["gaze"] < 0.3 < 1.5 < first["text"]
    for weights in (second, third):
        assert weights["text + gaze"] < 0.3 < 0.5 < min(weights["text"], weights["gaze"])
