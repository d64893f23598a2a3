"""What Ray Data's `map_batches` takes, called as an actor of Ray calls it."""

import pickle
import sys

import attrs
import fsspec
import numpy as np
import pytest

from pydeper import Persona
from pydeper.errors import BundleError, IncompatiblePersonaError, InvalidArgumentError, PersonaError
from pydeper.ray import Describer
from tests.support.images import random_image


def png(width: int, seed: int) -> bytes:
    import io

    file = io.BytesIO()
    random_image(width, 60, seed).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def describer(bundle_folder, ana, ben):
    people = {"ana": ana, "ben": ben}
    return Describer(people, bundle_folder, options={"max_new_tokens": 4}, device="cpu", threads=1)


def column(*values: object) -> np.ndarray:
    """As Ray makes columns of what has no dtype of its own."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def texts(model, image, *personas: Persona) -> list[str]:
    return model.describe_each(image, personas, max_new_tokens=4)


def test_every_image_has_one_row_a_persona(describer, model, ana, ben, tmp_path):
    paths = [str(tmp_path / f"{seed}.png") for seed in range(3)]
    for seed, path in enumerate(paths):
        random_image(60, 60, seed).save(path)
    batch = {"id": np.array([7, 8, 9]), "image": np.array(paths)}
    described = describer(batch)
    assert [*described] == ["id", "image", "persona", "description", "error"]
    assert described["id"].tolist() == [7, 7, 8, 8, 9, 9]
    assert described["image"].tolist() == [path for path in paths for _ in range(2)]
    assert described["persona"].tolist() == ["ana", "ben"] * 3
    assert described["description"].tolist() == [text for path in paths for text in texts(model, path, ana, ben)]
    assert described["error"].tolist() == [None] * 6


def test_images_come_from_wherever_fsspec_finds_them(describer, model, ana, ben):
    fsspec.filesystem("memory").pipe_file("/pictures/1.png", png(60, 1))
    described = describer({"image": np.array(["memory://pictures/1.png", "memory://pictures/2.png", "nowhere://1"])})
    assert described["description"].tolist() == [*texts(model, png(60, 1), ana, ben), *[None] * 4]
    errors = described["error"].tolist()
    assert errors[:2] == [None, None]
    assert "image 'memory://pictures/2.png' cannot be read" in errors[2]
    assert "Protocol not known: nowhere" in errors[4]


def test_images_in_the_batch_itself_are_not_repeated(describer, model, ana, ben):
    contents = [png(60, 1), b"no image", None, png(80, 2)]
    described = describer({"photo": np.arange(4), "image": column(*contents)})
    assert [*described] == ["photo", "persona", "description", "error"]
    assert described["photo"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert described["description"].tolist() == [
        *texts(model, contents[0], ana, ben), *[None] * 4, *texts(model, contents[3], ana, ben)
    ]  # fmt: skip
    assert [error is None for error in described["error"]] == [True, True, False, False, False, False, True, True]
    pixels = np.stack([np.asarray(random_image(60, 60, seed)) for seed in range(2)])
    described = describer({"image": pixels})
    assert described["description"].tolist() == [text for picture in pixels for text in texts(model, picture, ana, ben)]


def test_without_personas_the_model_alone_describes(bundle_folder, model):
    describer = Describer(model=bundle_folder, image="bytes", options={"max_new_tokens": 4, "style": "caption"})
    described = describer({"bytes": column(png(60, 1))})
    assert described["persona"].tolist() == [None]
    assert described["description"].tolist() == [model.describe(png(60, 1), max_new_tokens=4, style="caption")]
    assert all(values.tolist() == [] for values in describer({"bytes": column()}).values())


def test_personas_may_be_files(bundle_folder, model, ana, ben, tmp_path):
    ana.save(tmp_path / "ana.safetensors")
    ben.save(tmp_path / "ben.safetensors")
    fsspec.filesystem("memory").pipe_file("/people/ben.safetensors", (tmp_path / "ben.safetensors").read_bytes())
    people = {"ana": tmp_path / "ana.safetensors", "ben": "memory://people/ben.safetensors"}
    described = Describer(people, bundle_folder, options={"max_new_tokens": 4})({"image": column(png(60, 1))})
    assert described["description"].tolist() == texts(model, png(60, 1), ana, ben)


def test_what_it_is_made_from_can_be_sent_to_an_actor(bundle_folder, ana):
    arguments = {"personas": {"ana": ana}, "model": bundle_folder, "options": {"max_new_tokens": 4}}
    made, sent = Describer(**arguments), pickle.loads(pickle.dumps((Describer, arguments)))
    batch = {"image": column(png(60, 1))}
    assert made(batch)["description"].tolist() == sent[0](**sent[1])(batch)["description"].tolist()


def test_a_model_in_an_actor_has_as_many_threads_as_the_actor_has_cpus(bundle_folder, monkeypatch):
    """A stand-in for Ray, which `make test-ray` has itself."""

    class Ray:
        is_initialized = staticmethod(lambda: True)
        get_runtime_context = classmethod(lambda cls: cls)
        get_assigned_resources = staticmethod(lambda: {"CPU": 2.0})

    asked = []
    monkeypatch.setattr(
        "pydeper.ray.DeperModel.from_pretrained", lambda name, **settings: asked.append(settings) or 1 / 0
    )
    for threads in ({}, {"threads": 3}):
        monkeypatch.setitem(sys.modules, "ray", Ray)
        with pytest.raises(ZeroDivisionError):
            Describer(model=bundle_folder, vlm="http://vllm:8000/v1", **threads)
    monkeypatch.delitem(sys.modules, "ray")
    with pytest.raises(ZeroDivisionError):
        Describer(model=bundle_folder)
    assert [settings["threads"] for settings in asked] == [2, 3, None]
    assert asked[0]["vlm"] == "http://vllm:8000/v1"


def test_mistakes_are_found_when_it_is_made(bundle_folder, ana, tmp_path):
    for arguments, kind, complaint in (
        ({"personas": [ana]}, InvalidArgumentError, "personas: must be a mapping .* got list"),
        ({"personas": {"ana": tmp_path / "none"}}, PersonaError, "persona '.*none' cannot be read"),
        ({"personas": {"ana": bundle_folder / "config.json"}}, PersonaError, "persona '.*config.json' cannot be read"),
        ({"personas": {"ana": 3}}, InvalidArgumentError, "personas: must be personas or the paths .* got 3"),
        ({"personas": {"a": attrs.evolve(ana, encoder_fingerprint="x")}}, IncompatiblePersonaError, "encoder"),
        ({"options": {"style": "poem"}}, InvalidArgumentError, "style"),
        ({"model": tmp_path / "none"}, BundleError, "none"),
    ):
        with pytest.raises(kind, match=complaint):
            Describer(**{"model": bundle_folder, **arguments})


def test_a_batch_of_other_columns_is_an_error(describer):
    with pytest.raises(InvalidArgumentError, match="image: there is no column 'image', only 'path'"):
        describer({"path": np.array(["a.png"])})
    with pytest.raises(InvalidArgumentError, match="has a column 'error' already"):
        describer({"image": np.array(["a.png"]), "error": np.array([0])})
