"""The splits that a source itself has, such as train2017 and val2017 of COCO, with some of its people unseen.

A source that was not made for unseen people knows `train`, `val` and `test`, or two of them. One of these is *reported
on*: its samples become `test` for seen people and `query` for unseen ones. Of an unseen person, `SUPPORT_SAMPLES`
training samples are `support`, and nobody trains on the others. Where the source's `val` is reported on, or there is
none, some of the training images become `val`: the step of a training must not be chosen on what is reported.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from training.preparation.splits import (
    LEFT_OUT,
    QUERY,
    SUPPORT,
    SUPPORT_SAMPLES,
    TEST,
    TRAIN,
    VAL,
    Member,
    Splits,
    SplitsError,
    by_subject,
    check_splits,
    choose_unseen,
    hash_order,
)

VAL_SHARE = 0.02
"""Share of the source's training images that become `val`, where no other is given: the paper trains on all of them."""


def splits_from_source(splits: Splits) -> dict[Member, str]:
    """The splits that the source itself names; checked as those of a file are.

    Raises:
        SplitsError: They break a promise.
    """
    check_splits(splits)
    return dict(splits)


def follow_source(
    splits: Splits,
    *,
    test_split: str = TEST,
    unseen_people: int | None = None,
    unseen: Sequence[str] = (),
    val_share: float | None = None,
) -> dict[Member, str]:
    """Makes splits of those that the source has; see this module.

    Args:
        splits: The source's split of every sample: "train", "val" or "test".
        test_split: The one that is reported on, "val" or "test".
        unseen_people: How many people are unseen; None: a fifth (rounded down) of those who can be.
        unseen: Who is unseen, by name, in place of `unseen_people`.
        val_share: Share of the training images, in [0, 1), that become `val`; None: `VAL_SHARE`. Only for sources that
            have no `val` left.

    Raises:
        SplitsError: The source lacks a split, or somebody has too few samples; the message says who or what.
    """
    _check_source(splits, test_split, val_share)
    people = by_subject(splits)
    able = [name for name, own in people.items() if _can_be_unseen(own, splits, test_split)]
    needs = f"training samples of {SUPPORT_SAMPLES} images, and one sample of the source's {test_split!r}"
    chosen = choose_unseen(people, able, needs, None if unseen else unseen_people, unseen)
    seen = {name: own for name, own in people.items() if name not in chosen}
    for name, own in seen.items():
        if not any(splits[one] == TRAIN for one in own):
            raise SplitsError(
                f"{name!r} has no sample of the source's {TRAIN!r} to be known from; leave their samples out"
            )
    val = (
        set()
        if _has_val(splits, test_split)
        else _val_images(seen, splits, VAL_SHARE if val_share is None else val_share)
    )
    made = {
        one: TEST if splits[one] == test_split else VAL if one.image in val else splits[one]
        for own in seen.values()
        for one in own
    }
    for name in chosen:
        made |= _splits_of_unseen(people[name], splits, test_split)
    check_splits(made)
    return made


def _check_source(splits: Splits, test_split: str, val_share: float | None) -> None:
    counts = Counter(splits.values())
    found = ", ".join(f"{split!r} ({count} samples)" for split, count in sorted(counts.items()))
    if test_split not in (VAL, TEST):
        raise SplitsError(f"test_split {test_split!r} is none of {VAL!r} and {TEST!r}")
    if unknown := sorted(counts.keys() - {TRAIN, VAL, TEST}):
        raise SplitsError(
            f"the source's split {unknown[0]!r} is none of {TRAIN!r}, {VAL!r} and {TEST!r}: it "
            "says itself who is unseen, so name neither test_split nor unseen"
        )
    for split in (TRAIN, test_split):
        if not counts[split]:
            other = VAL if test_split == TEST and counts[VAL] else None
            remedy = (
                f"report on {other!r} instead (test_split)" if other else "give all files of the set, or make splits"
            )
            raise SplitsError(f"no sample is of the source's split {split!r}; there are {found}: {remedy}")
    if test_split == VAL and counts[TEST]:
        raise SplitsError(f"the source has a split {TEST!r}, so {VAL!r} is for choosing a step; report on {TEST!r}")
    if val_share is not None and _has_val(splits, test_split):
        raise SplitsError(f"val_share: the source has a split {VAL!r} of its own; leave it out")
    if val_share is not None and not 0 <= val_share < 1:
        raise SplitsError(f"val_share {val_share} must be a share that leaves some to train")


def _has_val(splits: Splits, test_split: str) -> bool:
    return test_split != VAL and VAL in splits.values()


def _can_be_unseen(own: Sequence[Member], splits: Splits, test_split: str) -> bool:
    known = {one.image for one in own if splits[one] == TRAIN}
    return len(known) >= SUPPORT_SAMPLES and any(splits[one] == test_split for one in own)


def _val_images(seen: Mapping[str, Sequence[Member]], splits: Splits, share: float) -> set[str]:
    """The training images that become `val`, one at least; everybody keeps one to train on."""
    training = {name: [one.image for one in own if splits[one] == TRAIN] for name, own in seen.items()}
    images = {image for own in training.values() for image in own}
    kept = {own[0] for own in training.values()}
    count = max(1, round(share * len(images))) if share else 0
    return set(hash_order(images - kept)[:count])


def _splits_of_unseen(own: Sequence[Member], splits: Splits, test_split: str) -> dict[Member, str]:
    images = list(dict.fromkeys(one.image for one in own if splits[one] == TRAIN))
    support = set(images[:SUPPORT_SAMPLES])
    made: dict[Member, str] = {}
    for one in own:
        if splits[one] == TRAIN and one.image in support:
            made[one] = SUPPORT
            support.remove(one.image)
        else:
            made[one] = QUERY if splits[one] == test_split else LEFT_OUT
    return made
