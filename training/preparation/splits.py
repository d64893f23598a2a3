"""The splits of a data set, as a sample's `split` field names them.

People are *seen* in training or *unseen*; nobody is both, and nobody's split is left to chance.

| split | whose | for |
| --- | --- | --- |
| `train` | seen people | both stages of training; at test time, the persona of a seen person |
| `val` | seen people | model selection |
| `test` | seen people | the figures for seen people: images that no `train` or `val` sample shows |
| `support` | unseen people | the persona: `SUPPORT_SAMPLES` samples of each |
| `query` | unseen people | the figures for unseen people: images that no `train`, `val` or own `support` sample shows |
"""

import collections
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from pydeper.errors import PydeperError
from pydeper.files.atomic import atomic_path

TRAIN = "train"
VAL = "val"
TEST = "test"
SUPPORT = "support"
QUERY = "query"

SEEN_SPLITS = (TRAIN, VAL, TEST)
UNSEEN_SPLITS = (SUPPORT, QUERY)
SPLITS = SEEN_SPLITS + UNSEEN_SPLITS

SUPPORT_SAMPLES = 5
"""Samples that the persona of an unseen person is made from (paper: 5)."""

LEFT_OUT = "left_out"
"""In a splits file: samples of unseen people that belong to no split, as somebody else's training shows their image."""

FORMAT_VERSION = 1


class SplitsError(PydeperError, ValueError):
    """A splits file that cannot be read, or does not fit the data."""


class Member(NamedTuple):
    """What a splits file calls a sample: who it is of, and its image's name in the image folder.

    Where somebody described one image several times, the second is called "NAME#2", and so on.
    """

    subject: str
    key: str

    @property
    def image(self) -> str:
        """The image's name."""
        name, mark, number = self.key.rpartition("#")
        return name if mark and number.isdecimal() else self.key


Splits: TypeAlias = Mapping[Member, str]
"""The split of every sample: one of `SPLITS`, or `LEFT_OUT`."""


def hash_order(texts: Iterable[str]) -> list[str]:
    """The texts in the order of their SHA-256: as good as shuffled, and the same for everybody, always."""
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).digest())


def first_of_each(members: Iterable[Member], count: int) -> set[Member]:
    """For every person, their first `count` samples in the order of `hash_order`."""
    return {member for own in by_subject(members).values() for member in own[:count]}


def make_splits(
    members: Sequence[Member],
    *,
    unseen_people: int | None = None,
    unseen: Sequence[str] = (),
    val_share: float = 0.1,
    test_share: float = 0.1,
) -> dict[Member, str]:
    """Decides who and what is in which split, by `hash_order` alone.

    Images: the first `test_share` are for `test`, the next `val_share` for `val`, the others for `train`, for everybody
    alike. People: of those who can be unseen, the first `unseen_people` are. Of an unseen person, `SUPPORT_SAMPLES`
    samples of different images are `support`, beginning with images that training shows in any case; the others are
    `query`, or `LEFT_OUT` where training or their own support shows the image. So somebody can be unseen who has more
    than `SUPPORT_SAMPLES` images, one of which is for `test` or nobody else's.

    Args:
        members: Every sample.
        unseen_people: How many are unseen; None: a fifth (rounded down) of those who can be.
        unseen: Who is unseen, by name, in place of `unseen_people`.
        val_share: Share of the images, in [0, 1).
        test_share: The same.

    Raises:
        SplitsError: There are too few people or samples for this, or somebody who is named is not there; the message
            names who lacks what.
    """
    if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise SplitsError(f"val_share {val_share} and test_share {test_share} must be shares that leave some to train")
    people = by_subject(members)
    viewers = collections.Counter(image for own in people.values() for image in {one.image for one in own})
    split_of = _splits_of_images(viewers, val_share, test_share)
    able = [name for name, own in people.items() if _can_be_unseen(own, split_of, viewers)]
    needs = f"more than {SUPPORT_SAMPLES} images of which one is for test or nobody else's"
    chosen = choose_unseen(people, able, needs, unseen_people, unseen)
    splits = {one: split_of[one.image] for name, own in people.items() if name not in chosen for one in own}
    trained = {one.image for one, split in splits.items() if split != TEST}
    for name in chosen:
        splits |= _splits_of_unseen(people[name], trained)
    check_splits(splits)
    return splits


def choose_unseen(
    people: Mapping[str, object], able: Sequence[str], needs: str, count: int | None, named: Sequence[str]
) -> set[str]:
    """Chooses who is unseen: those who are named, or the first `count` of all who can be, in the order of `hash_order`.

    Args:
        people: Everybody.
        able: Those who can be unseen.
        needs: What they have that others lack, for messages.
        count: How many are unseen where nobody is named; None: a fifth (rounded down) of those who can be.
        named: Who is unseen.

    Raises:
        SplitsError: Somebody named is not there or cannot be unseen, or nobody is left to train on.
    """
    if named and count is not None:
        raise SplitsError("unseen and unseen_people exclude each other: name people, or say how many")
    if absent := [name for name in named if name not in people]:
        there = sorted(people, key=lambda name: (len(name), name))
        listed = ", ".join(map(repr, there[:10])) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
        raise SplitsError(
            f"unseen: {len(absent)} of {len(named)} people are not in the data, such as {absent[0]!r}; there are "
            f"{listed}"
        )
    if unable := [name for name in named if name not in able]:
        raise SplitsError(
            f"unseen: {unable[0]!r} has too few samples to be unseen, which takes {needs}; leave them out"
        )
    number = len(set(named)) if named else len(able) // 5 if count is None else count
    if not 0 <= number <= len(able) or number == len(people):
        raise SplitsError(
            f"{number} of {len(people)} people cannot be unseen: {len(able)} have {needs}, and somebody has to be left "
            "to train on"
        )
    return set(named or hash_order(able)[:number])


