"""Cosines to people's mean vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from tests.training.people.noisy_people import PEOPLE, noisy_people
from training.people.accuracy import top1_accuracy
from training.people.held_out import draw_queries, query_means
from training.people.nearest_centroid import centroid_scores


def test_centroids_find_people_and_means_of_several_samples_find_them_better():
    support, subjects = noisy_people(1.5, seed=1)
    rng = np.random.default_rng(2)
    centres = np.random.default_rng(1).normal(size=(PEOPLE, 10))
    samples = centres[subjects] + 1.5 * rng.normal(size=support.shape)

    def accuracy(size):
        queries = draw_queries(subjects, size)
        scores = centroid_scores(query_means(samples, queries), support, subjects, PEOPLE)
        return top1_accuracy(scores, np.array([subjects[rows[0]] for rows in queries])).mean()

    assert 2 / PEOPLE < accuracy(1) < accuracy(5)


def test_centroid_scores_are_cosines_to_the_mean_of_unit_vectors():
    support = np.array([[2.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])
    scores = centroid_scores(np.array([[3.0, 3.0]]), support, np.array([0, 0, 1]), 2)
    np.testing.assert_allclose(scores, [[1.0, -np.sqrt(0.5)]])


@settings(max_examples=30)
@given(st.floats(0.1, 10), st.integers(0, 5))
def test_the_length_of_vectors_says_nothing_to_the_centroid_rule(scale, seed):
    support, subjects = noisy_people(1.0, seed=seed)
    expected = centroid_scores(support, support, subjects, PEOPLE)
    np.testing.assert_allclose(centroid_scores(scale * support, support, subjects, PEOPLE), expected, atol=1e-12)
    np.testing.assert_allclose(centroid_scores(support, scale * support, subjects, PEOPLE), expected, atol=1e-12)


def test_nobody_may_lack_support():
    with pytest.raises(InvalidArgumentError, match=r"people \[1\] have no support"):
        centroid_scores(np.ones((1, 2)), np.ones((1, 2)), np.array([0]), 2)
