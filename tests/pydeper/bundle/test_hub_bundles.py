"""Bundles on the Hub, and bundles whose VLM is there: which files are fetched, and when none is."""

import json
import os
from pathlib import Path

import attrs
import pytest

from export.bundle.assemble import write_manifest
from pydeper import BundleError
from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.manifest import read_manifest
from pydeper.bundle.vlm_files import find_files
from tests.support.small_bundle import INT4_FILES, VLM_FILES


def test_a_bundle_in_the_hubs_cache(stub_bundle, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--org--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    # As the Hub's client lays it out: every file is a link to a blob outside the snapshot.
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    for number, name in enumerate([*read_manifest(stub_bundle), "manifest.json"]):
        blobs.mkdir(exist_ok=True)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (blobs / str(number)).write_bytes((stub_bundle / name).read_bytes())
        (snapshot / name).symlink_to(os.path.relpath(blobs / str(number), (snapshot / name).parent))
    opened = open_bundle("org/small", local_files_only=True)
    assert (opened.model_id, opened.revision) == ("org/small", commit)
    assert open_bundle("org/small", revision=commit, local_files_only=True) == opened
    (snapshot / "adapter.onnx").unlink()
    with pytest.raises(BundleError, match=r"adapter\.onnx: is missing"):
        open_bundle("org/small", local_files_only=True)
    with pytest.raises(BundleError, match=r"model 'org/none' is not in the local cache"):
        open_bundle("org/none", local_files_only=True)
    with pytest.raises(BundleError, match=r"at revision 'v2' is not in the local cache"):
        open_bundle("org/small", revision="v2", local_files_only=True)


def test_from_the_hub_come_only_the_files_of_one_precision(stub_bundle_of_two, hub_server):
    commit = hub_server.publish("org/two", stub_bundle_of_two)
    opened = open_bundle("org/two")
    assert (opened.model_id, opened.revision, opened.precision) == ("org/two", commit, "int4")
    always = {"config.json", "manifest.json", "persona_encoder.onnx", "adapter.onnx", "tokenizer.json", "README.md"}
    assert hub_server.downloaded("org/two") == always | set(INT4_FILES) | {"vlm/embed_tokens.npy"}
    assert open_bundle("org/two", local_files_only=True) == opened
    with pytest.raises(BundleError, match=r"'org/two'.* is not in the local cache"):
        open_bundle("org/two", precision="fp32", local_files_only=True)
    assert open_bundle("org/two", precision="fp32").precision == "fp32"
    assert hub_server.downloaded("org/two") == always | set(INT4_FILES) | set(VLM_FILES)
    assert len(hub_server.downloads) == len(hub_server.downloaded("org/two"))


def test_what_is_on_the_hub_but_not_in_the_manifest_is_not_fetched(stub_bundle, hub_server):
    (stub_bundle / "stray.bin").touch()
    (stub_bundle / ".gitattributes").touch()
    hub_server.publish("org/stray", stub_bundle)
    open_bundle("org/stray")
    assert hub_server.downloaded("org/stray") == {*read_manifest(stub_bundle), "manifest.json"}


def test_a_repository_that_is_no_bundle_is_named(tmp_path, hub_server):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.bin").touch()
    hub_server.publish("org/other", tmp_path / "other")
    with pytest.raises(BundleError, match=r"manifest\.json: is missing, so .* is not a bundle"):
        open_bundle("org/other")
    with pytest.raises(BundleError, match=r"model 'org/none' is not on the Hugging Face Hub"):
        open_bundle("org/none")
    with pytest.raises(BundleError, match=r"has no revision 'v2'"):
        open_bundle("org/other", revision="v2")


@pytest.fixture
def published(tmp_path, hub_server):
    """A repository of a VLM's files alone, as others publish them; and its commit."""
    repository = tmp_path / "published"
    (repository / "onnx").mkdir(parents=True)
    for name in (
        "config.json",
        "tokenizer.json",
        "README.md",
        *(f"onnx/{Path(name).name}" for name in (*VLM_FILES, *INT4_FILES)),
    ):
        (repository / name).write_bytes(name.encode())
    return hub_server.publish("org/vlm", repository)


@pytest.fixture
def folder_without_vlm(stub_bundle, small_config, published):
    """A bundle whose VLM is that repository."""
    for name in VLM_FILES:
        (stub_bundle / name).unlink()
    vlm = attrs.evolve(small_config.vlm, source="org/vlm", source_revision=published, precision="int4")
    (stub_bundle / "config.json").write_text(attrs.evolve(small_config, vlm=vlm).to_json())
    write_manifest(stub_bundle)
    return stub_bundle


def test_a_vlm_from_the_hub_comes_at_its_commit_and_in_one_precision(folder_without_vlm, published, hub_server):
    opened = open_bundle(folder_without_vlm)
    assert opened.precision == "int4"
    assert opened.vlm_folder.name == published
    int4 = {f"onnx/{Path(name).name}" for name in INT4_FILES} | {"onnx/embed_tokens.npy"}
    assert hub_server.downloaded("org/vlm") == int4
    assert find_files(opened.vlm_folder, "int4").decoder == opened.vlm_folder / "onnx/decoder_model_merged_q4.onnx"
    with pytest.raises(BundleError, match=r"'org/vlm' at revision .* is not in the local cache"):
        open_bundle(folder_without_vlm, precision="fp32", local_files_only=True)
    assert open_bundle(folder_without_vlm, precision="fp32").precision == "fp32"
    assert hub_server.downloaded("org/vlm") == int4 | {f"onnx/{Path(name).name}" for name in VLM_FILES}
    with pytest.raises(
        BundleError, match=rf"org/vlm at {published}: does not hold the VLM in fp16, only in fp32, int4"
    ):
        open_bundle(folder_without_vlm, precision="fp16")


def test_a_vlm_that_was_fetched_once_needs_no_hub(folder_without_vlm, hub_server):
    with pytest.raises(BundleError, match="is not in the local cache and the Hugging Face Hub was not reached"):
        open_bundle(folder_without_vlm, local_files_only=True)
    opened = open_bundle(folder_without_vlm)
    requests = hub_server.requests
    assert open_bundle(folder_without_vlm) == opened
    assert open_bundle(folder_without_vlm, local_files_only=True) == opened
    assert hub_server.requests == requests


def test_a_commit_that_the_vlms_repository_does_not_have_is_named(folder_without_vlm):
    text = json.loads((folder_without_vlm / "config.json").read_text())
    text["vlm"]["source_revision"] = "0" * 40
    (folder_without_vlm / "config.json").write_text(json.dumps(text))
    write_manifest(folder_without_vlm)
    with pytest.raises(BundleError, match=r"model 'org/vlm' on the Hugging Face Hub has no revision '0{40}'"):
        open_bundle(folder_without_vlm)
