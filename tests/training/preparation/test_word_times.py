"""The times of words beside the samples of a prepared folder."""

import json
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydeper import read_samples
from pydeper.errors import InvalidSampleError
from pydeper.readers import SampleStream, read_localized_narratives
from pydeper.readers.utterances import Utterance
from tests.support.images import random_image
from training.outputs import OutputError
from training.preparation.prepare import PrepareOptions, prepare, summary
from training.preparation.word_times import WordTimes, entry, word_times_line

OPTIONS = PrepareOptions(name="spoken", unseen_people=0)
SAID = [("A picture", 0.0, 0.4), ("of", 0.4, 0.8), ("noise.", 5.0, 6.0)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(12):
        random_image(20, 20, number).save(folder / f"{number}.jpg")
    return folder


def narratives(folder: Path, images: Path, *, timed: bool = True) -> SampleStream:
    points = [{"x": 0.1, "y": 0.5 + 0.01 * i, "t": 0.1 * i} for i in range(9)]
    said = [{"utterance": text, "start_time": start, "end_time": end} for text, start, end in SAID]
    lines = [
        {
            "dataset_id": "flickr30k",
            "image_id": str(number),
            "annotator_id": person,
            "caption": "A picture of noise.",
            "timed_caption": said if timed and number else [],
            "traces": [points],
        }
        for number in range(12)
        for person in range(2)
    ]
    path = folder / "ln.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_localized_narratives(path, images)


def test_a_prepared_folder_keeps_the_times_of_words(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "out"
    report = prepare(narratives(tmp_path, images), images, out, OPTIONS)
    assert summary(report, out).endswith("samples.jsonl, splits.json, report.json, README.md and word_times.jsonl")
    samples = read_samples(out / "samples.jsonl")
    times = WordTimes.beside(out / "samples.jsonl")
    timed = [sample for sample in samples if Path(str(sample.image)).name != "0.jpg"]
    assert len(timed) == 22
    for sample in timed:
        assert [(one.text, one.start, one.end) for one in times.of(sample)] == SAID
        assert [one.box is None for one in times.of(sample)] == [False, False, True]
    assert [times.of(sample) for sample in samples if sample not in timed] == [(), ()]
    assert times.of(attrs.evolve(timed[0], description="A picture of nothing.")) == ()


def test_samples_without_times_have_no_such_file(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "out"
    prepare(narratives(tmp_path, images), images, out, OPTIONS)
    prepare(narratives(tmp_path, images, timed=False), images, out, PrepareOptions(name="spoken"))
    assert not (out / "word_times.jsonl").exists()
    assert WordTimes.beside(out / "samples.jsonl").of(read_samples(out / "samples.jsonl")[0]) == ()


def test_times_that_prepare_did_not_write_are_never_replaced(tmp_path: Path, images: Path) -> None:
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out/word_times.jsonl"
    mine.write_text("mine")
    with pytest.raises(OutputError, match=r"holds word_times.jsonl"):
        prepare(narratives(tmp_path, images), images, tmp_path / "out", OPTIONS)
    assert mine.read_text() == "mine"


NUMBERS = st.floats(0, 1)
UTTERANCES = st.builds(
    lambda text, start, lasting, box: Utterance(
        text, start, start + lasting, box and (*map(min, *box), *map(max, *box))
    ),
    st.text(st.characters(exclude_categories=["Cs"])),
    NUMBERS,
    NUMBERS,
    st.none() | st.tuples(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS)),
)


@given(said=st.lists(UTTERANCES, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, said: list[Utterance]) -> None:
    folder = tmp_path_factory.mktemp("times")
    record = {"image": "a.png", "subject": "ana", "description": "a star"}
    (folder / "word_times.jsonl").write_bytes(word_times_line(record, list(map(entry, said))))
    assert WordTimes.beside(folder / "samples.jsonl").utterances == {("a.png", "ana", "a star"): tuple(said)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "image must be text"),
        ({"utterances": None}, r"utterances must be a list of \[text, start, end, box\]"),
        ({"utterances": [["a", 0.0, 1.0]]}, "an utterance must be"),
        ({"utterances": [["a", 0.0, "1", None]]}, "an utterance must be"),
        ({"utterances": [["a", 0.0, 1.0, [0.5, 0.5, 0.4, 0.6]]]}, "an utterance must be"),
        ({"utterances": [["a", 0.0, 1.0, [0.5, 0.5, 1.4, 0.6]]]}, "an utterance must be"),
        ({"utterances": [["a", 0.0, 1.0, [0.5, 0.5, None, 0.6]]]}, "an utterance must be"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    record = {"image": "a.png", "subject": "ana", "description": "a star", "utterances": []} | change
    (tmp_path / "word_times.jsonl").write_text("\n" + json.dumps(record))
    with pytest.raises(InvalidSampleError, match=rf"word_times.jsonl:2: {message}.*; prepare the data set again"):
        WordTimes.beside(tmp_path / "samples.jsonl")
