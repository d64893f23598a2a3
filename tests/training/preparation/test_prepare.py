"""Samples of any source to a folder that is ready to train on."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pydeper import Fixation, Sample, Trajectory, read_samples
from pydeper.errors import InvalidSampleError
from pydeper.readers import ReadReport, SampleStream
from tests.support.images import write_images
from tests.training.preparation.split_promises import check_promises
from training.preparation.prepare import PrepareError, PrepareOptions, plan, prepare
from training.preparation.splits import (
    LEFT_OUT,
    SPLITS,
    SUPPORT,
    Member,
    SplitsError,
    read_splits,
)

Source = Callable[..., SampleStream]
OPTIONS = PrepareOptions(name="people")
FILES = {"samples.jsonl", "splits.json", "report.json", "README.md"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images" / "sub")
    return tmp_path / "images"


@pytest.fixture
def source(images: Path) -> Source:
    """Samples of people who each describe some of the images."""

    def read(people: int = 10, each: int = 12, split: str | None = None) -> SampleStream:
        report = ReadReport("memory")

        def samples() -> Iterator[Sample]:
            for person in range(people):
                for number in range(each):
                    report.samples += 1
                    yield Sample(
                        image=images.resolve() / "sub" / f"{(person * 7 + number) % 40}.png",
                        description=f"words of {person} on {number}",
                        trajectory=Trajectory([Fixation((0.1, 0.1, 0.2, 0.2), 0.25)] * (1 + number % 3)),
                        subject=f"p{person}",
                        split=split,
                        source=f"memory:{report.samples}",
                    )

        return SampleStream(samples(), report)

    return read


def found(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_prepared_folder_is_ready_to_train_on(source: Source, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    prepare(source(), images, out, PrepareOptions(name="people", source="a study", licence="CC BY 4.0"))
    assert found(out).keys() == FILES
    samples = read_samples(out / "samples.jsonl")
    splits = read_splits(out / "splits.json")
    check_promises(splits)
    assert {str(sample.split) for sample in samples} == set(SPLITS)
    for sample in samples:
        image = Path(str(sample.image)).relative_to(images.resolve()).as_posix()
        assert splits[Member(str(sample.subject), image)] == sample.split
    report = json.loads((out / "report.json").read_text())
    assert report["written"] == len(samples) == 120 - report["splits"].get(LEFT_OUT, 0)
    card = (out / "README.md").read_text()
    assert "- Source: a study\n- Licence: CC BY 4.0\n" in card
    assert f"{len(samples)} samples of 10 people on 40 images" in card
    assert "| fixations in a trajectory | 1 | 1 | 2 | 3 | 3 | 2 |" in card
    for split in SPLITS:
        own = [sample for sample in samples if sample.split == split]
        assert f"| {split} | {len({sample.subject for sample in own})} | {len(own)} |" in card


def test_the_same_again_is_the_same_to_the_last_byte(source: Source, images: Path, tmp_path: Path) -> None:
    for out in ("a", "b", "a"):
        prepare(source(), images, tmp_path / out, OPTIONS)
    assert found(tmp_path / "a") == found(tmp_path / "b")


def test_splits_once_made_are_kept_to(source: Source, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(source(), images, out, OPTIONS)
    before = found(out)
    for changed, message in (
        (source(each=13), "10 samples are not in it"),
        (source(people=9), "12 samples are in it and"),
    ):
        with pytest.raises(SplitsError, match=rf"splits.json: does not fit the data: {message}.* such as 'sub/"):
            prepare(changed, images, out, OPTIONS)
    with pytest.raises(SplitsError, match="has decided the splits already, so unseen_people cannot be asked for"):
        prepare(source(), images, out, PrepareOptions(name="people", unseen_people=0))
    assert found(out) == before


def test_a_splits_file_may_be_given(source: Source, images: Path, tmp_path: Path) -> None:
    prepare(source(), images, tmp_path / "a", PrepareOptions(name="people", unseen_people=3))
    given = tmp_path / "given.json"
    (tmp_path / "a" / "splits.json").rename(given)
    prepare(source(), images, tmp_path / "b", PrepareOptions(name="people", splits=given))
    assert read_splits(tmp_path / "b" / "splits.json") == read_splits(given)
    assert sum(sample.split == SUPPORT for sample in read_samples(tmp_path / "b" / "samples.jsonl")) == 15


def test_the_splits_of_the_source_are_taken_over(source: Source, images: Path, tmp_path: Path) -> None:
    prepare(source(split="train"), images, tmp_path / "a", OPTIONS)
    assert {sample.split for sample in read_samples(tmp_path / "a" / "samples.jsonl")} == {"train"}
    assert "The splits are the source's." in (tmp_path / "a" / "README.md").read_text()
    prepare(source(split="train"), images, tmp_path / "b", PrepareOptions(name="people", unseen_people=2))
    assert {sample.split for sample in read_samples(tmp_path / "b" / "samples.jsonl")} == set(SPLITS)
    with pytest.raises(SplitsError, match="'training' is no split"):
        prepare(source(split="training"), images, tmp_path / "c", OPTIONS)
    mixed = [*source(people=1, split="train"), *source(people=1, each=14)]
    with pytest.raises(SplitsError, match="2 samples have no split and others have"):
        prepare(SampleStream(iter(mixed), ReadReport("mixed")), images, tmp_path / "d", OPTIONS)


def with_test_images(stream: SampleStream) -> SampleStream:
    """The same samples, of which the last ten images are the source's "val"."""
    split = {True: "val", False: "train"}
    samples = (attrs.evolve(sample, split=split[int(Path(str(sample.image)).stem) >= 30]) for sample in stream)
    return SampleStream(samples, stream.report)


