"""A bundle holds exactly the files of its manifest."""

import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydeper import BundleError
from pydeper.bundle import checksums as verified
from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.manifest import read_manifest, verify


def edit_manifest(stub_bundle, edit):
    path = stub_bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["config.json", "adapter.onnx", "vlm/decoder_model_merged.onnx", "README.md"])
def test_damage_is_found_and_the_file_named(stub_bundle, name):
    path = stub_bundle / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=rf"{name}: has {len(whole) - 1} bytes instead of the {len(whole)}"):
        open_bundle(stub_bundle)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match=rf"{name}: its sha256 is not"):
        open_bundle(stub_bundle)
    path.unlink()
    with pytest.raises(BundleError, match=rf"{name}: is missing, but manifest.json lists it"):
        open_bundle(stub_bundle)
    path.mkdir()
    with pytest.raises(BundleError, match=rf"{name}: is missing"):
        open_bundle(stub_bundle)


@pytest.mark.parametrize("name", ["extra.bin", "vlm/extra.bin", "vlm/.hidden", "new/deep/file"])
def test_a_file_that_the_manifest_does_not_list_is_named(stub_bundle, name):
    (stub_bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (stub_bundle / name).touch()
    with pytest.raises(BundleError, match=rf"{name}: is not in manifest.json.*python -m export manifest"):
        open_bundle(stub_bundle)


def test_what_git_and_the_hub_leave_at_the_top_is_not_part_of_a_bundle(stub_bundle):
    (stub_bundle / ".gitattributes").touch()
    (stub_bundle / ".cache").mkdir()
    (stub_bundle / ".cache" / "CACHEDIR.TAG").touch()
    verify(stub_bundle)


@pytest.mark.parametrize("needed", ["config.json", "persona_encoder.onnx", "adapter.onnx", "tokenizer.json"])
def test_a_manifest_must_list_what_every_bundle_has(stub_bundle, needed):
    (stub_bundle / needed).unlink()
    edit_manifest(stub_bundle, lambda manifest: manifest["files"].pop(needed))
    with pytest.raises(BundleError, match=f"does not list {needed}"):
        open_bundle(stub_bundle)


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
def test_a_manifest_path_that_leaves_the_folder_is_refused(stub_bundle, name):
    (stub_bundle.parent / "secret").touch()
    edit_manifest(stub_bundle, lambda manifest: manifest["files"].update({name: {"size": 0, "sha256": "0" * 64}}))
    with pytest.raises(BundleError, match="not the path of a file inside the bundle"):
        open_bundle(stub_bundle)


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
def test_a_malformed_manifest_is_refused(stub_bundle, content, told):
    (stub_bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=rf"manifest\.json: .*{told}"):
        open_bundle(stub_bundle)


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory):
    """A folder in which every example writes its manifest over the last one's."""
    return tmp_path_factory.mktemp("rewritten")


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_manifest_brings_anything_but_a_bundle_error(rewritten, data):
    (rewritten / "manifest.json").write_bytes(data)
    with pytest.raises(BundleError):
        read_manifest(rewritten)


def test_names_that_differ_in_case_alone_are_refused(stub_bundle):
    edit_manifest(stub_bundle, lambda manifest: manifest["files"].update({"Readme.MD": manifest["files"]["README.md"]}))
    with pytest.raises(BundleError, match=r"'README\.md' and 'Readme\.MD' are one file on many systems"):
        open_bundle(stub_bundle)


@pytest.mark.parametrize("name", ["README.md", "vlm/embed_tokens.npy", "vlm"])
def test_links_may_not_lead_out_of_a_bundle(stub_bundle, tmp_path, name):
    outside = tmp_path / "outside"
    (stub_bundle / name).rename(outside)
    (stub_bundle / name).symlink_to(outside)
    with pytest.raises(BundleError, match=r"is a link that leads out of the bundle, to .*outside"):
        open_bundle(stub_bundle)
    (stub_bundle / name).unlink()
    outside.rename(stub_bundle / ".inside")
    (stub_bundle / name).symlink_to(stub_bundle / ".inside")
    assert open_bundle(stub_bundle).folder == stub_bundle
    (tmp_path / "also").symlink_to(stub_bundle)
    assert open_bundle(tmp_path / "also").folder == tmp_path / "also"


def test_a_link_to_itself_is_refused(stub_bundle):
    (stub_bundle / "README.md").unlink()
    (stub_bundle / "README.md").symlink_to("README.md")
    with pytest.raises(BundleError, match=r"README\.md: is missing"):
        open_bundle(stub_bundle)


def test_large_files_are_read_once_by_loading_and_always_by_verify(stub_bundle, monkeypatch):
    monkeypatch.setattr(verified, "LARGE", 2100)  # the VLM's files and no others
    monkeypatch.setattr(verified, "SETTLED_AFTER", 0)
    time.sleep(0.02)
    reads = []
    sha256 = verified.sha256
    monkeypatch.setattr(verified, "sha256", lambda path: reads.append(path.name) or sha256(path))
    open_bundle(stub_bundle)
    first = sorted(reads)
    reads.clear()
    open_bundle(stub_bundle)
    large = {path.name for path in stub_bundle.glob("vlm/*") if path.stat().st_size >= 2100}
    assert large
    assert sorted(reads) == [name for name in first if name not in large]
    reads.clear()
    verify(stub_bundle)
    assert large <= set(reads)
    path = stub_bundle / "vlm/decoder_model_merged.onnx"
    before = path.stat()
    path.write_bytes(b"X" + path.read_bytes()[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx: its sha256 is not"):
        open_bundle(stub_bundle)
