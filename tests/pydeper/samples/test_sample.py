import io
import math
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from PIL import Image

from pydeper.errors import InvalidArgumentError, InvalidImageError, InvalidSampleError
from pydeper.readers import write_samples
from pydeper.samples.sample import Sample, images
from pydeper.samples.trajectory import Fixation, Trajectory

BOX = (0.1, 0.2, 0.4, 0.6)
TRAJECTORY = Trajectory([Fixation(BOX, 0.3), Fixation((0, 0, 1, 1), 1)])


def test_a_file_object_is_held_as_its_bytes() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    sample = Sample(buffer, "a red field")
    assert sample == Sample(buffer.getvalue(), "a red field")
    buffer.close()
    assert sample.open_image().size == (3, 2)
    with pytest.raises(InvalidSampleError, match="binary mode"):
        Sample(io.StringIO("notes"), "notes")  # type: ignore[arg-type]


def test_a_sample_does_not_touch_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "open_image", lambda _: pytest.fail("opened"))
    sample = Sample("nowhere.jpg", "a dog")
    assert (sample.image, sample.description, sample.trajectory) == ("nowhere.jpg", "a dog", None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "description and trajectory are both missing; give at least one"),
        ({"description": ""}, "description is empty"),
        ({"description": " \n\t\u2003"}, "description is empty.*leave it out"),
        ({"description": 3}, "description must be text, not int 3"),
        ({"description": math.nan}, "description must be text, not float nan"),
        ({"description": b"dog"}, "not bytes"),
        ({"description": "half \ud83d"}, "half a surrogate pair at character 5"),
        ({"description": "dog", "subject": 7}, "subject must be text, not int 7"),
        ({"description": "dog", "subject": ""}, "subject is empty"),
        ({"description": "dog", "split": " "}, "split is empty"),
        ({"description": "dog", "trajectory": [(BOX, 1)]}, r"not list; use Trajectory\.from_arrays"),
        ({"description": "dog", "image": None}, "image must be a path.*not NoneType"),
        ({"description": "dog", "image": ""}, "empty path"),
    ],
)
def test_bad_samples(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSampleError, match=message):
        Sample(**{"image": "a.jpg", **fields})


def test_samples_compare_by_what_they_hold() -> None:
    array = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert Sample(array, "dog") == Sample(array.copy(), "dog")
    assert Sample(array, "dog") != Sample(array[::-1], "dog")
    assert Sample(Image.fromarray(array), "dog") == Sample(Image.fromarray(array), "dog")
    assert Sample("a.jpg", "dog", source="x:1") == Sample(Path("a.jpg"), "dog", source="y:2")
    assert Sample("a.jpg", "dog") != Sample("b.jpg", "dog")
    assert len({Sample(array, "dog"), Sample(array.copy(), "dog"), Sample("a.jpg", "dog")}) == 2


def test_samples_are_frozen_and_pickle() -> None:
    sample = Sample("a.jpg", "dog", TRAJECTORY, source="ana.jsonl:3")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        sample.description = "cat"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(sample))
    assert (copy, copy.source) == (sample, "ana.jsonl:3")


def test_opening_an_image_names_the_source(tmp_path: Path) -> None:
    path = tmp_path / "gone.jpg"
    with pytest.raises(InvalidImageError, match=r"^ana\.jsonl:3: image '.*gone\.jpg' does not exist"):
        Sample(path, "dog", source="ana.jsonl:3").open_image()
    with pytest.raises(InvalidImageError, match=r"^image '.*gone\.jpg' does not exist"):
        Sample(path, "dog").open_image()


def test_one_name_is_one_person_however_its_letters_are_composed() -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zoë Åström") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert Sample("a.jpg", decomposed, subject=decomposed) == Sample("a.jpg", decomposed, subject=composed)
    assert Sample("a.jpg", decomposed).description == decomposed  # what somebody said stays as they said it


def test_a_plot_does_not_replace_the_image_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    Image.new("RGB", (60, 40), "red").save(path)
    before = path.read_bytes()
    sample = Sample(path, trajectory=Trajectory.from_arrays([[0.1, 0.1, 0.3, 0.3]], [0.2]))
    with pytest.raises(InvalidArgumentError, match="would replace it: name another file"):
        sample.plot(tmp_path / "." / "scene.png")
    with pytest.raises(InvalidArgumentError, match="would replace it: name another file"):
        write_samples(path, [sample])
    assert path.read_bytes() == before
