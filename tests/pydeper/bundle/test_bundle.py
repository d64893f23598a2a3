import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle.assemble import assemble, write_card, write_manifest
from export.bundle.card import model_card
from pydeper import BundleError, DemonstrationModelWarning, DeperModel, InvalidArgumentError
from pydeper.bundle import bundle, default, layout
from pydeper.bundle import checksums as verified
from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.config import BundleConfig
from pydeper.bundle.manifest import read_manifest, verify
from pydeper.bundle.vlm_files import find_files

VLM = ("vlm/decoder_model_merged.onnx", "vlm/embed_tokens.npy", "vlm/vision_encoder.onnx")
INT4 = ("vlm/decoder_model_merged_q4.onnx", "vlm/decoder_model_merged_q4.onnx_data", "vlm/vision_encoder_int8.onnx")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYDEPER_CACHE", str(tmp_path / "pydeper-cache"))


@pytest.fixture
def folder(tmp_path, small_config):
    """A bundle as far as files and config go; nothing here runs its parts."""
    home = tmp_path / "small"
    (home / "vlm").mkdir(parents=True)
    (home / "config.json").write_text(small_config.to_json())
    write_parts(home, "persona_encoder.onnx", "adapter.onnx", "tokenizer.json", "README.md", *VLM)
    return home


@pytest.fixture
def folder_of_two(folder, small_config):
    """The same with the VLM in a second precision, which is the default."""
    config = attrs.evolve(small_config, vlm=attrs.evolve(small_config.vlm, precision="int4"))
    (folder / "config.json").write_text(config.to_json())
    write_parts(folder, *INT4)
    return folder


def write_parts(folder, *names):
    for name in names:
        (folder / name).write_bytes(name.encode() * 100)
    write_manifest(folder)


def edit_manifest(folder, edit):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_a_folder_is_found_checked_and_read(folder, small_config):
    opened = open_bundle(folder)
    assert (opened.folder, opened.model_id, opened.revision) == (folder, small_config.name, None)
    assert opened.config == small_config
    assert (opened.vlm_folder, opened.precision) == (folder / "vlm", "fp32")
    assert open_bundle(str(folder)) == opened
    assert set(read_manifest(folder)) == {
        "README.md",
        "adapter.onnx",
        "config.json",
        "persona_encoder.onnx",
        "tokenizer.json",
        *VLM,
    }


@pytest.mark.parametrize("name", ["config.json", "adapter.onnx", "vlm/decoder_model_merged.onnx", "README.md"])
def test_damage_is_found_and_the_file_named(folder, name):
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=rf"{name}: has {len(whole) - 1} bytes instead of the {len(whole)}"):
        open_bundle(folder)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=rf"{name}: its sha256 is not"):
        open_bundle(folder)
    path.unlink()
    with pytest.raises(BundleError, match=rf"{name}: is missing, but manifest.json lists it"):
        open_bundle(folder)
    path.mkdir()
    with pytest.raises(BundleError, match=rf"{name}: is missing"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["extra.bin", "vlm/extra.bin", "vlm/.hidden", "new/deep/file"])
def test_a_file_that_the_manifest_does_not_list_is_named(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    with pytest.raises(BundleError, match=rf"{name}: is not in manifest.json.*python -m export manifest"):
        open_bundle(folder)


def test_what_git_and_the_hub_leave_at_the_top_is_not_part_of_a_bundle(folder):
    (folder / ".gitattributes").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "CACHEDIR.TAG").touch()
    verify(folder)


