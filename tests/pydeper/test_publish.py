import hashlib
import json

import attrs
import huggingface_hub
import pytest

from export.__main__ import main
from export.bundle.assemble import write_card, write_manifest
from export.bundle.card import model_card
from pydeper import BundleError, DeperModel
from pydeper.bundle.bundle import open_bundle, read_config
from pydeper.bundle.layout import BUILTIN
from pydeper.publish import IMAGE_ENCODER_LICENCE, plan, push

# How the Hub's own client sends a large file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

LARGE = ("persona_encoder.onnx", "adapter.onnx", "vlm/vision_encoder.onnx", "vlm/embed_tokens.npy")
DECODER = "vlm/decoder_model_merged.onnx"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYDEPER_CACHE", str(tmp_path / "pydeper-cache"))


@pytest.fixture
def folder(tmp_path):
    """A bundle as far as files and config go; nothing here runs its parts."""
    home = tmp_path / "bundle"
    (home / "vlm").mkdir(parents=True)
    (home / "config.json").write_bytes((BUILTIN / "tiny" / "config.json").read_bytes())
    (home / "tokenizer.json").write_text("{}")
    for number, name in enumerate((*LARGE, DECODER), 1):
        (home / name).write_bytes(bytes([number, 0]) * 500)
    (home / DECODER).write_bytes(bytes(range(256)) * 400)
    write_card(home)
    return home


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def posted(server, what):
    return [line for line in server.log if line.startswith("POST") and what in line]


def test_what_is_pushed_is_what_comes_back_byte_for_byte(folder, hub_server):
    address = push(folder, "org/model")
    repository = hub_server.repositories["org/model"]
    commit = repository.branches["main"]
    assert address == f"{hub_server.url}/org/model/commit/{commit}"
    assert repository.messages == ["initial commit", "Publish tiny"]
    assert repository.tags == {"format-1": commit}
    assert {name: data for name, data in repository.files().items() if name != ".gitattributes"} == content(folder)
    assert set(hub_server.objects) == {digest(folder / name) for name in (*LARGE, DECODER)}
    opened = open_bundle("org/model")
    assert (opened.model_id, opened.revision) == ("org/model", commit)
    assert content(opened.folder) == content(folder)
    assert open_bundle("org/model", revision="format-1").revision == commit
    assert not hub_server.leaked


def test_what_is_there_is_not_sent_again_and_what_has_gone_goes(folder, hub_server):
    push(folder, "org/model")
    before = len(hub_server.transfers)
    address = push(folder, "org/model")
    repository = hub_server.repositories["org/model"]
    assert address.endswith(repository.branches["main"])
    assert len(repository.messages) == 2
    (folder / "notes.txt").write_text("notes")
    write_manifest(folder)
    push(folder, "org/model", message="With notes")
    assert repository.tags == {"format-1": repository.branches["main"]}
    (folder / "notes.txt").unlink()
    write_manifest(folder)
    push(folder, "org/model")
    assert len(hub_server.transfers) == before
    assert repository.messages[2:] == ["With notes", "Publish tiny"]
    assert set(repository.files()) == {".gitattributes", *content(folder)}


@pytest.mark.parametrize("arguments", [{}, {"status": 403}])
def test_an_interrupted_upload_goes_on_where_it_was(folder, hub_server, no_waiting, arguments):
    hub_server.fault(rf"PUT /objects/{digest(folder / DECODER)}", times=6, **(arguments or {"cut_after": 1000}))
    with pytest.raises(BundleError, match=r"repository 'org/model': the Hugging Face Hub "):
        push(folder, "org/model")
    assert set(hub_server.repositories["org/model"].files()) == {".gitattributes"}
    hub_server.faults.clear()
    hub_server.transfers.clear()
    missing = {digest(folder / name) for name in (*LARGE, DECODER)} - set(hub_server.objects)
    assert digest(folder / DECODER) in missing
    push(folder, "org/model")
    assert sorted(hub_server.uploaded()) == sorted(missing)
    assert hub_server.repositories["org/model"].files()[DECODER] == (folder / DECODER).read_bytes()


def test_a_connection_that_breaks_once_is_not_even_noticed(folder, hub_server, no_waiting):
    hub_server.fault(rf"PUT /objects/{digest(folder / DECODER)}", cut_after=1000)
    hub_server.fault(r"POST .*/preupload/", status=503)
    push(folder, "org/model")
    sizes = [transfer.size for transfer in hub_server.transfers if transfer.what == digest(folder / DECODER)]
    assert sizes == [1000, (folder / DECODER).stat().st_size]


def test_large_files_in_parts(folder, hub_server):
    hub_server.part_size = 40_000
    push(folder, "org/model")
    sizes = [transfer.size for transfer in hub_server.transfers if transfer.what == digest(folder / DECODER)]
    assert sizes == [40_000, 40_000, 22_400]
    assert content(open_bundle("org/model").folder) == content(folder)