def test_the_splits_of_the_source_are_followed(source: Source, images: Path, tmp_path: Path) -> None:
    options = PrepareOptions(name="people", test_split="val", unseen=["p3"])
    out = tmp_path / "out"
    plan_made = plan(with_test_images(source()), images, out, options)
    assert not out.exists()
    prepare(with_test_images(source()), images, out, options)
    assert plan_made.splits == read_splits(out / "splits.json")
    samples = read_samples(out / "samples.jsonl")
    assert {sample.subject for sample in samples if sample.split in ("support", "query")} == {"p3"}
    reported = {int(Path(str(sample.image)).stem) for sample in samples if sample.split in ("test", "query")}
    assert reported == set(range(30, 40))
    assert "its 'val' is what is reported on" in (out / "README.md").read_text()
    with pytest.raises(SplitsError, match="decided the splits already, so test_split, unseen cannot be asked for"):
        prepare(with_test_images(source()), images, out, options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_split": "test"}, "^memory: no sample is of the source's split 'test'; .* report on 'val' instead"),
        ({"unseen": ["p3"]}, "^memory: no sample is of the source's split 'test'"),
        ({"test_split": "val", "unseen": ["ana"]}, "^memory: unseen: 1 of 1 people are not in the data, such as 'ana'"),
    ],
)
def test_splits_of_the_source_that_cannot_be_followed(
    source: Source, images: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SplitsError, match=message):
        prepare(with_test_images(source()), images, tmp_path / "out", PrepareOptions(name="people", **changes))
    assert not (tmp_path / "out").exists()


def test_a_source_without_splits_has_none_to_follow(source: Source, images: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitsError, match=r"^memory: the source names no splits, so test_split cannot be followed"):
        prepare(source(), images, tmp_path, PrepareOptions(name="people", test_split="val"))
    with pytest.raises(
        PrepareError, match="test_share is for splits that are made, test_split for those of the source"
    ):
        PrepareOptions(name="people", test_split="val", test_share=0.1)


def test_samples_per_person(source: Source, images: Path, tmp_path: Path) -> None:
    options = PrepareOptions(name="people", samples_per_person=8, unseen_people=0)
    prepare(source(), images, tmp_path / "out", options)
    samples = read_samples(tmp_path / "out" / "samples.jsonl")
    assert set(Counter(sample.subject for sample in samples).values()) == {8}
    assert "Of 120 samples, 80 are kept: at most 8 a person." in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(PrepareError, match="samples_per_person must be 1 or more"):
        PrepareOptions(name="people", samples_per_person=0)


def test_the_same_sample_again_is_passed_over(source: Source, images: Path, tmp_path: Path) -> None:
    twice = SampleStream(iter([*source(people=3), *source(people=1)]), ReadReport("twice"))
    prepare(twice, images, tmp_path / "out", PrepareOptions(name="people", unseen_people=0))
    assert len(read_samples(tmp_path / "out" / "samples.jsonl")) == 36
    repeated = json.loads((tmp_path / "out" / "report.json").read_text())["repeated"]
    assert (repeated["count"], repeated["first"][0]) == (12, "memory:1")


def test_what_fails_leaves_what_was_there(source: Source, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(source(), images, out, OPTIONS)
    before = found(out)

    def broken(error: BaseException) -> SampleStream:
        def samples() -> Iterator[Sample]:
            yield from source(people=2)
            raise error

        return SampleStream(samples(), ReadReport("broken"))

    for error in (InvalidSampleError("line 3"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            prepare(broken(error), images, out, OPTIONS)
        assert found(out) == before
        with pytest.raises(type(error)):
            prepare(broken(error), images, tmp_path / "new", OPTIONS)
        assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(PrepareError, match="cannot be written"):
        prepare(source(), images, tmp_path / "file", OPTIONS)