@pytest.mark.parametrize("needed", ["config.json", "persona_encoder.onnx", "adapter.onnx", "tokenizer.json"])
def test_a_manifest_must_list_what_every_bundle_has(folder, needed):
    (folder / needed).unlink()
    edit_manifest(folder, lambda manifest: manifest["files"].pop(needed))
    with pytest.raises(BundleError, match=f"does not list {needed}"):
        open_bundle(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "vlm/../../secret",
        "vlm//embed_tokens.npy",
        "./config.json",
        "C:\\x",
        "a\\b",
        "c:x",
        "",
        ".",
        ".git/config",
        "vlm/.",
        "a\nb",
        "a\u202eb",
        "aux",
        "vlm/Com1.onnx",
        "vlm/nul .txt",
        "a.",
        "a ",
        "a?",
        "Manifest.JSON",
        "e\u0301.txt",  # composed otherwise, which is the same name on some systems
        "x" * 256,
        "/".join(["x" * 200] * 6),
    ],
)
def test_a_manifest_path_that_leaves_the_folder_is_refused(folder, name):
    (folder.parent / "secret").touch()
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: {"size": 0, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="not the path of a file inside the bundle"):
        open_bundle(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "must be an object"),
        (b'{"files": {}}', "reads manifests of format 1, got None, which is not a whole number"),
        (b'{"format_version": 2, "files": {}}', "reads manifests of format 1, got 2: a newer pydeper .*--upgrade"),
        (b'{"format_version": 0, "files": {}}', "format 1, got 0, which is too old: download or export"),
        (b'{"format_version": 1, "format_version": 1, "files": {}}', "the same key twice in one object"),
        (b'{"format_version": 1, "files": {"a": {"size": 1e999, "sha256": ""}}}', "too large a number"),
        (b'{"format_version": 1, "files": {"a": {"size": %s, "sha256": ""}}}' % (b"9" * 5000), "5000 digits"),
        (b'{"format_version": 1, "files": {"a": {"size": -1, "sha256": "%s"}}}' % (b"0" * 64), r"files\.a: must be"),
        (b'{"format_version": 1, "files": {"a": {"size": 1, "sha256": "%s"}}}' % (b"0" * 63), r"files\.a: must be"),
        (b'{"format_version": 1}', "files: must be an object"),
        (b'{"format_version": 1, "files": []}', "files: must be an object"),
        (b'{"format_version": 1, "files": {"a": 1}}', r"files\.a: must be an object with"),
        (b'{"format_version": 1, "files": {"a": {"size": "1", "sha256": ""}}}', r"files\.a"),
        (b" " * (4 * 1024 * 1024 + 1), "larger than"),
    ],
)
def test_a_malformed_manifest_is_refused(folder, content, told):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{told}"):
        open_bundle(folder)


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_manifest_brings_anything_but_a_bundle_error(tmp_path_factory, data):
    home = tmp_path_factory.getbasetemp()
    (home / "manifest.json").write_bytes(data)
    with pytest.raises(BundleError):
        read_manifest(home)


def test_a_config_of_another_format_says_so(folder):
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(text | {"format_version": 2, "new": 1}))
    write_manifest(folder)
    with pytest.raises(BundleError, match=r"config\.json: format_version: pydeper .* reads .* format 1, got 2"):
        open_bundle(folder)


def test_what_is_not_a_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"manifest\.json: is missing, so .* is not a bundle"):
        open_bundle(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="is a file, not a folder"):
        open_bundle(tmp_path / "file")
    for name in ("nobody", "a/b/c", "../nobody", "", tmp_path / "missing"):
        with pytest.raises(BundleError, match=r"no model .*built-in model .*'org/name'|manifest\.json: is missing"):
            open_bundle(name)


def test_a_revision_is_for_the_hub_alone(folder):
    with pytest.raises(BundleError, match=r"revision: the folder .* has no revisions"):
        open_bundle(folder, revision="main")


def test_names_that_differ_in_case_alone_are_refused(folder):
    edit_manifest(folder, lambda manifest: manifest["files"].update({"Readme.MD": manifest["files"]["README.md"]}))
    with pytest.raises(BundleError, match=r"'README\.md' and 'Readme\.MD' are one file on many systems"):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["README.md", "vlm/embed_tokens.npy", "vlm"])
def test_links_may_not_lead_out_of_a_bundle(folder, tmp_path, name):
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(BundleError, match=r"is a link that leads out of the bundle, to .*outside"):
        open_bundle(folder)
    (folder / name).unlink()
    outside.rename(folder / ".inside")
    (folder / name).symlink_to(folder / ".inside")
    assert open_bundle(folder).folder == folder
    (tmp_path / "also").symlink_to(folder)
    assert open_bundle(tmp_path / "also").folder == tmp_path / "also"


def test_a_link_to_itself_is_refused(folder):
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("README.md")
    with pytest.raises(BundleError, match=r"README\.md: is missing"):
        open_bundle(folder)


