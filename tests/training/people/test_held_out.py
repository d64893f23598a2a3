"""What closed-set identification is asked about: queries of several samples, and folds over photographs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydeper.errors import InvalidArgumentError
from training.people.accuracy import top1_accuracy
from training.people.held_out import draw_queries, photograph_folds, query_means


def test_a_query_is_decided_on_its_mean():
    log_probabilities = np.log([[0.6, 0.4], [0.6, 0.4], [0.01, 0.99]])
    subjects = np.array([1, 1, 1])

    def accuracy(size):
        queries = draw_queries(subjects, size)
        return top1_accuracy(query_means(log_probabilities, queries), np.ones(len(queries), int)).tolist()

    assert accuracy(1) == [0, 0, 1]
    assert accuracy(3) == [1]


@settings(max_examples=30)
@given(st.lists(st.integers(3, 9), min_size=1, max_size=4), st.integers(1, 3))
def test_queries_are_of_one_person_and_without_repeats(counts, size):
    subjects = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    queries = draw_queries(subjects, size, most=12)
    assert all(len(set(rows.tolist())) == size and len(set(subjects[rows])) == 1 for rows in queries)
    if size == 1:
        assert len(queries) == len(subjects)
    assert {int(subjects[rows[0]]) for rows in queries} == set(range(len(counts)))


def test_five_of_six_samples_make_six_queries_and_who_has_fewer_makes_one():
    queries = draw_queries(np.array([0] * 6 + [1] * 4), 5)
    assert [len(rows) for rows in queries] == [5] * 6 + [4]


@settings(max_examples=30)
@given(st.integers(2, 7), st.integers(0, 3))
def test_folds_hold_out_every_photograph_once(folds, seed):
    image_of = np.random.default_rng(seed).permutation(np.repeat(np.arange(7), 5))
    within = image_of != 3 if folds < 7 else np.full(35, True)
    divided = photograph_folds(image_of, folds, within, seed)
    assert (np.sum([fold.held_out for fold in divided], axis=0) == within).all()
    for fold in divided:
        assert ((fold.training ^ fold.held_out) == within).all()
        assert not set(image_of[fold.held_out]) & set(image_of[fold.training])


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_must_fit_the_photographs(folds):
    with pytest.raises(InvalidArgumentError, match="give 2 to 3"):
        photograph_folds(np.arange(3), folds, np.full(3, True))
