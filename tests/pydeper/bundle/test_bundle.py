import json

import pytest

from export.bundle.assemble import write_manifest
from pydeper import BundleError, InvalidArgumentError
from pydeper.bundle import bundle, layout
from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.config import BundleConfig
from pydeper.bundle.manifest import read_manifest, verify
from tests.support.small_bundle import VLM_FILES


def test_a_folder_is_found_checked_and_read(stub_bundle, small_config):
    opened = open_bundle(stub_bundle)
    assert (opened.folder, opened.model_id, opened.revision) == (stub_bundle, small_config.name, None)
    assert opened.config == small_config
    assert (opened.vlm_folder, opened.precision) == (stub_bundle / "vlm", "fp32")
    assert open_bundle(str(stub_bundle)) == opened
    assert set(read_manifest(stub_bundle)) == {
        "README.md",
        "adapter.onnx",
        "config.json",
        "persona_encoder.onnx",
        "tokenizer.json",
        *VLM_FILES,
    }


def test_a_config_of_another_format_says_so(stub_bundle):
    text = json.loads((stub_bundle / "config.json").read_text())
    (stub_bundle / "config.json").write_text(json.dumps(text | {"format_version": 2, "new": 1}))
    write_manifest(stub_bundle)
    with pytest.raises(BundleError, match=r"config\.json: format_version: pydeper .* reads .* format 1, got 2"):
        open_bundle(stub_bundle)


def test_what_is_not_a_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"manifest\.json: is missing, so .* is not a bundle"):
        open_bundle(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="is a file, not a folder"):
        open_bundle(tmp_path / "file")
    for name in ("nobody", "a/b/c", "../nobody", "", tmp_path / "missing"):
        with pytest.raises(BundleError, match=r"no model .*built-in model .*'org/name'|manifest\.json: is missing"):
            open_bundle(name)


def test_a_revision_is_for_the_hub_alone(stub_bundle):
    with pytest.raises(BundleError, match=r"revision: the folder .* has no revisions"):
        open_bundle(stub_bundle, revision="main")


def test_of_several_precisions_only_the_one_that_is_opened_has_to_be_there(stub_bundle_of_two):
    assert open_bundle(stub_bundle_of_two).precision == "int4"
    assert open_bundle(stub_bundle_of_two, precision="fp32").precision == "fp32"
    (stub_bundle_of_two / "vlm/decoder_model_merged.onnx").unlink()
    (stub_bundle_of_two / "vlm/vision_encoder.onnx").write_bytes(b"cut short")
    assert open_bundle(stub_bundle_of_two).precision == "int4"
    with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx: is missing, but manifest"):
        open_bundle(stub_bundle_of_two, precision="fp32")
    with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx: is missing, but manifest"):
        verify(stub_bundle_of_two)
    (stub_bundle_of_two / "vlm/decoder_model_merged_q4.onnx_data").unlink()
    with pytest.raises(BundleError, match=r"decoder_model_merged_q4\.onnx_data: is missing"):
        open_bundle(stub_bundle_of_two)


def test_a_precision_that_a_bundle_does_not_hold_is_named_with_those_it_does(stub_bundle_of_two):
    with pytest.raises(BundleError, match=r"vlm: does not hold the VLM in int8, only in fp32, int4"):
        open_bundle(stub_bundle_of_two, precision="int8")
    with pytest.raises(InvalidArgumentError, match=r"precision: must be one of 'fp32', .* or None, got 'q4'"):
        open_bundle(stub_bundle_of_two, precision="q4")


def test_a_bundle_without_a_vlm_says_so(stub_bundle):
    for name in VLM_FILES:
        (stub_bundle / name).unlink()
    write_manifest(stub_bundle)
    with pytest.raises(BundleError, match=r"vlm: holds no VLM: decoder_model_merged\*\.onnx"):
        open_bundle(stub_bundle)


def test_a_built_in_model_is_found_by_name(stub_bundle, monkeypatch):
    monkeypatch.setattr(bundle, "BUILTIN", stub_bundle.parent)
    monkeypatch.setattr(layout, "BUILTIN", stub_bundle.parent)
    assert bundle.builtin_names() == ["small"]
    assert open_bundle("small").model_id == "small"
    with pytest.raises(BundleError, match="the built-in model 'small' has no revisions"):
        open_bundle("small", revision="main")
    with pytest.raises(BundleError, match=r"built-in model \(small\)"):
        open_bundle("large")
    (stub_bundle / "adapter.onnx").unlink()
    with pytest.raises(BundleError, match="reinstall pydeper"):
        open_bundle("small")


def test_configs_survive_the_folder(stub_bundle):
    config = open_bundle(stub_bundle).config
    assert BundleConfig.from_json((stub_bundle / "config.json").read_bytes()) == config