def _can_be_unseen(own: list[Member], split_of: Mapping[str, str], viewers: Mapping[str, int]) -> bool:
    images = {one.image for one in own}
    return len(images) > SUPPORT_SAMPLES and any(split_of[image] == TEST or viewers[image] == 1 for image in images)


def by_subject(members: Iterable[Member]) -> dict[str, list[Member]]:
    """Sorts samples by the person; those of each are in the order of `hash_order`."""
    people: dict[str, list[str]] = {}
    for subject, key in members:
        people.setdefault(subject, []).append(key)
    return {subject: [Member(subject, key) for key in hash_order(keys)] for subject, keys in people.items()}


def _splits_of_images(images: Iterable[str], val_share: float, test_share: float) -> dict[str, str]:
    order = hash_order(images)
    test, val = round(test_share * len(order)), round(val_share * len(order))
    return {image: TEST if place < test else VAL if place < test + val else TRAIN for place, image in enumerate(order)}


def _splits_of_unseen(own: list[Member], trained: set[str]) -> dict[Member, str]:
    images = list(dict.fromkeys(one.image for one in sorted(own, key=lambda one: one.image not in trained)))
    support = set(images[:SUPPORT_SAMPLES])
    splits: dict[Member, str] = {}
    for one in own:
        if one.image in support:
            splits[one] = SUPPORT
            support.remove(one.image)
        else:
            splits[one] = LEFT_OUT if one.image in trained or one.image in images[:SUPPORT_SAMPLES] else QUERY
    return splits


def check_splits(splits: Splits) -> None:
    """Checks what a data set must keep to: see this module's table.

    Raises:
        SplitsError: A promise is broken; the message names the person or the image.
    """
    counts_of: dict[str, collections.Counter[str]] = {}
    images: dict[str, set[str]] = {split: set() for split in (*SPLITS, LEFT_OUT)}
    supporting = {(member.subject, member.image) for member, split in splits.items() if split == SUPPORT}
    for member, split in splits.items():
        if split not in images:
            raise SplitsError(f"{member.subject!r}: {split!r} is no split; there are {', '.join(images)}")
        if split == QUERY and (member.subject, member.image) in supporting:
            raise SplitsError(f"{member.subject!r}: image {member.image!r} is in support and in query; be one of them")
        counts_of.setdefault(member.subject, collections.Counter())[split] += 1
        images[split].add(member.image)
    for subject, counts in counts_of.items():
        if any(counts[split] for split in UNSEEN_SPLITS):
            if any(counts[split] for split in SEEN_SPLITS):
                raise SplitsError(f"{subject!r} is both seen ({', '.join(SEEN_SPLITS)}) and unseen; be one of them")
            if counts[SUPPORT] != SUPPORT_SAMPLES or not counts[QUERY]:
                raise SplitsError(
                    f"{subject!r} is unseen, with {counts[SUPPORT]} support and {counts[QUERY]} query samples; there "
                    f"must be {SUPPORT_SAMPLES} and at least one (a larger test share leaves more images to query)"
                )
        elif any(counts[split] for split in SEEN_SPLITS) and not counts[TRAIN]:
            raise SplitsError(
                f"{subject!r} is seen and has no sample to train on; give smaller shares, or leave them out"
            )
    for split in (TEST, QUERY):
        if shared := images[split] & (images[TRAIN] | images[VAL]):
            raise SplitsError(f"image {min(shared)!r} is in {split} and is trained on as well; it must not be both")


def write_splits(path: Path, splits: Splits) -> None:
    """Writes a splits file: who has what in which split. It appears whole or not at all."""
    people: dict[str, dict[str, list[str]]] = {}
    for member, split in splits.items():
        people.setdefault(member.subject, {}).setdefault(split, []).append(member.key)
    ordered = {
        subject: {split: sorted(people[subject][split]) for split in (*SPLITS, LEFT_OUT) if split in people[subject]}
        for subject in sorted(people)
    }
    content = {"format_version": FORMAT_VERSION, "people": ordered}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read_splits(path: Path) -> dict[Member, str]:
    """Reads a splits file, and checks that it keeps what this module's table promises.

    Raises:
        SplitsError: It cannot be read, or breaks a promise; the message names the file, the person and the split.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SplitsError(f"{path}: cannot be read ({error}); name a splits file") from error
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise SplitsError(f"format_version {content['format_version']!r} is not {FORMAT_VERSION}")
        splits: dict[Member, str] = {}
        for subject, parts in content["people"].items():
            for split, keys in parts.items():
                for key in keys:
                    if Member(subject, key) in splits:
                        raise SplitsError(f"{subject!r} has {key!r} in two parts; keep one")
                    splits[Member(subject, key)] = split
        check_splits(splits)
    except (KeyError, TypeError, AttributeError) as error:
        raise SplitsError(f"{path}: is no splits file ({error!r}); see training/preparation/splits.py") from error
    except SplitsError as error:
        raise SplitsError(f"{path}: {error}") from error
    return splits


def check_fit(splits: Splits, members: Iterable[Member], source: str) -> None:
    """Checks that the splits are of these samples, all of them and no others.

    Raises:
        SplitsError: They are not; the message says how many differ, and names the first.
    """
    there = set(members)
    for samples, where in ((there - splits.keys(), "not in it"), (splits.keys() - there, "in it and not in the data")):
        if samples:
            first = min(samples)
            raise SplitsError(
                f"{source}: does not fit the data: {len(samples)} samples are {where}, such as {first.key!r} of "
                f"{first.subject!r}. Give the same source and options again, another splits file, or delete this one"
            )
