"""What a data set's splits promise."""

from collections import Counter

from training.preparation.splits import (
    QUERY,
    SEEN_SPLITS,
    SPLITS,
    SUPPORT,
    SUPPORT_SAMPLES,
    TEST,
    TRAIN,
    UNSEEN_SPLITS,
    VAL,
    Member,
)


def check_promises(splits: dict[Member, str]) -> None:
    """What training and evaluation rely on, said anew."""
    for subject in {member.subject for member in splits}:
        parts = Counter(split for member, split in splits.items() if member.subject == subject)
        seen, unseen = (sum(parts[split] for split in group) for group in (SEEN_SPLITS, UNSEEN_SPLITS))
        assert not (seen and unseen)
        assert parts[TRAIN] or not seen
        if unseen:
            assert parts[SUPPORT] == SUPPORT_SAMPLES
            assert parts[QUERY]
            own = {s: {m.image for m, p in splits.items() if (m.subject, p) == (subject, s)} for s in UNSEEN_SPLITS}
            assert not own[SUPPORT] & own[QUERY]
            assert len(own[SUPPORT]) == SUPPORT_SAMPLES
    shown = {split: {member.image for member, part in splits.items() if part == split} for split in SPLITS}
    for held_out in (TEST, QUERY):
        assert not shown[held_out] & (shown[TRAIN] | shown[VAL])
