"""Images described into a file, in one run or in several."""

import json
import os
import sys
from pathlib import Path

import attrs
import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from pydeper import DeperModel, Persona
from pydeper.bulk.images import ImageRequest, describe_images, images_at_once
from pydeper.bulk.run import describe_to_file
from pydeper.errors import IncompatiblePersonaError, InvalidArgumentError, InvalidImageError
from pydeper.runtime.memory import OutOfMemoryError
from tests.support.images import random_image

SUFFIXES = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    for seed in range(5):
        random_image(60 + 10 * (seed % 2), 60, seed).save(tmp_path / f"{seed}.png")
    return [tmp_path / f"{seed}.png" for seed in range(5)]


def rows(path: Path) -> list[dict[str, str | None]]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def expected(model: DeperModel, images: list[Path], personas: dict[str, Persona]) -> list[dict[str, str | None]]:
    return [
        {"image": str(image), "persona": name, "description": model.describe(image, persona, max_new_tokens=4)}
        for image in images
        for name, persona in (personas or {None: None}).items()
    ]


@SUFFIXES
def test_every_image_is_described_by_everybody_once(model, ana, ben, images, tmp_path, suffix):
    path, personas, calls = tmp_path / f"out{suffix}", {"ana": ana, "ben": ben}, []
    done = describe_to_file(
        model, [*images, images[0]], personas, path, batch_size=2, max_new_tokens=4,
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert rows(path) == expected(model, images, personas)
    assert (done.described, done.there_before, done.failed) == (10, 0, {})
    assert calls == [(4, 10), (8, 10), (10, 10)]
    assert sorted(file.name for file in tmp_path.glob("out*")) == [f"out{suffix}", f"out{suffix}.run.json"]


@SUFFIXES
def test_a_second_run_describes_what_is_missing_alone(model, ana, images, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    describe_to_file(model, images[3:], {"ana": ana}, path, max_new_tokens=4)
    described: list[Path] = []
    done = describe_to_file(Watched(model, described), images, {"ana": ana}, path, max_new_tokens=4)
    assert described == [str(image) for image in images[:3]]
    assert (done.described, done.there_before) == (3, 2)
    assert rows(path) == expected(model, images[3:] + images[:3], {"ana": ana})
    before = path.stat()
    assert describe_to_file(model, images, {"ana": ana}, path, max_new_tokens=4).described == 0
    assert path.stat().st_mtime_ns == before.st_mtime_ns


class Watched:
    """A model that notes which images it is given, and may be interrupted before one of them."""

    def __init__(self, model: DeperModel, described: list[object], interrupted: object = None) -> None:
        self._model, self._described, self._interrupted = model, described, interrupted

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def encode_image(self, image: object) -> object:
        if image == self._interrupted:
            raise KeyboardInterrupt
        self._described.append(image)
        return self._model.encode_image(image)


@SUFFIXES
def test_an_interrupted_run_is_gone_on_with(model, ana, ben, images, tmp_path, suffix):
    path, personas = tmp_path / f"out{suffix}", {"ana": ana, "ben": ben}
    for stop, kept in ((images[2], 4), (images[4], 8)):
        with pytest.raises(KeyboardInterrupt):
            describe_to_file(
                Watched(model, [], str(stop)), images, personas, path, batch_size=1, max_new_tokens=4
            )  # fmt: skip
        journal = path if suffix == ".jsonl" else tmp_path / "out.parquet.part.jsonl"
        assert len(rows(journal)) == kept
    # One description of an image was lost, the other was not.
    journal.write_bytes(journal.read_bytes()[:-5])
    done = describe_to_file(model, images, personas, path, max_new_tokens=4)
    assert (done.described, done.there_before) == (3, 7)
    assert rows(path) == expected(model, images, personas)


def test_a_parquet_file_and_what_it_was_made_from_are_one_set_of_descriptions(model, ana, images, tmp_path):
    """The state that kill -9 leaves between writing the one and removing the other."""
    path, journal = tmp_path / "out.parquet", tmp_path / "out.parquet.part.jsonl"
    describe_to_file(model, images[:3], {"ana": ana}, path, max_new_tokens=4)
    lines = [json.dumps(row) + "\n" for row in rows(path)]
    journal.write_text("".join(lines))
    assert describe_to_file(model, images[:3], {"ana": ana}, path, max_new_tokens=4).there_before == 3
    assert not journal.exists()
    journal.write_text("".join(lines))
    assert describe_to_file(model, images, {"ana": ana}, path, max_new_tokens=4).described == 2
    assert rows(path) == expected(model, images, {"ana": ana})


@SUFFIXES
def test_images_that_fail_are_passed_over_named_and_tried_again(model, images, tmp_path, suffix):
    images[1].write_bytes(b"no image")
    missing, path = tmp_path / "missing.png", tmp_path / f"out{suffix}"
    done = describe_to_file(model, [missing, *images], {}, path, batch_size=3, max_new_tokens=4)
    assert {*done.failed} == {str(missing), str(images[1])}
    assert "does not exist" in done.failed[str(missing)]
    assert "not an image file" in done.failed[str(images[1])]
    assert rows(path) == expected(model, [images[0], *images[2:]], {})
    random_image(60, 60).save(images[1])
    again = describe_to_file(model, [missing, *images], {}, path, max_new_tokens=4)
    assert ({*again.failed}, again.described, again.there_before) == ({str(missing)}, 1, 4)


@SUFFIXES
def test_a_run_in_which_every_image_fails_leaves_an_empty_file(model, tmp_path, suffix):
    done = describe_to_file(model, ["none.png"], {}, tmp_path / f"out{suffix}", max_new_tokens=4)
    assert ([*done.failed], rows(tmp_path / f"out{suffix}")) == (["none.png"], [])


@SUFFIXES
def test_descriptions_of_other_settings_are_not_mixed(model, ana, ben, images, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    describe_to_file(model, images[:1], {"ana": ana}, path, max_new_tokens=4)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for personas, options, complaint in (
        ({"ana": ana}, {"max_new_tokens": 5}, "max_new_tokens 4 there, 5 here"),
        ({"ana": ben}, {"max_new_tokens": 4}, "persona 'ana' was another one"),
        ({}, {"max_new_tokens": 4}, "persona 'ana' is in those alone"),
    ):
        with pytest.raises(InvalidArgumentError, match=complaint) as error:
            describe_to_file(model, images, personas, path, **options)
        assert f"name another output, or delete {path.name} to begin anew" in str(error.value)
    (tmp_path / f"out{suffix}.run.json").unlink()
    with pytest.raises(InvalidArgumentError, match=f"is there already, and without out{suffix}.run.json"):
        describe_to_file(model, images, {"ana": ana}, path, max_new_tokens=4)
    del before[tmp_path / f"out{suffix}.run.json"]
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    path.unlink()
    assert describe_to_file(model, images[:1], {}, path, max_new_tokens=5).described == 1


def test_what_is_no_run_is_refused(model, ana, images, tmp_path):
    for output, arguments, complaint in (
        ("out.csv", {}, r"must end in \.jsonl or \.parquet"),
        ("out.jsonl", {"batch_size": 0}, "batch_size: must be a whole number from 1 on, got 0"),
        ("out.jsonl", {"style": "poem"}, "style"),
        ("out.jsonl", {"max_new_tokens": 0}, "max_new_tokens"),
    ):
        with pytest.raises(InvalidArgumentError, match=complaint):
            describe_to_file(model, images, {}, tmp_path / output, **arguments)
    for pictures, people, complaint in (
        (str(images[0]), {}, "images: must be a list of paths, got str"),
        ([images[0], b"image"], {}, "images: number 2 must be a path, got bytes"),
        (images, [ana], "personas: must be a mapping .*, got list"),
        (images, {"ana": "ana.safetensors"}, "persona: must be a pydeper.Persona, got str"),
    ):
        with pytest.raises(InvalidArgumentError, match=complaint):
            describe_to_file(model, pictures, people, tmp_path / "out.jsonl")
    stranger = attrs.evolve(ana, encoder_fingerprint="another")
    with pytest.raises(IncompatiblePersonaError):
        describe_to_file(model, images, {"ana": stranger}, tmp_path / "out.jsonl")
    assert not [*tmp_path.glob("out*")]
    (tmp_path / "full.jsonl").symlink_to("/dev/null")
    with pytest.raises(InvalidArgumentError, match=r"full\.jsonl: is a pipe or a device"):
        describe_to_file(model, images, {}, tmp_path / "full.jsonl")
    (tmp_path / "out.parquet").write_bytes(b"damaged")
    (tmp_path / "out.parquet.run.json").write_text("{}")
    with pytest.raises(InvalidArgumentError, match=r"out.parquet.run.json: .*format_version"):
        describe_to_file(model, images, {}, tmp_path / "out.parquet")
    (tmp_path / "out.parquet").unlink()
    describe_to_file(model, images[:1], {}, tmp_path / "out.parquet", max_new_tokens=2)
    (tmp_path / "out.parquet").write_bytes(b"damaged")
    with pytest.raises(InvalidArgumentError, match=r"out.parquet: cannot be read as Parquet .*delete it"):
        describe_to_file(model, images, {}, tmp_path / "out.parquet", max_new_tokens=2)


def test_without_pyarrow_parquet_is_refused_with_the_remedy(model, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InvalidArgumentError, match=r"pip install 'pydeper\[parquet\]'"):
        describe_to_file(model, images, {}, tmp_path / "out.parquet")
    assert not [*tmp_path.glob("out*")]


@SUFFIXES
@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_file_name_that_is_no_text_is_described_once(model, tmp_path, suffix):
    name = os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")
    try:
        random_image(60, 60).save(name)
    except (OSError, UnicodeError):
        pytest.skip("this file system takes no such names")
    for described in (1, 0):
        done = describe_to_file(model, [name], {}, tmp_path / f"out{suffix}", max_new_tokens=2)
        assert (done.described, done.failed) == (described, {})
    assert rows(tmp_path / f"out{suffix}")[0]["image"].endswith(r"caf\udce9.png")


# --- images described together


@pytest.mark.parametrize(("people", "images"), [(0, 8), (1, 8), (2, 4), (3, 8), (4, 2), (8, 1), (12, 2), (80, 1)])
def test_batches_are_filled_by_the_fewest_images(people: int, images: int) -> None:
    assert images_at_once(people, 8) == images


def test_each_image_has_its_own_people(model, ana, ben):
    pictures = [random_image(60, 60, seed) for seed in range(3)]
    requests = [ImageRequest(pictures[0], [ben, ana]), ImageRequest(pictures[1]), ImageRequest(pictures[2], [ana])]
    assert describe_images(model, requests, {"max_new_tokens": 4}) == [
        model.describe_each(pictures[0], [ben, ana], max_new_tokens=4),
        [model.describe(pictures[1], max_new_tokens=4)],
        [model.describe(pictures[2], ana, max_new_tokens=4)],
    ]
    assert describe_images(model, [], {}) == []


def test_an_image_that_is_too_much_for_the_memory_keeps_the_others_up_in_no_way(model, ana):
    """Stands for the decoder's memory, which no test can run out of on every machine."""

    class Short(Watched):
        def describe_batch(self, pairs: list[object], **options: object) -> list[str]:
            raise OutOfMemoryError("8 rows are too many")

        def describe(self, image: object, *arguments: object, **options: object) -> str:
            if image in large:
                raise OutOfMemoryError("one row is too many")
            return self._model.describe(image, *arguments, **options)

    pictures = [random_image(60, 60, seed) for seed in range(3)]
    large = [model.encode_image(pictures[1])]
    requests = [ImageRequest(picture) for picture in pictures[:1] + large + pictures[2:]]
    first, second, third = describe_images(Short(model, []), requests, {"max_new_tokens": 4})
    assert [first, third] == [[model.describe(picture, max_new_tokens=4)] for picture in pictures[::2]]
    assert isinstance(second, OutOfMemoryError)


def test_an_image_with_too_many_tokens_is_its_own_error(model):
    """As a page scanned in one long strip has them; the context of the small model holds few."""
    requests = [
        ImageRequest(random_image(60, 60)),
        ImageRequest(Image.fromarray(np.zeros((1, 4000, 3), np.uint8))),
    ]
    good, bad = describe_images(model, requests, {"max_new_tokens": 4})
    assert good == [model.describe(requests[0].image, max_new_tokens=4)]
    assert isinstance(bad, InvalidImageError | InvalidArgumentError)
