"""Loading a model: what cannot be loaded says why, and the default model is loaded once."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import attrs
import numpy as np
import onnxruntime
import pytest

import pydeper
from pydeper import (
    BundleError,
    DeperModel,
    IncompatiblePersonaError,
    InvalidArgumentError,
    Persona,
)
from pydeper.model import default
from tests.support.images import random_image
from tests.support.random_samples import make_sample

IMAGE = random_image(90, 70, 3)
SHORT = {"max_new_tokens": 12}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"device": "gpu"}, "'auto', 'cpu' or 'cuda', got 'gpu'"),
        ({"threads": 0}, "threads.*got 0"),
        ({"threads": 1.5}, "threads.*got 1.5"),
        ({"threads": True}, "threads.*got True"),
    ],
)
def test_impossible_ways_to_load_are_refused(bundle_folder, arguments, told):
    with pytest.raises(InvalidArgumentError, match=told):
        DeperModel.from_pretrained(bundle_folder, **arguments)


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_cuda_without_its_provider_is_an_error_with_its_remedy(bundle_folder):
    with pytest.raises(InvalidArgumentError, match=r"CPUExecutionProvider.*pip install .pydeper\[gpu\]"):
        DeperModel.from_pretrained(bundle_folder, device="cuda")


def copied(folder, target, **files):
    """The bundle with other contents in some of its files, and a manifest that agrees."""
    from export.bundle.assemble import write_manifest

    shutil.copytree(folder, target)
    for name, content in files.items():
        (target / name.replace("__", ".")).write_bytes(content)
    write_manifest(target)
    return target


def test_parts_that_are_not_what_they_should_be_are_refused(bundle_folder, tmp_path):
    adapter = (bundle_folder / "adapter.onnx").read_bytes()
    encoder = (bundle_folder / "persona_encoder.onnx").read_bytes()
    with pytest.raises(
        BundleError, match=r"persona_encoder\.onnx: lacks the input pixel_values.* it has: subject_embedding"
    ):
        DeperModel.from_pretrained(copied(bundle_folder, tmp_path / "a", persona_encoder__onnx=adapter))
    with pytest.raises(BundleError, match=r"adapter\.onnx: "):
        DeperModel.from_pretrained(copied(bundle_folder, tmp_path / "b", adapter__onnx=encoder))
    with pytest.raises(BundleError, match=r"adapter\.onnx: is not an ONNX file, or damaged"):
        DeperModel.from_pretrained(copied(bundle_folder, tmp_path / "c", adapter__onnx=b"not onnx"))
    with pytest.raises(BundleError, match=r"tokenizer\.json: is not a tokenizer"):
        DeperModel.from_pretrained(copied(bundle_folder, tmp_path / "d", tokenizer__json=b"{}"))


def test_the_precision_asked_for_is_the_one_that_runs(bundle_parts, small_vlm, ana, tmp_path):
    from export.bundle.assemble import assemble
    from export.qwen2_vl.export import export_vlm

    shutil.copytree(small_vlm.folder, tmp_path / "vlm")
    export_vlm(small_vlm.model, tmp_path / "vlm", "int8", parity_tolerance=10)
    both = assemble(tmp_path / "both", **bundle_parts | {"vlm": tmp_path / "vlm"})
    texts = {}
    for asked, taken in ((None, "fp32"), ("fp32", "fp32"), ("int8", "int8")):
        loaded = DeperModel.from_pretrained(both, threads=1, precision=asked)
        facts = loaded.report().vlm
        assert facts["precision"] == taken
        assert ("quantized" in facts["decoder"] or "int8" in facts["decoder"]) == (taken == "int8")
        texts[asked] = loaded.describe(IMAGE, ana, max_new_tokens=24)
    assert texts[None] == texts["fp32"]
    assert all(texts.values())


def test_a_config_that_the_files_contradict_is_refused(bundle_parts, tmp_path):
    from export.bundle.assemble import assemble

    config = bundle_parts["config"]
    smaller = attrs.evolve(config.persona_encoder, subject_embedding_size=100)
    with pytest.raises(BundleError, match=r"\[.any., 100\] \(persona_encoder.subject_embedding_size\)"):
        assemble(tmp_path / "x", **bundle_parts | {"config": attrs.evolve(config, persona_encoder=smaller)})


def test_the_default_model_is_loaded_once_for_all_threads(bundle_folder, other_folder, monkeypatch, ana, tmp_path):
    (tmp_path / "small").symlink_to(bundle_folder)  # a name under which nothing was loaded before
    monkeypatch.setenv("PYDEPER_MODEL", str(tmp_path / "small"))
    loads = []
    original = default.open_bundle

    def counted(*arguments, **options):
        loads.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(default, "open_bundle", counted)
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: pydeper.describe(IMAGE, ana, **SHORT), range(4)))
    assert len(loads) == 1
    assert len(set(texts)) == 1
    assert "".join(pydeper.stream(IMAGE, ana, **SHORT)) == texts[0]
    made = Persona.from_samples([make_sample(seed) for seed in range(5)])
    np.testing.assert_allclose(made.subject_embedding, ana.subject_embedding, rtol=1e-3, atol=1e-4)
    assert len(loads) == 1
    monkeypatch.setenv("PYDEPER_MODEL", str(other_folder))
    with pytest.raises(IncompatiblePersonaError):
        pydeper.describe(IMAGE, ana)
    assert len(loads) == 2
