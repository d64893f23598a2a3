"""New people: who is enrolled by what, and that scores are what a plain loop gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from training.people.new_people import cross_fit_weights, draw_episodes, nearest_mean, people_groups


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
def test_episodes_are_of_the_people_on_the_same_photographs_and_never_those_of_the_queries(shots, samples, seed):
    image_of, subject_of = everybody_on_every_photograph()
    people = np.array([1, 4, 5])
    episodes = draw_episodes(image_of, subject_of, people, shots=shots, samples=samples, draws=5, seed=seed)
    assert len(episodes) == 5
    for episode in episodes:
        assert (episode.support.shape, episode.queries.shape) == ((3, shots), (3, samples))
        for rows in (episode.support, episode.queries):
            assert (subject_of[rows] == people[:, None]).all()
            assert (image_of[rows] == image_of[rows[0]]).all()
        used = [*image_of[episode.support[0]], *image_of[episode.queries[0]]]
        assert len(set(used)) == shots + samples


def test_a_photograph_that_somebody_lacks_is_not_drawn():
    image_of, subject_of = everybody_on_every_photograph()
    lacking = (image_of == 2) & (subject_of == 4)
    image_of, subject_of = image_of[~lacking], subject_of[~lacking]
    for episode in draw_episodes(image_of, subject_of, np.array([1, 4]), shots=4, samples=4, draws=10):
        assert 2 not in image_of[np.hstack((episode.support, episode.queries))]
    with pytest.raises(InvalidArgumentError, match="share 8 photographs; 5 to be enrolled by and 4 others"):
        draw_episodes(image_of, subject_of, np.array([1, 4]), shots=5, samples=4, draws=1)


def test_the_nearest_mean_is_that_of_a_plain_loop():
    rng = np.random.default_rng(1)
    image_of, subject_of = everybody_on_every_photograph()
    vectors = rng.normal(size=(len(image_of), 7))

    def unit(vector):
        return vector / np.linalg.norm(vector)

    for episode in draw_episodes(image_of, subject_of, np.array([0, 2, 3]), shots=3, samples=2, draws=4):

        def cosines(rows=episode):
            personas = [unit(np.mean([unit(vectors[row]) for row in own], axis=0)) for own in rows.support]
            queries = [unit(np.mean([unit(vectors[row]) for row in own], axis=0)) for own in rows.queries]
            return np.array([[query @ persona for persona in personas] for query in queries])

        np.testing.assert_allclose(nearest_mean(vectors)(episode), cosines())


def test_a_groups_weights_are_fitted_to_the_other_groups():
    """Gaze tells the people of the first group apart, text those of the others: so for these alone gaze counts."""
    rng = np.random.default_rng(2)

    def group_scores(informative):
        scores = {view: rng.normal(size=(40, 3, 3)) for view in ("text + gaze", "text", "gaze")}
        scores[informative] = scores[informative] + 2 * np.eye(3)
        return {1: scores}

    first, second, third = cross_fit_weights([group_scores("gaze"), group_scores("text"), group_scores("text")])
    assert first["gaze"] < 0.3 < 1.5 < first["text"]
    for weights in (second, third):
        assert weights["text + gaze"] < 0.3 < 0.5 < min(weights["text"], weights["gaze"])
