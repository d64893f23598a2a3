"""Whitened vectors of one person spread alike in all directions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from tests.training.people.noisy_people import PEOPLE, noisy_people
from training.people.accuracy import top1_accuracy
from training.people.nearest_centroid import centroid_scores
from training.people.whitening import Whitening


@settings(max_examples=30)
@given(st.integers(0, 5), st.floats(0.01, 0.99))
def test_whitening_makes_a_persons_samples_spread_alike_in_all_directions(seed, shrinkage):
    rng = np.random.default_rng(seed)
    vectors, subjects = noisy_people(1.0, each=40, seed=seed)
    vectors = vectors * np.geomspace(0.1, 10, 10) + rng.normal(size=10)
    within = np.concatenate([vectors[subjects == who] - vectors[subjects == who].mean(0) for who in range(PEOPLE)])
    covariance = within.T @ within / len(within)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 10 * np.eye(10)
    whitening = Whitening.fit(vectors, subjects, shrinkage)
    np.testing.assert_allclose(whitening.matrix.T @ shrunk @ whitening.matrix, np.eye(10), atol=1e-8)
    np.testing.assert_allclose(whitening(vectors).mean(0), 0, atol=1e-8)


def test_whitening_finds_people_whom_one_loud_direction_hides():
    rng = np.random.default_rng(2)
    quiet, subjects = noisy_people(0.5, seed=1)
    centres = np.random.default_rng(1).normal(size=(PEOPLE, 10))[subjects]
    loud = 100 * np.eye(10)[3]
    support = quiet + rng.normal(size=(len(quiet), 1)) * loud
    queries = centres + 0.5 * rng.normal(size=quiet.shape) + rng.normal(size=(len(quiet), 1)) * loud
    whitening = Whitening.fit(support, subjects, 1e-6)
    plain, whitened = (
        top1_accuracy(centroid_scores(q, s, subjects, PEOPLE), subjects)
        for q, s in ((queries, support), (whitening(queries), whitening(support)))
    )
    assert plain.mean() < 0.5 < 0.9 < whitened.mean()


@pytest.mark.parametrize(
    ("shrinkage", "spread", "complaint"), [(0.0, 1.0, "in \\(0, 1\\]"), (0.1, 0.0, "nobody's samples differ")]
)
def test_whitening_needs_samples_that_differ(shrinkage, spread, complaint):
    vectors, subjects = noisy_people(spread)
    with pytest.raises(InvalidArgumentError, match=complaint):
        Whitening.fit(vectors, subjects, shrinkage)
