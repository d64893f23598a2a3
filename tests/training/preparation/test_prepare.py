import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pydeper import Fixation, Sample, Trajectory, read_samples
from pydeper.errors import InvalidSampleError
from pydeper.readers import ReadReport, SampleStream
from tests.support.paths import ROOT
from training.__main__ import main
from training.preparation.prepare import PrepareError, PrepareOptions, prepare
from training.preparation.splits import (
    LEFT_OUT,
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
    SplitsError,
    first_of_each,
    make_splits,
    read_splits,
    write_splits,
)

Source = Callable[..., SampleStream]
OPTIONS = PrepareOptions(name="people")
FILES = {"samples.jsonl", "splits.json", "report.json", "README.md"}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (8, 6)).save(folder / "sub" / f"{number}.png")
    return folder


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


# Splits

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


# The folder


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
        assert found(tmp_path / "new") == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(PrepareError, match="cannot be written"):
        prepare(source(), images, tmp_path / "file", OPTIONS)


# The command


def narrations(path: Path, count: int, people: int = 3) -> Path:
    with path.open("w") as file:
        for i in range(count):
            points = [{"x": 0.3, "y": 0.4, "t": 0.02 * j} for j in range(20)]
            record = {"dataset_id": "flickr30k_train", "image_id": str(i % 40), "annotator_id": i % people}
            file.write(json.dumps(record | {"caption": f"Text {i}.", "traces": [points]}) + "\n")
    return path


def test_the_command_reads_localized_narratives(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = narrations(tmp_path / "ln.jsonl", 60)
    command = ["prepare", "localized-narratives", str(file), "--images", str(images / "sub"), "--out"]
    more = ["--image-pattern", "{image_id}.png", "--unseen-people", "1", "--test-share", "0.3"]
    assert main([*command, str(tmp_path / "idt"), *more]) == 0
    assert "ln.jsonl: 60 samples" in capsys.readouterr().out
    windows = ["--method", "windows", "--window", "0.1"]
    assert main([*command, str(tmp_path / "windows"), *more, *windows]) == 0
    counts = [len(read_samples(tmp_path / way / "samples.jsonl")[0].trajectory or ()) for way in ("idt", "windows")]
    assert counts == [1, 4]
    for wrong, message in (
        (["--window", "0.1"], "--window is of fixed windows"),
        (["--method", "windows", "--dispersion", "0.1"], "--dispersion and --min-duration are of I-DT"),
        (["--dispersion", "0"], "dispersion must be above 0"),
        (["--max-damaged", "-1"], "damaged must be a whole number"),
        (["--image-pattern", "{image_id}.jpg"], "ln.jsonl:1: image '0.jpg' is not in"),
    ):
        assert main([*command, str(tmp_path / "wrong"), *more, *wrong]) == 2
        assert f"python -m training prepare: {message}" in capsys.readouterr().err.replace(f"{tmp_path}/", "")
    assert not list((tmp_path / "wrong").glob("*"))


def test_the_command_reads_fixation_reports(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"s{p}\t{i}\t{i}.png\t0\t200\t50\t50" for p in range(2) for i in range(7)]
    header = "RECORDING_SESSION_LABEL\tTRIAL_INDEX\tpicture\tCURRENT_FIX_START\tCURRENT_FIX_DURATION"
    report = tmp_path / "report.tsv"
    report.write_text("\n".join([header + "\tCURRENT_FIX_X\tCURRENT_FIX_Y", *rows]))
    command = ["prepare", "fixation-report", str(report), "--format", "eyelink", "--images", str(images / "sub")]
    command += ["--rectangle", "0", "0", "100", "100", "--out", str(tmp_path / "out"), "--radius", "10"]
    command += ["--radius-unit", "px"]
    assert main(command) == 2
    assert "image: the format has no column for it" in capsys.readouterr().err
    assert main([*command, "--column", "picture"]) == 2
    assert "write ROLE=NAME" in capsys.readouterr().err
    assert main([*command, "--column", "image=picture"]) == 0
    fixations = read_samples(tmp_path / "out" / "samples.jsonl")[0].trajectory or ()
    assert [fixation.box for fixation in fixations] == [pytest.approx((0.4, 0.4, 0.6, 0.6))]


def test_the_command_reads_capgaze(images: Path, tmp_path: Path) -> None:
    gaze = {"time_stamp": [0.02 * i for i in range(20)], "left_eye": [(0.5, 0.5)] * 20, "right_eye": [None] * 20}
    record = np.array(gaze | {"dominant_eye": 0}, dtype=object)
    for folder in ("gaze_converted_2/1/gaze", "transcribed_text/1", "images"):
        (tmp_path / "capgaze" / folder).mkdir(parents=True)
    for i in range(12):
        np.save(tmp_path / "capgaze" / "gaze_converted_2" / "1" / "gaze" / f"{i}.npy", record, allow_pickle=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "capgaze" / "images" / f"{i}.jpg")
    (tmp_path / "capgaze" / "transcribed_text" / "1" / "3.json").write_text('{"text": "a dog"}')
    command = ["prepare", "capgaze", str(tmp_path / "capgaze"), "--unseen-people", "0", "--out"]
    assert main([*command, str(tmp_path / "all"), "--without-description", "keep", "--eye", "mean"]) == 0
    assert len(read_samples(tmp_path / "all" / "samples.jsonl")) == 12
    assert main([*command, str(tmp_path / "told")]) == 0
    (sample,) = read_samples(tmp_path / "told" / "samples.jsonl")
    assert (sample.description, sample.split, len(sample.trajectory or ())) == ("a dog", "train", 1)


def test_the_command_reads_the_released_codes_json(images: Path, tmp_path: Path) -> None:
    boxes = {"X": [1], "Y": [1], "T": [0.2], "bboxes": [[0, 0, 4, 3]]}
    entries = [{"name": f"{i}.png", "caption": "c", "subject": 1, "split": "train"} | boxes for i in range(3)]
    file = tmp_path / "data.json"
    file.write_text(json.dumps(entries))
    command = ["prepare", "deper-json", str(file), "--images", str(images / "sub"), "--out", str(tmp_path / "out")]
    assert main([*command, "--boxes", "pixels"]) == 0
    assert [sample.split for sample in read_samples(tmp_path / "out" / "samples.jsonl")] == ["train"] * 3


def test_ctrl_c_leaves_nothing_half_written(images: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "ln.jsonl"
    os.mkfifo(pipe)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "training", "prepare", "localized-narratives", str(pipe), "--out", str(out)]
    command += ["--images", str(images / "sub"), "--image-pattern", "{image_id}.png"]
    project = ROOT
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as process:
        with pipe.open("w") as file:  # opens once the command reads; then it waits for more
            file.write(narrations(tmp_path / "some.jsonl", 50).read_text())
            file.flush()
            while not list(out.glob(".*")):
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert process.stderr.read().endswith("interrupted; nothing was written\n")
        assert process.wait() == 130
    assert list(out.iterdir()) == []
