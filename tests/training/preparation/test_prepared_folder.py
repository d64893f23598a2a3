"""`prepare` replaces what it wrote itself, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pydeper import Sample
from pydeper.readers import ReadReport, SampleStream
from tests.support.images import write_images
from training.outputs import OutputError
from training.preparation.prepare import PrepareOptions, prepare
from training.preparation.prepared_folder import FILES
from training.preparation.splits import read_splits


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images")
    return tmp_path / "images"


def run(images: Path, out: Path, splits: Path | None = None) -> None:
    files = sorted(images.iterdir())[:12]
    samples = [Sample(image=file.resolve(), description=f"words on {file.stem}", subject="ana") for file in files]
    unseen = 0 if splits is None and not (out / "splits.json").exists() else None
    options = PrepareOptions(name="people", splits=splits, unseen_people=unseen)
    prepare(SampleStream(iter(samples), ReadReport("memory")), images, out, options)


@pytest.mark.parametrize("name", FILES)
def test_files_of_others_stay(name: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text('{"mine": true}\n')
    with pytest.raises(ValueError, match=name):
        run(images, out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: '{"mine": true}\n'}


@pytest.mark.parametrize("name", ["samples.jsonl", "report.json", "README.md"])
def test_files_that_were_changed_since_stay(name: str, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(images, out)
    run(images, out)
    changed = (out / name).read_text().replace("people", "our people").replace("words", "my words")
    (out / name).write_text(changed.replace('"written": 12', '"written": 13'))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(OutputError, match=f"{name}.* and has not written, or not as it is now: name another folder"):
        run(images, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_splits_file_that_is_kept_to_stays_to_the_letter(images: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    run(images, other)
    run(images, out)
    run(images, out, splits=other / "splits.json")  # the folder's own was made here, and may be replaced
    by_hand = (out / "splits.json").read_text().replace("\n", "")
    (out / "splits.json").write_text(by_hand)
    run(images, out)
    run(images, out, splits=out / "splits.json")
    assert (out / "splits.json").read_text() == by_hand
    assert read_splits(out / "splits.json") == read_splits(other / "splits.json")
    with pytest.raises(OutputError, match=r"splits\.json"):
        run(images, out, splits=other / "splits.json")


def test_a_splits_file_is_read_before_the_samples(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "splits.json").write_text('{"mine": true}')

    def samples() -> Iterator[Sample]:
        pytest.fail("samples were read")
        yield  # which makes it a generator

    for options in (PrepareOptions(name="people"), PrepareOptions(name="people", splits=tmp_path / "missing.json")):
        with pytest.raises(ValueError, match=r"splits\.json|missing\.json"):
            prepare(SampleStream(samples(), ReadReport("memory")), images, tmp_path / "out", options)


def test_a_link_to_the_source_is_not_followed(images: Path, tmp_path: Path) -> None:
    (tmp_path / "source.jsonl").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.jsonl").symlink_to(tmp_path / "source.jsonl")
    with pytest.raises(OutputError, match=r"samples\.jsonl"):
        run(images, tmp_path / "out")
    assert (tmp_path / "source.jsonl").read_text() == "mine"
