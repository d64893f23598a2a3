"""An image is encoded once, and kept as long as it is asked for."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pydeper import (
    DeperModel,
    InvalidArgumentError,
    Persona,
)
from tests.pydeper.model.in_apps.watched import watch

SHORT = {"max_new_tokens": 8}


def test_an_image_is_encoded_once_however_it_is_given(cached: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    watched = watch(cached)
    with Image.open(pictures[0]) as opened:
        array = np.asarray(opened.convert("RGB"))
    for image in (pictures[0], str(pictures[0]), pictures[0].read_bytes(), array, Image.fromarray(array)):
        cached.describe(image, ana, **SHORT)
        list(cached.stream(image, **SHORT))
        cached.describe_each(image, [ana], **SHORT)
        cached.describe_batch([(image, ana)], **SHORT)
        assert cached.encode_image(image) is watched.encoded[0]()
    assert len(watched.encoded) == 1
    report = cached.report()
    assert report.cached_images == 1
    assert report.cached_bytes == watched.encoded[0]().nbytes > 0
    cached.clear_image_cache()
    assert cached.report().cached_images == 0
    gc.collect()
    assert watched.alive() == 0
    cached.describe(pictures[0], ana, **SHORT)
    assert len(watched.encoded) == 2


def test_the_images_asked_for_last_are_kept(cached: DeperModel, pictures: list[Path]) -> None:
    watched = watch(cached)
    for number, encodings in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (2, 5)):
        cached.describe(pictures[number], **SHORT)
        assert len(watched.encoded) == encodings
    assert cached.report().cached_images == 2


def test_a_file_that_has_changed_is_another_image(
    cached: DeperModel, tiny: DeperModel, pictures: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "scene.png"
    for picture in (pictures[0], pictures[1], pictures[0]):
        path.write_bytes(picture.read_bytes())
        assert cached.describe(path, **SHORT) == tiny.describe(picture, **SHORT)


def test_without_a_cache_nothing_is_kept(tiny: DeperModel, pictures: list[Path]) -> None:
    watched = watch(tiny)
    for _ in range(2):
        tiny.describe(pictures[0], **SHORT)
    gc.collect()
    assert len(watched.encoded) == 2
    assert watched.alive() == 0
    assert (tiny.report().image_cache, tiny.report().cached_images) == (0, 0)


@pytest.mark.parametrize("images", [-1, 1.5, True, "4", None])
def test_an_impossible_cache_is_refused(images: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="image_cache: must be a whole number from 0"):
        DeperModel.from_pretrained("tiny", image_cache=images)
