"""Splits that the source has itself: one of them is reported on, and some of its people are unseen."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.preparation.split_promises import check_promises
from training.preparation.source_splits import follow_source
from training.preparation.splits import LEFT_OUT, QUERY, SUPPORT, TEST, TRAIN, VAL, Member, SplitsError


def source(people: int = 4, train: int = 12, test: int = 3, reported: str = TEST, val: int = 0) -> dict[Member, str]:
    """Everybody describes the same images, so many of each split."""
    counts = {TRAIN: train, VAL: val, reported: test}
    return {
        Member(f"p{person}", f"{split}{number}.jpg"): split
        for person in range(people)
        for split, count in counts.items()
        for number in range(count)
    }


@given(
    st.integers(2, 6),
    st.integers(5, 20),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 1),
    st.sampled_from([None, 0.0, 0.3]),
)
def test_the_reported_images_and_nothing_else_are_for_test_and_query(
    people: int, train: int, test: int, val: int, unseen: int, share: float | None
) -> None:
    own = source(people, train, test, TEST, val)
    splits = follow_source(own, unseen_people=unseen, val_share=None if val else share)
    check_promises(splits)
    assert splits.keys() == own.keys()
    reported = {member for member, split in splits.items() if split in (TEST, QUERY)}
    assert reported == {member for member, split in own.items() if split == TEST}
    assert len({member.subject for member, split in splits.items() if split == SUPPORT}) == unseen
    assert (VAL in splits.values()) == bool(val or share != 0.0)


def test_the_reported_val_leaves_val_to_some_training_images() -> None:
    own = source(people=4, train=50, test=3, reported=VAL)
    splits = follow_source(own, test_split=VAL, unseen=["p1", "p3"])
    check_promises(splits)
    assert {member.subject for member, split in splits.items() if split in (SUPPORT, QUERY, LEFT_OUT)} == {"p1", "p3"}
    # One image in fifty is for choosing a step.
    assert Counter(splits.values()) == {TRAIN: 98, VAL: 2, TEST: 6, SUPPORT: 10, QUERY: 6, LEFT_OUT: 90}


def test_somebody_with_one_training_sample_keeps_it() -> None:
    own = source(people=2) | {Member("rare", "train0.jpg"): TRAIN, Member("rare", "test0.jpg"): TEST}
    splits = follow_source(own, val_share=0.9)
    assert splits[Member("rare", "train0.jpg")] == TRAIN


@pytest.mark.parametrize(
    ("own", "options", "message"),
    [
        (source(test=0, val=2), {}, r"no sample is of the source's split 'test'; .* report on 'val' instead"),
        (source(test=0), {}, "no sample is of the source's split 'test'; .* give all files of the set, or make splits"),
        (source(train=0), {}, r"no sample is of the source's split 'train'; there are 'test' \(12 samples\)"),
        (source(val=2), {"test_split": VAL}, "the source has a split 'test', so 'val' is for choosing a step"),
        (source(), {"test_split": TRAIN}, "test_split 'train' is none of"),
        (source(reported=SUPPORT), {}, "the source's split 'support' is none of .*: it says itself who is unseen"),
        (source(val=2), {"val_share": 0.1}, "val_share: the source has a split 'val' of its own"),
        (source(), {"val_share": 1.0}, "val_share 1.0 must be a share"),
        (source(), {"unseen": ["p9", "p1"]}, "unseen: 1 of 2 people are not in the data, such as 'p9'; .*'p0', 'p1'"),
        (source(people=12), {"unseen": ["x"]}, "there are 'p0', .*'p9' and 2 more"),
        (source(people=2), {"unseen": ["p0", "p1"]}, "2 of 2 people cannot be unseen"),
        (source(train=4), {"unseen": ["p0"]}, "'p0' has too few samples to be unseen, which takes .* 5 images"),
        (source(), {"unseen_people": 5}, "5 of 4 people cannot be unseen"),
        (source() | {Member("new", "test0.jpg"): TEST}, {}, "'new' has no sample of the source's 'train'"),
        (source() | {Member("p0", "train0.jpg#2"): TEST}, {}, "image 'train0.jpg' is in test and is trained on"),
    ],
)
def test_what_cannot_be_followed_is_refused(own: dict[Member, str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(SplitsError, match=message):
        follow_source(own, **options)