def test_a_damaged_bundle_is_not_sent(folder, hub_server):
    (folder / DECODER).write_bytes(b"damaged" + (folder / DECODER).read_bytes()[7:])
    for publish in (push, plan):
        with pytest.raises(BundleError, match=r"decoder_model_merged\.onnx: its sha256 is not"):
            publish(folder, "org/model")
        with pytest.raises(BundleError, match=r"repo_id: must be of the form 'org/name', got 'model'"):
            publish(folder, "model")
    assert hub_server.log == []


def test_a_dry_run_tells_everything_and_changes_nothing(folder, hub_server, capsys):
    assert main(["push", str(folder), "org/model", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "org/model, branch 'main' (not there yet):" in told
    for name, data in content(folder).items():
        (line,) = (line for line in told.splitlines() if f" {name} " in line)
        way = "LFS" if name in (*LARGE, DECODER) else "regular"
        assert line.split() == ["new", way, name, f"{len(data):,}", "bytes", hashlib.sha256(data).hexdigest()]
    count = len(content(folder))
    assert f"{count} of {count} files to send, {sum(map(len, content(folder).values())):,} bytes" in told
    assert "tag 'format-1'" in told
    assert hub_server.repositories == {}
    assert not [line for line in hub_server.log if not line.startswith("GET")]


def test_a_dry_run_compares_with_what_is_there(folder, hub_server):
    (folder / "old.txt").write_text("old")
    write_manifest(folder)
    push(folder, "org/model")
    (folder / "old.txt").unlink()
    (folder / "new.txt").write_text("new")
    (folder / "adapter.onnx").write_bytes(bytes(2000))
    write_manifest(folder)
    made = plan(folder, "org/model")
    states = {file.path: file.state for file in made.files}
    assert {name for name, state in states.items() if state == "changed"} == {"adapter.onnx", "manifest.json"}
    assert {name for name, state in states.items() if state == "new"} == {"new.txt"}
    assert made.deleted == ("old.txt",)
    assert "deleted             old.txt" in str(made)
    assert "3 of " in str(made)
    assert not plan(folder, "org/model", revision="next").exists


def test_somebody_elses_repository_is_left_alone(folder, hub_server, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "README.md").write_text("---\nlicense: mit\n---\n")
    hub_server.publish("org/begun", other)
    push(folder, "org/begun")
    (other / "weights.bin").write_bytes(b"theirs")
    hub_server.publish("org/other", other)
    for publish in (push, plan):
        with pytest.raises(BundleError, match=r"'org/other' holds 'weights\.bin' and no manifest\.json"):
            publish(folder, "org/other")
    assert len(hub_server.repositories["org/other"].commits) == 1


def test_private_means_private(folder, hub_server, monkeypatch):
    for _ in range(2):
        push(folder, "org/secret", private=True)
    assert hub_server.repositories["org/secret"].private
    push(folder, "org/public")
    with pytest.raises(BundleError, match="'org/public' exists already and is public"):
        push(folder, "org/public", private=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(BundleError, match=r"'org/secret' is not on the Hugging Face Hub, or is private: .* HF_TOKEN"):
        open_bundle("org/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert open_bundle("org/secret").model_id == "org/secret"


def test_another_branch(folder, hub_server):
    push(folder, "org/model", revision="next")
    repository = hub_server.repositories["org/model"]
    assert set(repository.files("main")) == {".gitattributes"}
    assert set(repository.files("next")) == {".gitattributes", *content(folder)}
    assert repository.tags == {}
    assert open_bundle("org/model", revision="next").revision == repository.branches["next"]


def test_nobody_is_overwritten_unseen(folder, hub_server):
    push(folder, "org/model")
    (folder / "notes.txt").write_text("ours")
    write_manifest(folder)
    repository = hub_server.repositories["org/model"]
    theirs = {**repository.files(), "notes.txt": b"theirs"}
    hub_server.fault(r"POST .*/commit/main", before=lambda: repository.commit(theirs, "Theirs"))
    with pytest.raises(BundleError, match="somebody published on 'main' at the same moment"):
        push(folder, "org/model")
    assert repository.files()["notes.txt"] == b"theirs"


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("hf_reader", r"answered 403: the token may not do this"),
        ("hf_nobody", r"answered 401: it does not know who asks; log in with `hf auth login`"),
    ],
)
def test_who_may_not_publish_is_told(folder, hub_server, monkeypatch, capsys, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BundleError, match=message):
        push(folder, "org/model")
    assert main(["push", str(folder), "org/model"]) == 2
    assert capsys.readouterr().err.startswith("export: repository 'org/model'")
    assert hub_server.repositories == {}


def test_an_image_encoders_licence_goes_along(folder, hub_server, tmp_path, capsys):
    config = read_config(folder)
    encoder = attrs.evolve(config.persona_encoder.image_encoder, name="facebook/dinov3", licence="DINOv3 License")
    persona_encoder = attrs.evolve(config.persona_encoder, image_encoder=encoder)
    (folder / "config.json").write_text(attrs.evolve(config, persona_encoder=persona_encoder).to_json())
    write_card(folder)
    with pytest.raises(BundleError, match=r"'facebook/dinov3' under the licence 'DINOv3 License', whose text must go"):
        push(folder, "org/model")
    (tmp_path / "terms").write_text("The terms.")
    assert main(["card", str(folder), "--image-encoder-licence", str(tmp_path / "terms")]) == 0
    capsys.readouterr()
    assert main(["push", str(folder), "org/model"]) == 0
    assert capsys.readouterr().out.startswith(f"{hub_server.url}/org/model/commit/")
    files = hub_server.repositories["org/model"].files()
    assert files[IMAGE_ENCODER_LICENCE] == b"The terms."
    assert b"DINOv3 License, text in [`LICENSE.image_encoder`](LICENSE.image_encoder)" in files["README.md"]


def test_a_model_publishes_itself_and_describes_the_same_from_the_hub(hub_server):
    scene = BUILTIN / "tiny" / "demo" / "scene.png"
    model = DeperModel.from_pretrained("tiny", device="cpu", threads=1)
    model.push_to_hub("org/tiny", private=True)
    fetched = DeperModel.from_pretrained("org/tiny", device="cpu", threads=1)
    assert fetched.revision == hub_server.repositories["org/tiny"].branches["main"]
    assert fetched.describe(scene) == model.describe(scene)


REPORT = {
    "title": "Flickr30k-LN, unseen",
    "facts": {"people": 10},
    "results": {
        "zero-shot": {"BLEU-4": {"value": 0.1}},
        "DEPER, 5 samples": {
            "BLEU-4": {"value": 0.20251, "low": 0.19, "high": 0.21, "level": 0.95},
            "OSS": {"value": 0.329},
            "CLS": {"value": None},
        },
    },
}


def test_the_hub_reads_the_card(folder, tmp_path, capsys):
    config = read_config(folder)
    vlm = attrs.evolve(config.vlm, base_model="Qwen/Qwen2-VL-2B-Instruct", base_revision="0" * 40)
    (folder / "config.json").write_text(attrs.evolve(config, vlm=vlm).to_json())
    (tmp_path / "report.json").write_text(json.dumps(REPORT))
    options = ["--evaluation", str(tmp_path / "report.json"), "--dataset", "org/flickr30k-ln", "--language", "en"]
    assert main(["card", str(folder), *options]) == 0
    assert main(["verify", str(folder)]) == 0
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    data = card.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("pydeper", "image-to-text", "apache-2.0")
    assert (data.base_model, data.base_model_revision) == ("Qwen/Qwen2-VL-2B-Instruct", "0" * 40)
    assert (data.datasets, data.language) == (["org/flickr30k-ln"], ["en"])
    results = [(result.dataset_config, result.metric_type, result.metric_value) for result in data.eval_results]
    assert results == [("DEPER, 5 samples", "bleu", 0.2025), ("DEPER, 5 samples", "oss", 0.329)]
    assert data.eval_results[0].dataset_name == "Flickr30k-LN, unseen"
    for section in ("Use", "Intended use", "Limits", "Training", "Evaluation", "Parts and licences"):
        assert f"\n## {section}\n" in card.text
    assert "| zero-shot " in card.text
    assert "0.203 [0.190, 0.210]" in card.text
    # What was given once stays.
    assert main(["card", str(folder)]) == 0
    assert huggingface_hub.ModelCard.load(folder / "README.md").content == card.content


@pytest.mark.parametrize(
    "report",
    [
        "not JSON",
        "[]",
        json.dumps({"title": "x", "facts": {}}),
        json.dumps({**REPORT, "results": {"DEPER": {"BLEU-4": 0.1}}}),
        json.dumps({**REPORT, "results": {"DEPER": {"BLEU-4": {"value": "high"}}}}),
        json.dumps({**REPORT, "results": {"DEPER": {"BLEU-4": {"value": 0.1, "low": 0.0}}}}),
    ],
)
def test_what_is_no_evaluation_is_refused_before_anything_is_written(folder, tmp_path, capsys, report):
    (tmp_path / "report.json").write_text(report)
    before = content(folder)
    assert main(["card", str(folder), "--evaluation", str(tmp_path / "report.json")]) == 2
    assert "report.json: is not an evaluation" in capsys.readouterr().err
    assert content(folder) == before


def test_a_licence_the_hub_does_not_know_is_named_and_linked():
    config = attrs.evolve(read_config(BUILTIN / "tiny"), licence="My own terms")
    data = huggingface_hub.ModelCard(model_card(config, texts=["LICENSE"])).data
    assert (data.license, data.license_name, data.license_link) == ("other", "My own terms", "LICENSE")


def test_without_the_hub_nothing_is_published(folder, hub_server, monkeypatch):
    from huggingface_hub.utils import close_session

    close_session()
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(BundleError, match="needs the Hugging Face Hub, which HF_HUB_OFFLINE switches off: unset"):
            push(folder, "org/model")
    assert hub_server.log == []
    close_session()
    hub_server.shutdown()
    with pytest.raises(BundleError, match=r"repository 'org/model': the Hugging Face Hub could not be used: .*refused"):
        push(folder, "org/model")
