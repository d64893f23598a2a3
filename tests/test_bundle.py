import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle import assemble, model_card, write_card, write_manifest
from pydeper import BundleError, DemonstrationModelWarning, DeperModel, bundle
from pydeper.bundle import open_bundle, read_manifest, verify
from pydeper.config import BundleConfig

pytest_plugins = ["bundle_fixtures"]


@pytest.fixture
def folder(tmp_path, small_config):
    """A bundle as far as files and config go; nothing here runs its parts."""
    home = tmp_path / "small"
    (home / "vlm").mkdir(parents=True)
    (home / "config.json").write_text(small_config.to_json())
    for name in ("persona_encoder.onnx", "adapter.onnx", "tokenizer.json", "vlm/weights.bin", "README.md"):
        (home / name).write_bytes(name.encode() * 100)
    write_manifest(home)
    return home


def edit_manifest(folder, edit):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_a_folder_is_found_checked_and_read(folder, small_config):
    opened = open_bundle(folder)
    assert (opened.folder, opened.model_id, opened.revision) == (folder, small_config.name, None)
    assert opened.config == small_config
    assert open_bundle(str(folder)) == opened
    assert set(read_manifest(folder)) == {
        "README.md",
        "adapter.onnx",
        "config.json",
        "persona_encoder.onnx",
        "tokenizer.json",
        "vlm/weights.bin",
    }


@pytest.mark.parametrize("name", ["config.json", "adapter.onnx", "vlm/weights.bin", "README.md"])
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
        "vlm//weights.bin",
        "./config.json",
        "C:\\x",
        "a\\b",
        "c:x",
        "",
        ".",
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
        (b"[]", "format_version"),
        (b'{"format_version": 2, "files": {}}', "reads manifests of format 1, got 2; install a pydeper"),
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
    with pytest.raises(BundleError, match=r"config\.json: format_version: this pydeper reads .* format 1, got 2"):
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


def test_the_default_model_is_the_variables(folder, monkeypatch):
    monkeypatch.setenv("PYDEPER_MODEL", str(folder))
    assert open_bundle().folder == folder
    monkeypatch.setenv("PYDEPER_MODEL", "nobody")
    with pytest.raises(BundleError, match="there is no model 'nobody'"):
        open_bundle()


def test_the_demonstration_model_warns_once_and_only_when_unnamed(monkeypatch):
    monkeypatch.delenv("PYDEPER_MODEL", raising=False)
    monkeypatch.setattr(bundle, "_warned_of_demonstration_model", False)
    with pytest.warns(DemonstrationModelWarning, match=r"from_pretrained\('org/name'\).*PYDEPER_MODEL") as caught:
        names = [bundle.default_model_name(), bundle.default_model_name()]
    assert names == ["tiny", "tiny"]
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    monkeypatch.setattr(bundle, "_warned_of_demonstration_model", False)
    monkeypatch.setenv("PYDEPER_MODEL", "tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bundle.default_model_name() == "tiny"


def test_a_built_in_model_is_found_by_name(folder, monkeypatch):
    monkeypatch.setattr(bundle, "BUILTIN", folder.parent)
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
    with pytest.raises(BundleError, match=r"adapter\.onnx.*persona|takes|must"):
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
