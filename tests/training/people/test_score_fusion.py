"""Weights of views: the best there are by a plain loop's measure, none below 0, finite, and indifferent to order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.people.accuracy import top1_accuracy
from training.people.score_fusion import MODALITIES, PRIOR, fit_weights, fuse_views, mean_scores, weighted_sum

pytest.importorskip("scipy")

PEOPLE = 4


def fitted(views, labels):
    """The weights of views that are named by their place."""
    weights = fit_weights(dict(enumerate(views)), labels)
    assert list(weights) == list(range(len(views)))
    return np.array(list(weights.values()))


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
    weights = fitted(views, right)
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
    much, little, none = fitted(views, right)
    # For normal noise of variance 1 the likelihood ratio weighs a view by its quality.
    assert (much, little) == pytest.approx((2.0, 1.0), abs=0.1)
    assert none == 0


def test_a_view_that_never_errs_has_a_finite_weight():
    right = np.arange(PEOPLE)
    (weight,) = fitted([np.eye(PEOPLE)], right)
    assert 1 < weight < 10 * PRIOR


def test_large_scores_are_no_overflow():
    views, right = views_of([1.0])
    np.testing.assert_allclose(fitted([1e4 * views[0]], right), fitted(views, right) / 1e4, rtol=0.05)


def test_what_is_alike_for_all_people_says_nothing():
    views, right = views_of([1.0, 0.5])
    shifted = [views[0] + np.arange(len(right))[:, None], views[1]]
    np.testing.assert_allclose(fitted(shifted, right), fitted(views, right), rtol=1e-3)


def test_trainings_that_agree_decide_as_one_and_two_outvote_a_third():
    right, wrong = (dict.fromkeys(MODALITIES, np.eye(2)[[who]]) for who in (1, 0))
    for trainings, accuracy in (([right], 1), ([right] * 3, 1), ([right, wrong, right], 1), ([right, wrong, wrong], 0)):
        ensemble = mean_scores(trainings)
        assert [top1_accuracy(scores, np.array([1])).tolist() for scores in ensemble.values()] == [[accuracy]] * 3


@settings(max_examples=30)
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=4), st.integers(0, 9))
def test_views_are_fused_by_the_sum_of_their_weighted_scores(weights, seed):
    views = np.random.default_rng(seed).normal(size=(len(weights), 5, PEOPLE))
    expected = sum(weight * view for weight, view in zip(weights, views, strict=True))
    np.testing.assert_allclose(weighted_sum(dict(enumerate(views)), dict(enumerate(weights))), expected)


def test_fusing_finds_people_whom_no_view_finds_alone():
    """Of four people, words tell two pairs apart, and gaze who is who within a pair."""
    labels = np.tile(np.arange(4), 5)
    words, gaze = (labels // 2)[:, None] == np.arange(4) // 2, (labels % 2)[:, None] == np.arange(4) % 2
    scores = {"text + gaze": np.zeros((20, 4)), "text": words.astype(float), "gaze": gaze.astype(float)}
    assert [top1_accuracy(scores[view], labels).mean() for view in MODALITIES] == [0.25, 0.5, 0.5]
    fused = fuse_views(scores, fit_weights(scores, labels))
    assert top1_accuracy(fused["text + gaze"], labels).mean() == 1
    assert (fused["text"] is scores["text"], fused["gaze"] is scores["gaze"]) == (True, True)
