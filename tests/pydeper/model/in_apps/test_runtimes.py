"""One model on both runtimes: the same vectors and the same words, whoever made the persona."""

import pickle
from pathlib import Path

import numpy as np
import pytest

import pydeper
from pydeper import DeperModel, Persona
from tests.pydeper.model.in_apps.conftest import DEMO


@pytest.fixture(scope="module")
def on_openvino() -> DeperModel:
    return DeperModel.from_pretrained("tiny", device="cpu", threads=1, image_cache=0, runtime="openvino")


def test_vectors_are_the_same(tiny: DeperModel, on_openvino: DeperModel) -> None:
    samples = [*pydeper.read_samples(DEMO / "ana.jsonl"), *pydeper.read_samples(DEMO / "ben.jsonl")]
    np.testing.assert_allclose(on_openvino.embed(samples), tiny.embed(samples), atol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 1.5])
def test_descriptions_are_the_same(
    tiny: DeperModel, on_openvino: DeperModel, ana: Persona, ben: Persona, pictures: list[Path], strength: float
) -> None:
    for picture in pictures[:2]:
        found = on_openvino.describe_each(picture, [ana, ben], strength=strength)
        assert found == tiny.describe_each(picture, [ana, ben], strength=strength)
        assert "".join(on_openvino.stream(picture, ana, strength=strength)) == found[0]
    sampled = {"temperature": 1.0, "top_p": 0.9, "seed": 3, "max_new_tokens": 12}
    assert on_openvino.describe(pictures[0], ben, **sampled) == tiny.describe(pictures[0], ben, **sampled)


def test_rows_of_pictures_that_come_and_go_are_as_each_alone(
    on_openvino: DeperModel, ana: Persona, ben: Persona, pictures: list[Path]
) -> None:
    """Personas with a prompt longer than that of the plain question, and limits of their own."""
    requests = [
        (pictures[0], ana, {"max_new_tokens": 9}),
        (pictures[1], None, {"max_new_tokens": 4}),
        (pictures[2], ben, {"max_new_tokens": 7, "strength": 2.0}),
    ]
    joining = iter([requests[1:2], [], requests[2:]])
    texts = [""] * len(requests)
    for number, piece in on_openvino.stream_batch(requests[:1], more=lambda running: next(joining, [])):
        assert piece is None or isinstance(piece, str)
        texts[number] += piece or ""
    assert texts == [on_openvino.describe(image, persona, **options) for image, persona, options in requests]


def test_the_report_says_which_runtime_and_why(on_openvino: DeperModel) -> None:
    report = on_openvino.report()
    assert report.runtime.startswith("openvino 20")
    assert report.runtime.endswith(", as asked")
    assert report.provider == "CPU, as asked"
    assert report.vlm["provider"] == "CPU"


def test_a_pickled_model_is_loaded_on_its_runtime(on_openvino: DeperModel) -> None:
    assert pickle.loads(pickle.dumps(on_openvino)).report().runtime == on_openvino.report().runtime
