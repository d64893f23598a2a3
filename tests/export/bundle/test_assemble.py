"""Files become a bundle with a manifest and a card, or nothing appears."""

import re
import subprocess
import sys

import attrs
import pytest

from export.__main__ import main
from export.bundle.assemble import assemble, write_card
from export.bundle.card import model_card
from pydeper import BundleError, DeperModel
from pydeper.bundle.manifest import read_manifest


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


def test_only_a_bundle_as_it_was_written_is_replaced(bundle_parts, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("By hand.")
    with pytest.raises(BundleError, match=r"thesis: would be replaced, but is not a bundle as it was written"):
        assemble(tmp_path / "thesis", overwrite=True, **bundle_parts)
    (tmp_path / "empty").mkdir()
    target = assemble(tmp_path / "empty", overwrite=True, **bundle_parts)
    for name in ("notes.txt", ".notes", "demo/notes.txt"):
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text("By hand.")
        with pytest.raises(BundleError, match=r"notes.*; name another folder, or remove it first"):
            assemble(target, overwrite=True, **bundle_parts)
        (target / name).unlink()
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "By hand."
    with pytest.raises(BundleError, match=r"lies inside .*, which is to become vlm of it"):
        assemble(bundle_parts["vlm"] / "bundle", **bundle_parts)


def test_the_manifest_of_another_program_stays(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    assert main(["manifest", str(tmp_path)]) == 2
    assert "is not a bundle's manifest, and would be replaced" in capsys.readouterr().err
    assert (tmp_path / "manifest.json").read_text() == '{"name": "an app"}'


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


def test_the_command_writes_and_verifies(stub_bundle, small_config, capsys):
    def status(command, folder):
        return main([command, str(folder)])

    assert status("verify", stub_bundle) == 0
    (stub_bundle / "README.md").write_text("changed")
    assert status("verify", stub_bundle) == 2
    assert re.match(r"export: .*README\.md", capsys.readouterr().err)
    assert status("manifest", stub_bundle) == 0
    assert status("verify", stub_bundle) == 0
    assert status("card", stub_bundle) == 0
    assert (stub_bundle / "README.md").read_text() == model_card(small_config)
    assert status("verify", stub_bundle) == 0
    assert status("manifest", stub_bundle / "vlm") == 2
    assert write_card(stub_bundle) == stub_bundle / "README.md"


def test_an_error_of_the_command_is_a_message_and_a_status(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "export", "verify", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("export: ")
    assert len(done.stderr.splitlines()) == 1
