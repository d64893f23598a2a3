"""Figures of sums, and how those of two systems compare, against plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from training.evaluation.bootstrap import Interval
from training.evaluation.sum_statistics import SumStatistics, difference, share_of_the_way

OWNERS = ["ana", "ana", "ben", "ben", "eva", "eva"]
scores = st.lists(st.floats(-10, 10), min_size=6, max_size=6).map(np.array)


@settings(max_examples=30)
@given(scores, scores)
def test_a_difference_is_that_of_paired_draws(one, other):
    found = difference(SumStatistics.mean(one, OWNERS), SumStatistics.mean(other, OWNERS))
    per_person = (one - other).reshape(3, 2).mean(axis=1)
    assert isinstance(found, Interval)
    assert found.estimate == pytest.approx(per_person.mean(), abs=1e-9)
    assert per_person.min() - 1e-9 <= found.low <= found.high <= per_person.max() + 1e-9


def test_a_constant_lead_has_no_width_however_people_differ():
    hard = np.array([0.1, 0.2, 5.0, 6.0, 90.0, 91.0])
    found = difference(SumStatistics.mean(hard + 0.5, OWNERS), SumStatistics.mean(hard, OWNERS))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


@settings(max_examples=30)
@given(st.floats(0, 1), scores)
def test_the_share_of_the_way_is_between_the_ends(share, low):
    high = low + 2.0
    parts = (SumStatistics.mean(values, OWNERS) for values in (low, low + 2.0 * share, high))
    found = share_of_the_way(*parts)
    assert (found.estimate, found.low, found.high) == pytest.approx((share, share, share), abs=1e-6)


def test_owners_without_weight_are_left_out_of_a_ratio():
    rates = SumStatistics.ratio(np.array([1, 0, 0, 0, 1, 1]), np.array([1, 1, 0, 0, 1, 1]), OWNERS)
    found = rates.figure()
    assert (found.estimate, found.low, found.high) == pytest.approx((0.75, 0.5, 1.0))
    assert math.isnan(rates.by_owner()["ben"])


def test_what_is_undefined_is_no_figure():
    nothing = SumStatistics.ratio(np.zeros(6), np.array([1, 1, 0, 0, 0, 0]), OWNERS)
    assert nothing.figure() is None  # of one person alone there is no interval
    assert difference(nothing, nothing) is None
    assert SumStatistics.ratio(np.zeros(1), np.zeros(1), ["ana"]).figure() is None
    same = SumStatistics.mean(np.ones(6), OWNERS)
    assert share_of_the_way(same, same, same) is None


def test_one_person_has_a_figure_without_an_interval():
    one, other = (SumStatistics.mean(np.array(values), ["ana"] * 2) for values in ([1.0, 2.0], [0.0, 1.0]))
    assert one.figure() == 1.5
    assert difference(one, other) == 1.0


def test_systems_with_other_rows_cannot_be_compared():
    with pytest.raises(InvalidArgumentError, match="owners differ"):
        difference(SumStatistics.mean(np.ones(6), OWNERS), SumStatistics.mean(np.ones(6), OWNERS[::-1]))
