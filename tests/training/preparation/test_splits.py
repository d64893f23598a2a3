"""Splits: made once by order of hashes, kept in a file, refused where they break a promise."""

import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.preparation.split_promises import check_promises
from training.preparation.splits import (
    LEFT_OUT,
    QUERY,
    SUPPORT,
    TEST,
    TRAIN,
    VAL,
    Member,
    SplitsError,
    first_of_each,
    make_splits,
    read_splits,
    write_splits,
)

members = st.builds(
    lambda people, overlap, count: [
        Member(f"p{person}", f"{(person * overlap + i) % 60}.png") for person in range(people) for i in range(count)
    ],
    st.integers(2, 12),
    st.integers(0, 9),
    st.integers(6, 30),
)


@given(members, st.integers(0, 3), st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.1, 0.3]), st.randoms())
def test_splits_keep_their_promises_whatever_the_order(
    people: list[Member], unseen: int, val: float, test: float, random: Any
) -> None:
    options: dict[str, Any] = {"unseen_people": unseen, "val_share": val, "test_share": test}
    refused = ""
    try:
        splits = make_splits(people, **options)
    except SplitsError as error:
        refused = str(error)
    if refused:  # there is too little to share out
        assert re.search("people cannot be unseen|no sample to train on", refused)
        return
    check_promises(splits)
    assert splits.keys() == set(people)
    shuffled = list(people)
    random.shuffle(shuffled)
    assert make_splits(shuffled, **options) == splits


def test_splits_stay_as_they_are_for_ever() -> None:
    people = [Member(f"p{person}", f"{i}.png") for person in range(3) for i in range(20)]
    splits = make_splits(people, unseen_people=1, test_share=0.3)
    support = sorted(member for member, split in splits.items() if split == SUPPORT)
    assert support == [Member("p0", f"{i}.png") for i in (10, 11, 16, 19, 2)]
    assert Counter(splits.values()) == {TRAIN: 24, VAL: 4, TEST: 12, SUPPORT: 5, QUERY: 6, LEFT_OUT: 9}


def test_support_begins_with_images_that_training_shows_and_queries_avoid_them() -> None:
    people = [Member(f"p{person}", f"{i}.png") for person in range(5) for i in range(30)]
    splits = make_splits(people, unseen_people=2, test_share=0.2)
    trained = {member.image for member, split in splits.items() if split in (TRAIN, VAL)}
    assert {member.image for member, split in splits.items() if split == SUPPORT} <= trained
    assert Counter(splits.values())[QUERY] == 2 * 6


def test_a_second_description_of_a_support_image_is_no_query() -> None:
    people = [Member("a", f"{i}.png{again}") for i in range(8) for again in ("", "#2")]
    people += [Member("b", f"b{i}.png") for i in range(5)]
    splits = make_splits(people, unseen_people=1, test_share=0)
    check_promises(splits)
    assert Counter(split for member, split in splits.items() if member.subject == "a") == {
        SUPPORT: 5,
        LEFT_OUT: 5,
        QUERY: 6,
    }


@pytest.mark.parametrize(
    ("people", "options", "message"),
    [
        (3, {"unseen_people": 3}, "3 of 3 people cannot be unseen: 3 have more than 5 images"),
        (3, {"unseen_people": 4}, "4 of 3 people cannot be unseen"),
        (3, {"unseen_people": -1}, "-1 of 3 people"),
        (3, {"val_share": 0.6, "test_share": 0.4}, "must be shares that leave some to train"),
        (3, {"test_share": -0.1}, "must be shares"),
        (
            3,
            {"unseen_people": 1, "test_share": 0.0},
            "1 of 3 people cannot be unseen: 0 have .* for test or nobody else's",
        ),
        (3, {"test_share": 0.99, "val_share": 0}, "is seen and has no sample to train on"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(people: int, options: Any, message: str) -> None:
    with pytest.raises(SplitsError, match=message):
        make_splits([Member(f"p{p}", f"{i}.png") for p in range(people) for i in range(20)], **options)


def test_unseen_people_can_be_named() -> None:
    people = [Member(f"p{p}", f"{i}.png") for p in range(4) for i in range(20)]
    splits = make_splits(people, unseen=["p2", "p0"], test_share=0.2)
    check_promises(splits)
    assert {member.subject for member, split in splits.items() if split in (SUPPORT, QUERY)} == {"p0", "p2"}


@pytest.mark.parametrize(
    ("unseen", "options", "message"),
    [
        (["p1", "ana"], {}, "1 of 2 people are not in the data, such as 'ana'; there are 'p0', 'p1', 'few'"),
        (["few"], {}, "unseen: 'few' has too few samples to be unseen, which takes more than 5 images"),
        (["p0"], {"unseen_people": 1}, "unseen and unseen_people exclude each other"),
    ],
)
def test_unseen_people_who_cannot_be_are_refused(unseen: list[str], options: Any, message: str) -> None:
    people = [Member(f"p{p}", f"{i}.png") for p in range(2) for i in range(20)]
    few = [Member("few", f"{i}.png") for i in range(3)]
    with pytest.raises(SplitsError, match=message):
        make_splits([*people, *few], unseen=unseen, **options)


def test_a_few_samples_of_each_person_are_always_the_same() -> None:
    people = [Member(f"p{p}", f"{i}.png") for p in range(4) for i in range(20 * p + 1)]
    chosen = first_of_each(people, 10)
    assert Counter(member.subject for member in chosen) == {"p0": 1, "p1": 10, "p2": 10, "p3": 10}
    assert first_of_each(reversed(people), 10) == chosen
    assert first_of_each(people, 5) < chosen


@given(members)
def test_splits_files_are_read_as_they_were_written(people: list[Member]) -> None:
    splits = make_splits(people, unseen_people=0)
    with tempfile.TemporaryDirectory() as folder:
        write_splits(Path(folder) / "splits.json", splits)
        assert read_splits(Path(folder) / "splits.json") == splits


def people_file(**people: Any) -> dict[str, Any]:
    return {"format_version": 1, "people": people}


IMAGES = [f"{i}.png" for i in range(6)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ([], "is no splits file"),
        ({"people": {}}, "is no splits file"),
        (people_file() | {"format_version": 2}, "format_version 2 is not 1"),
        (people_file(ana=["0.png"]), "is no splits file"),
        (people_file(ana={"training": ["0.png"]}), "'training' is no split; there are train, val"),
        (people_file(ana={"train": ["0.png"], "val": ["0.png"]}), "'ana' has '0.png' in two parts"),
        (people_file(ana={"train": ["0.png"], "query": ["1.png"]}), "'ana' is both seen"),
        (people_file(ana={"val": ["0.png"]}), "'ana' is seen and has no sample to train on"),
        (people_file(ana={"support": IMAGES}), "6 support and 0 query samples"),
        (people_file(ana={"support": IMAGES[:5], "query": ["0.png#2"]}), "image '0.png' is in support and in query"),
        (
            people_file(ana={"train": ["0.png"]}, ben={"train": ["1.png"], "test": ["0.png"]}),
            "in test and is trained on",
        ),
    ],
)
def test_a_splits_file_that_breaks_a_promise_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(SplitsError, match=f"splits.json: .*{message}"):
        read_splits(path)
