"""Many images and many people at once."""

import gc
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

from pydeper import (
    DeperModel,
    IncompatiblePersonaError,
    InvalidArgumentError,
    InvalidImageError,
    Persona,
    PydeperError,
)
from tests.pydeper.model.in_apps.watched import watch
from tests.support.images import random_image

SHORT = {"max_new_tokens": 8}


def test_a_batch_is_describe_for_each_pair(
    tiny: DeperModel,
    ana: Persona,
    ben: Persona,
    pictures: list[Path],
) -> None:
    watched = watch(tiny)
    images = [pictures[0], pictures[1].read_bytes(), Image.open(pictures[2]), str(pictures[3]), pictures[0]]
    pairs = [(image, who) for who in (ana, None, ben, ana) for image in images]
    options: dict[str, Any] = {"style": "caption" if "caption" in tiny.styles else "description", **SHORT}
    for further in ({}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}, {"strength": 1.5, "repetition_penalty": 1.2}):
        watched.encoded.clear()
        watched.rows.clear()
        found = tiny.describe_batch(iter(pairs), **options, **further)
        assert len(watched.encoded) == 4
        assert watched.held_at_once <= 8
        assert max(watched.rows) <= 8
        assert sum(watched.rows) == len(pairs)
        assert found == [tiny.describe(image, who, **options, **further) for image, who in pairs]
    gc.collect()
    assert watched.alive() == 0


def test_a_batch_of_many_images_holds_few_at_once(tiny: DeperModel, ana: Persona) -> None:
    watched = watch(tiny)
    images = [random_image(84, 84, seed) for seed in range(20)]
    texts = tiny.describe_batch([(image, ana) for image in images] + [(images[7], ana)], max_new_tokens=2)
    assert texts[7] == texts[20]
    assert len(watched.encoded) == 20
    assert watched.held_at_once <= 8


def test_a_batch_takes_encoded_images_among_others(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    seen = tiny.encode_image(pictures[0])
    watched = watch(tiny)
    texts = tiny.describe_batch([(pictures[1], ana), (seen, ana), (seen, None), (pictures[0], ana)], **SHORT)
    assert texts[1] == texts[3] == tiny.describe(seen, ana, **SHORT)
    assert texts[2] == tiny.describe(seen, **SHORT)
    assert len(watched.encoded) == 2


def test_an_empty_batch_is_no_work(tiny: DeperModel) -> None:
    assert tiny.describe_batch([]) == []
    with pytest.raises(InvalidArgumentError, match="temperature"):
        tiny.describe_batch([], temperature=-1)


@pytest.mark.parametrize(
    ("third", "options", "error", "told"),
    [
        (("nowhere.png", None), {}, InvalidImageError, r"^pair 3 of 3: image 'nowhere.png' does not exist"),
        ((b"cut", None), {}, InvalidImageError, r"^pair 3 of 3: image given as 3 bytes"),
        ((None, None), {}, InvalidImageError, r"^pair 3 of 3: NoneType None is not an image"),
        (("SCENE", "ana.safetensors"), {}, InvalidArgumentError, r"^pair 3 of 3: persona: .* got str; read a persona"),
        (("SCENE", "STRANGER"), {}, IncompatiblePersonaError, r"^pair 3 of 3: persona 'ana' was made by"),
        (("FOREIGN", None), {}, InvalidArgumentError, r"^pair 3 of 3: .* encoded by another model"),
        ("SCENE", {}, InvalidArgumentError, r"pair 3 of 3 must be \(image, persona\).* got PosixPath"),
        (("SCENE", None, None), {}, InvalidArgumentError, r"pair 3 of 3 must be .* got tuple of length 3"),
        (("SCENE", None), {"style": "poem"}, InvalidArgumentError, "'tiny' knows"),
        (("SCENE", None), {"repetition_penalty": 0.5}, InvalidArgumentError, "repetition_penalty must be 1"),
    ],
)
def test_mistakes_in_a_batch_are_told_before_anything_is_computed(
    tiny: DeperModel,
    cached: DeperModel,
    ana: Persona,
    pictures: list[Path],
    third: Any,
    options: dict[str, Any],
    error: type[PydeperError],
    told: str,
) -> None:
    known = {
        "SCENE": pictures[0],
        "STRANGER": attrs.evolve(ana, encoder_fingerprint="sha256:0"),
        "FOREIGN": cached.encode_image(pictures[0]),
    }
    if isinstance(third, tuple):
        third = tuple(known.get(part, part) if isinstance(part, str) else part for part in third)
    else:
        third = known[third]
    watched = watch(tiny)
    with pytest.raises(error, match=told):
        tiny.describe_batch([(pictures[0], ana), (pictures[1], None), third], **options)
    assert watched.encoded == []


@pytest.mark.parametrize("pairs", [None, 7, "scene.png", {"scene.png": None}])
def test_what_is_no_list_of_pairs_is_refused(tiny: DeperModel, pairs: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^pairs: must be pairs .* got {type(pairs).__name__}$"):
        tiny.describe_batch(pairs)


@pytest.mark.parametrize("personas", [None, 7, "ana.safetensors"])
def test_what_is_no_list_of_personas_is_refused(tiny: DeperModel, pictures: list[Path], personas: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^personas: must be a list .* got {type(personas).__name__}$"):
        tiny.describe_each(pictures[0], personas)


def test_an_option_that_does_not_exist_is_named_with_those_that_do(tiny: DeperModel, pictures: list[Path]) -> None:
    for describe in (tiny.stream, tiny.describe_each, tiny.describe_batch):
        with pytest.raises(TypeError, match="'beams' is no option; the options are style, max_new_tokens"):
            describe(pictures[0], [], beams=3) if describe != tiny.describe_batch else describe([], beams=3)


def test_an_encoded_image_shows_what_it_is_in_a_line(tiny: DeperModel, pictures: list[Path]) -> None:
    shown = repr(tiny.encode_image(pictures[0]))
    assert re.fullmatch(r"EncodedImage\(81 image tokens, grid 1×18×18 patches, [\d.]+ (bytes|KiB|MiB)\)", shown), shown


def test_an_image_that_goes_while_the_batch_runs_is_named(
    tiny: DeperModel, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "one.png", tmp_path / "other.png"]
    for path, picture in zip(paths, pictures, strict=False):
        path.write_bytes(picture.read_bytes())
    watched = watch(tiny)
    encode = watched.encode_image

    def encode_while_files_go(image: Image.Image) -> Any:
        for path in paths:
            path.unlink()
        return encode(image)

    monkeypatch.setattr(watched, "encode_image", encode_while_files_go)
    with pytest.raises(InvalidImageError, match=r"^pair (1 of 2: .*one|2 of 2: .*other)\.png' does not exist"):
        tiny.describe_batch([(path, None) for path in paths], **SHORT)
    assert len(watched.encoded) == 1
