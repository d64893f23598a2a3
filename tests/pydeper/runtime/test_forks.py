"""A model, and a process that is forked after it was loaded, or that gets a pickled one."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from pydeper import DeperModel, InvalidArgumentError
from pydeper.persona.encoder import PersonaEncoder
from tests.support.images import random_image
from tests.support.processes import FORKS, forked
from tests.support.random_samples import make_sample

SHORT = {"max_new_tokens": 4}


@FORKS
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_forked_child_is_told_to_load_its_own_and_ends(runtime: str) -> None:
    printed = forked(f"""
model = pydeper.DeperModel.from_pretrained("tiny", threads=2, runtime={runtime!r})
in_child(lambda: model.describe(scene, max_new_tokens=3))
in_child(lambda: model.embed(pydeper.read_samples(scene.replace("scene.png", "ana.jsonl"))))
in_child(lambda: None)
print(len(model.describe(scene, max_new_tokens=3)) > 0)
""")
    lines = printed.splitlines()
    assert [line for line in lines if line.startswith("exit status")] == ["exit status 7"] * 3
    assert sum(line.startswith("ForkedProcessError this model was loaded in process") for line in lines) == 2
    assert "post_fork" in printed
    assert lines[-1] == "True"  # the parent goes on


@FORKS
def test_a_stream_that_was_begun_before_the_fork_does_not_go_on_in_the_child() -> None:
    printed = forked("""
stream = pydeper.DeperModel.from_pretrained("tiny").stream(scene, max_new_tokens=6)
next(stream)
in_child(lambda: next(stream))
""")
    assert printed.startswith("ForkedProcessError")
    assert printed.endswith("exit status 7\n")


@FORKS
def test_the_default_model_is_loaded_anew_in_a_forked_child() -> None:
    printed = forked("""
before = pydeper.describe(scene, max_new_tokens=3)
in_child(lambda: print(pydeper.describe(scene, max_new_tokens=3) == before, flush=True))
in_child(lambda: print(pydeper.Persona.from_samples(
    pydeper.read_samples(scene.replace("scene.png", "ana.jsonl"))).num_samples, flush=True))
""")
    assert printed.splitlines() == ["True", "exit status 7", "5", "exit status 7"]


@FORKS
def test_a_child_of_a_process_whose_model_is_gone_ends_too() -> None:
    printed = forked("""
model = pydeper.DeperModel.from_pretrained("tiny")
del model
in_child(lambda: print("buffered by Python"))
""")
    assert printed == "buffered by Python\nexit status 7\n"


def test_a_pickled_model_is_loaded_again_from_where_its_bundle_is(model: DeperModel, bundle_folder: Path) -> None:
    again = pickle.loads(pickle.dumps(model))
    assert repr(again) == repr(model)
    assert again.report().threads == model.report().threads == 1
    image = random_image(60, 60, 1)
    assert again.describe(image, **SHORT) == model.describe(image, **SHORT)
    assert str(bundle_folder).encode() in pickle.dumps(model)  # a place, and no weights
    assert len(pickle.dumps(model)) < 1000


def test_a_pickled_persona_encoder_gives_the_same_vectors() -> None:
    encoder = PersonaEncoder.from_pretrained("tiny", device="cpu", threads=1)
    samples = [make_sample(0)]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).embed(samples), encoder.embed(samples))


def test_copies_are_the_model_itself(model: DeperModel) -> None:
    encoded = model.encode_image(random_image(60, 60, 1))
    for thing in (model, model.persona_encoder, encoded):
        assert copy.copy(thing) is copy.deepcopy(thing) is thing


def test_an_encoded_image_stays_with_its_model(model: DeperModel) -> None:
    with pytest.raises(InvalidArgumentError, match="send the image itself"):
        pickle.dumps(model.encode_image(random_image(60, 60, 1)))
