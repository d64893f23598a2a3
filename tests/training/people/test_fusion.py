"""Weights of views: the best there are by a plain loop's measure, none below 0, finite, and indifferent to order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.people.fusion import PRIOR, fit_weights

pytest.importorskip("scipy")

PEOPLE = 4


def views_of(qualities, count=60, seed=0):
    """A view of quality q gives the right person q more than the others, beside noise of size 1."""
    rng = np.random.default_rng(seed)
    right = rng.integers(PEOPLE, size=count)
    return [rng.normal(size=(count, PEOPLE)) + quality * np.eye(PEOPLE)[right] for quality in qualities], right


def log_posterior(views, right, weights):
    total = -sum(weight**2 for weight in weights) / (2 * PRIOR**2)
    for row, person in enumerate(right):
        sums = [sum(w * view[row, p] for w, view in zip(weights, views, strict=True)) for p in range(PEOPLE)]
        total += sums[person] - np.log(np.sum(np.exp(sums)))
    return total


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1, 3), min_size=1, max_size=3), st.integers(0, 99))
def test_no_other_weights_are_more_likely(qualities, seed):
    views, right = views_of(qualities, seed=seed)
    weights = fit_weights(views, right)
    assert weights.shape == (len(views),)
    assert (weights >= 0).all()
    best = log_posterior(views, right, weights)
    rng = np.random.default_rng(seed)
    for size in (0.01, 0.1, 1.0):
        for _ in range(10):
            other = np.clip(weights + size * rng.normal(size=len(weights)), 0, None)
            assert log_posterior(views, right, other) <= best + 1e-4


def test_a_view_that_knows_more_weighs_more_and_one_that_misleads_weighs_nothing():
    views, right = views_of([2.0, 1.0, -1.0], count=20_000)
    much, little, none = fit_weights(views, right)
    # For normal noise of variance 1 the likelihood ratio weighs a view by its quality.
    assert (much, little) == pytest.approx((2.0, 1.0), abs=0.1)
    assert none == 0


def test_a_view_that_never_errs_has_a_finite_weight():
    right = np.arange(PEOPLE)
    (weight,) = fit_weights([np.eye(PEOPLE)], right)
    assert 1 < weight < 10 * PRIOR


def test_large_scores_are_no_overflow():
    views, right = views_of([1.0])
    np.testing.assert_allclose(fit_weights([1e4 * views[0]], right), fit_weights(views, right) / 1e4, rtol=0.05)


def test_what_is_alike_for_all_people_says_nothing():
    views, right = views_of([1.0, 0.5])
    shifted = [views[0] + np.arange(len(right))[:, None], views[1]]
    np.testing.assert_allclose(fit_weights(shifted, right), fit_weights(views, right), rtol=1e-3)
