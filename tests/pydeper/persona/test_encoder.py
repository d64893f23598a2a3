"""The persona encoder of the built-in model, as the SDK runs it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pydeper
from pydeper import InvalidArgumentError, InvalidImageError, Sample
from pydeper.persona.encoder import PersonaEncoder
from tests.support.images import random_image
from tests.support.random_samples import make_sample

TINY = Path(pydeper.__file__).parent / "builtin" / "tiny"


@pytest.fixture(scope="module")
def encoder() -> PersonaEncoder:
    return PersonaEncoder.from_pretrained("tiny", device="cpu", threads=3)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Nineteen, more than are read at once, whose images are files."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    for seed in range(19):
        random_image(60 + 9 * seed, 100 - 3 * seed, seed).save(folder / f"{seed}.png")
        made.append(make_sample(seed, image=folder / f"{seed}.png", description="a red circle " * (1 + seed % 4)))
    return made


@pytest.mark.parametrize("batch_size", [None, 1, 3, 16, 40])
def test_vectors_come_in_the_samples_order_whatever_the_batch(
    encoder: PersonaEncoder, samples: list[Sample], batch_size: int | None
) -> None:
    together = encoder.embed(samples, batch_size=batch_size)
    alone = np.concatenate([encoder.embed([sample]) for sample in samples])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    distances = np.linalg.norm(alone[:, None] - alone, axis=-1)
    assert distances[~np.eye(19, dtype=bool)].min() > 0.1  # so that another order would show


def test_a_bad_image_far_back_is_named_by_its_number_among_all(
    encoder: PersonaEncoder, samples: list[Sample], tmp_path: Path
) -> None:
    bad = make_sample(0, image=tmp_path / "gone.png")
    with pytest.raises(InvalidImageError, match=r"sample 18 of 19: .*gone\.png"):
        encoder.embed([*samples[:17], bad, samples[18]])


def test_samples_may_share_an_image_that_is_not_decoded_yet(encoder: PersonaEncoder) -> None:
    buffer = io.BytesIO()
    random_image(900, 700, 3).save(buffer, "JPEG")
    picture = Image.open(io.BytesIO(buffer.getvalue()))
    vectors = encoder.embed([make_sample(1, image=picture)] * 8)
    expected = encoder.embed([make_sample(1, image=buffer.getvalue())])
    np.testing.assert_allclose(vectors, np.repeat(expected, 8, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_nothing_are_refused(encoder: PersonaEncoder, samples: list[Sample], batch_size: int) -> None:
    with pytest.raises(InvalidArgumentError, match=r"batch_size: must be 1 or more, .* got"):
        encoder.embed(samples, batch_size=batch_size)


def test_no_samples_give_no_vectors(encoder: PersonaEncoder) -> None:
    assert encoder.embed([]).shape == (0, 384)