def test_a_bundle_in_the_hubs_cache(folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--org--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    # As the Hub's client lays it out: every file is a link to a blob outside the snapshot.
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    for number, name in enumerate([*read_manifest(folder), "manifest.json"]):
        blobs.mkdir(exist_ok=True)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (blobs / str(number)).write_bytes((folder / name).read_bytes())
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


def test_of_several_precisions_only_the_one_that_is_opened_has_to_be_there(folder_of_two):
    assert open_bundle(folder_of_two).precision == "int4"
    assert open_bundle(folder_of_two, precision="fp32").precision == "fp32"
    (folder_of_two / "vlm/decoder_model_merged.onnx").unlink()
    (folder_of_two / "vlm/vision_encoder.onnx").write_bytes(b"cut short")
    assert open_bundle(folder_of_two).precision == "int4"
    with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx: is missing, but manifest"):
        open_bundle(folder_of_two, precision="fp32")
    with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx: is missing, but manifest"):
        verify(folder_of_two)
    (folder_of_two / "vlm/decoder_model_merged_q4.onnx_data").unlink()
    with pytest.raises(BundleError, match=r"decoder_model_merged_q4\.onnx_data: is missing"):
        open_bundle(folder_of_two)


def test_a_precision_that_a_bundle_does_not_hold_is_named_with_those_it_does(folder_of_two):
    with pytest.raises(BundleError, match=r"vlm: does not hold the VLM in int8, only in fp32, int4"):
        open_bundle(folder_of_two, precision="int8")
    with pytest.raises(InvalidArgumentError, match=r"precision: must be one of 'fp32', .* or None, got 'q4'"):
        open_bundle(folder_of_two, precision="q4")


def test_a_bundle_without_a_vlm_says_so(folder):
    for name in VLM:
        (folder / name).unlink()
    write_manifest(folder)
    with pytest.raises(BundleError, match=r"vlm: holds no VLM: decoder_model_merged\*\.onnx"):
        open_bundle(folder)


def test_from_the_hub_come_only_the_files_of_one_precision(folder_of_two, hub_server):
    commit = hub_server.publish("org/two", folder_of_two)
    opened = open_bundle("org/two")
    assert (opened.model_id, opened.revision, opened.precision) == ("org/two", commit, "int4")
    always = {"config.json", "manifest.json", "persona_encoder.onnx", "adapter.onnx", "tokenizer.json", "README.md"}
    assert hub_server.downloaded("org/two") == always | set(INT4) | {"vlm/embed_tokens.npy"}
    assert open_bundle("org/two", local_files_only=True) == opened
    with pytest.raises(BundleError, match=r"'org/two'.* is not in the local cache"):
        open_bundle("org/two", precision="fp32", local_files_only=True)
    assert open_bundle("org/two", precision="fp32").precision == "fp32"
    assert hub_server.downloaded("org/two") == always | set(INT4) | set(VLM)
    assert len(hub_server.downloads) == len(hub_server.downloaded("org/two"))


def test_what_is_on_the_hub_but_not_in_the_manifest_is_not_fetched(folder, hub_server):
    (folder / "stray.bin").touch()
    (folder / ".gitattributes").touch()
    hub_server.publish("org/stray", folder)
    open_bundle("org/stray")
    assert hub_server.downloaded("org/stray") == {*read_manifest(folder), "manifest.json"}


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
    for name in ("config.json", "tokenizer.json", "README.md", *(f"onnx/{Path(name).name}" for name in (*VLM, *INT4))):
        (repository / name).write_bytes(name.encode())
    return hub_server.publish("org/vlm", repository)


@pytest.fixture
def folder_without_vlm(folder, small_config, published):
    """A bundle whose VLM is that repository."""
    for name in VLM:
        (folder / name).unlink()
    vlm = attrs.evolve(small_config.vlm, source="org/vlm", source_revision=published, precision="int4")
    (folder / "config.json").write_text(attrs.evolve(small_config, vlm=vlm).to_json())
    write_manifest(folder)
    return folder


def test_a_vlm_from_the_hub_comes_at_its_commit_and_in_one_precision(folder_without_vlm, published, hub_server):
    opened = open_bundle(folder_without_vlm)
    assert opened.precision == "int4"
    assert opened.vlm_folder.name == published
    int4 = {f"onnx/{Path(name).name}" for name in INT4} | {"onnx/embed_tokens.npy"}
    assert hub_server.downloaded("org/vlm") == int4
    assert find_files(opened.vlm_folder, "int4").decoder == opened.vlm_folder / "onnx/decoder_model_merged_q4.onnx"
    with pytest.raises(BundleError, match=r"'org/vlm' at revision .* is not in the local cache"):
        open_bundle(folder_without_vlm, precision="fp32", local_files_only=True)
    assert open_bundle(folder_without_vlm, precision="fp32").precision == "fp32"
    assert hub_server.downloaded("org/vlm") == int4 | {f"onnx/{Path(name).name}" for name in VLM}
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


def test_the_default_model_is_the_variables(folder, monkeypatch):
    monkeypatch.setenv("PYDEPER_MODEL", str(folder))
    assert open_bundle().folder == folder
    monkeypatch.setenv("PYDEPER_MODEL", "nobody")
    with pytest.raises(BundleError, match="there is no model 'nobody'"):
        open_bundle()


def test_the_demonstration_model_warns_once_and_only_when_unnamed(monkeypatch):
    monkeypatch.delenv("PYDEPER_MODEL", raising=False)
    monkeypatch.setattr(default, "_warned_of_demonstration_model", False)
    with pytest.warns(DemonstrationModelWarning, match=r"from_pretrained\('org/name'\).*PYDEPER_MODEL") as caught:
        names = [default.default_model_name(), default.default_model_name()]
    assert names == ["tiny", "tiny"]
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    monkeypatch.setattr(default, "_warned_of_demonstration_model", False)
    monkeypatch.setenv("PYDEPER_MODEL", "tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert default.default_model_name() == "tiny"


def test_a_built_in_model_is_found_by_name(folder, monkeypatch):
    monkeypatch.setattr(bundle, "BUILTIN", folder.parent)
    monkeypatch.setattr(layout, "BUILTIN", folder.parent)
    assert bundle.builtin_names() == ["small"]
    assert open_bundle("small").model_id == "small"
    with pytest.raises(BundleError, match="the built-in model 'small' has no revisions"):
        open_bundle("small", revision="main")
    with pytest.raises(BundleError, match=r"built-in model \(small\)"):
        open_bundle("large")
    (folder / "adapter.onnx").unlink()
    with pytest.raises(BundleError, match="reinstall pydeper"):
        open_bundle("small")


def test_assembling_gives_a_bundle_that_loads(bundle_parts, tmp_path):
    licence = tmp_path / "terms.txt"
    licence.write_text("Do as you please.")
    demo = tmp_path / "some demo"
    demo.mkdir()
    (demo / "scene.png").write_bytes(b"png")
    target = tmp_path / "new" / "bundle"
    made = assemble(target, licence=licence, extras={"demo": demo}, **bundle_parts)
    assert made == target
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]
    assert {"LICENSE", "demo/scene.png", "README.md", "vlm/embed_tokens.npy"} <= set(read_manifest(target))
    assert DeperModel.from_pretrained(target, threads=1).config == bundle_parts["config"]
    with pytest.raises(BundleError, match="exists already"):
        assemble(target, **bundle_parts)
    assemble(target, overwrite=True, **bundle_parts)
    assert "LICENSE" not in read_manifest(target)
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


def test_parts_that_do_not_fit_leave_nothing_behind(bundle_parts, tmp_path):
    target = tmp_path / "bundle"
    with pytest.raises(BundleError, match=r"adapter\.onnx: lacks the input subject_embedding.* it has: pixel_values"):
        assemble(target, **bundle_parts | {"adapter": bundle_parts["persona_encoder"]})
    with pytest.raises(BundleError, match=r"none\.json: does not exist, but is to become tokenizer\.json"):
        assemble(target, **bundle_parts | {"tokenizer": tmp_path / "none.json"})
    assert list(tmp_path.iterdir()) == []
    assemble(target, **bundle_parts)
    before = read_manifest(target)
    with pytest.raises(BundleError):
        assemble(target, overwrite=True, **bundle_parts | {"adapter": bundle_parts["persona_encoder"]})
    assert read_manifest(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_config_that_the_parts_contradict_is_refused(bundle_parts, tmp_path):
    from export.adapter import export_adapter
    from training.network import Adapter

    config = bundle_parts["config"]
    vlm = attrs.evolve(config.vlm, precision="int8")
    with pytest.raises(BundleError, match=r"config\.vlm\.precision: 'int8' is not among the exported: fp32"):
        assemble(tmp_path / "x", **bundle_parts | {"config": attrs.evolve(config, vlm=vlm)})
    vlm = attrs.evolve(config.vlm, source="org/vlm", source_revision="0" * 40)
    with pytest.raises(BundleError, match=r"config\.vlm\.source: 'org/vlm' is on the Hub, so vlm must be None"):
        assemble(tmp_path / "x", **bundle_parts | {"config": attrs.evolve(config, vlm=vlm)})
    with pytest.raises(
        BundleError, match=r"config\.vlm\.source: 'vlm' is a folder of the bundle, so vlm must be given"
    ):
        assemble(tmp_path / "x", **bundle_parts | {"vlm": None})
    export_adapter(tmp_path / "wide.onnx", Adapter(384, 128))
    with pytest.raises(
        BundleError,
        match=r"adapter\.onnx: soft_token is of shape \['batch', 128\].* \['any', 64\] \(vlm\.hidden",
    ):
        assemble(tmp_path / "x", **bundle_parts | {"adapter": tmp_path / "wide.onnx"})
    assert [path.name for path in tmp_path.iterdir()] == ["wide.onnx"]


def test_the_card_says_what_the_hub_and_people_need(small_config):
    import yaml

    card = model_card(small_config)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "pydeper"
    assert front["license"] == small_config.licence.lower()
    assert "base_model" not in front  # 'random' is no Hub id
    assert small_config.persona_encoder.image_encoder.licence in card
    assert small_config.persona_encoder.fingerprint in card
    odd = attrs.evolve(
        small_config, licence='My: "own"\nterms', vlm=attrs.evolve(small_config.vlm, base_model="org/base")
    )
    front = yaml.safe_load(model_card(odd).split("---\n")[1])
    assert (front["license"], front["license_name"]) == ("other", 'My: "own"\nterms')
    assert front["base_model"] == "org/base"
    fetched = attrs.evolve(small_config.vlm, source="org/vlm", source_revision="0" * 40)
    assert f"`org/vlm` at `{'0' * 40}`" in model_card(attrs.evolve(small_config, vlm=fetched))


def test_the_command_writes_and_verifies(folder, small_config):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "export", *map(str, arguments)], capture_output=True, text=True, check=False
        )

    assert run("verify", folder).returncode == 0
    (folder / "README.md").write_text("changed")
    failed = run("verify", folder)
    assert failed.returncode == 2
    assert failed.stderr.startswith("export: ")
    assert "README.md" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert run("manifest", folder).returncode == 0
    assert run("verify", folder).returncode == 0
    assert run("card", folder).returncode == 0
    assert (folder / "README.md").read_text() == model_card(small_config)
    assert run("verify", folder).returncode == 0
    assert run("manifest", folder / "vlm").returncode == 2
    assert write_card(folder) == folder / "README.md"


def test_configs_survive_the_folder(folder):
    config = open_bundle(folder).config
    assert BundleConfig.from_json((folder / "config.json").read_bytes()) == config


def test_large_files_are_read_once_by_loading_and_always_by_verify(folder, monkeypatch):
    monkeypatch.setattr(verified, "LARGE", 2100)  # the VLM's files and no others
    monkeypatch.setattr(verified, "SETTLED_AFTER", 0)
    time.sleep(0.02)
    reads = []
    sha256 = verified.sha256
    monkeypatch.setattr(verified, "sha256", lambda path: reads.append(path.name) or sha256(path))
    open_bundle(folder)
    first = sorted(reads)
    reads.clear()
    open_bundle(folder)
    large = {path.name for path in folder.glob("vlm/*") if path.stat().st_size >= 2100}
    assert large
    assert sorted(reads) == [name for name in first if name not in large]
    reads.clear()
    verify(folder)
    assert large <= set(reads)
    path = folder / "vlm/decoder_model_merged.onnx"
    before = path.stat()
    path.write_bytes(b"X" + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx: its sha256 is not"):
        open_bundle(folder)
