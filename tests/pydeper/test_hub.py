import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import numpy as np
import pytest

from export.bundle.assemble import write_card, write_manifest
from pydeper import BundleError, DeperModel, Persona, PersonaError, read_samples
from pydeper.bundle.bundle import open_bundle, read_config
from pydeper.bundle.layout import BUILTIN

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TINY = BUILTIN / "tiny"
PARTS = ("persona_encoder.onnx", "adapter.onnx", "vlm/decoder_model_merged.onnx", "vlm/embed_tokens.npy")
VISION = "vlm/vision_encoder.onnx"
OPEN = """
import sys
from pydeper.bundle.bundle import open_bundle
opened = open_bundle(sys.argv[1], revision=sys.argv[2] or None)
print(opened.folder)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PYDEPER_CACHE", str(tmp_path / "pydeper-cache"))


@pytest.fixture
def folder(tmp_path):
    """A bundle as far as files and config go; nothing here runs its parts."""
    home = tmp_path / "bundle"
    (home / "vlm").mkdir(parents=True)
    (home / "config.json").write_bytes((TINY / "config.json").read_bytes())
    (home / "tokenizer.json").write_text("{}")
    for number, name in enumerate((*PARTS, VISION), 1):
        (home / name).write_bytes(bytes([number, 0]) * 500)
    (home / VISION).write_bytes(bytes(range(256)) * 4000)
    write_card(home)
    return home


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sent(server, name):
    """Where each transfer of a file began, and how much went."""
    return [(transfer.start, transfer.size) for transfer in server.transfers if transfer.what.endswith(name)]


def left_in(cache):
    return [path.name for path in Path(cache).rglob("*") if path.name.endswith((".incomplete", ".tmp"))]


def run(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )


# Revisions


def test_a_branch_is_its_commit_from_then_on(folder, hub_server):
    first = hub_server.publish("org/model", folder)
    opened = open_bundle("org/model", revision="main")
    assert (opened.revision, opened.folder.name) == (first, first)
    (folder / "notes.txt").write_text("newer")
    write_manifest(folder)
    second = hub_server.publish("org/model", folder)
    assert open_bundle("org/model").revision == second
    assert open_bundle("org/model", revision=first).revision == first
    assert "notes.txt" not in content(open_bundle("org/model", revision=first).folder)
    # What did not change between the two was not fetched twice.
    assert [size for _, size in sent(hub_server, VISION)] == [(folder / VISION).stat().st_size]


def test_model_and_persona_remember_the_commit(hub_server):
    commit = hub_server.publish("org/tiny", TINY)
    model = DeperModel.from_pretrained("org/tiny", device="cpu", threads=1, revision="main")
    assert (model.model_id, model.revision) == ("org/tiny", commit)
    samples = read_samples(TINY / "demo" / "ana.jsonl")
    ana = Persona.from_samples(samples, model=model, name="ana")
    assert (ana.model_id, ana.model_revision) == ("org/tiny", commit)
    assert commit[:12] in repr(model)


def test_a_vlm_elsewhere_comes_at_its_own_commit(folder, hub_server, tmp_path):
    vlm = tmp_path / "elsewhere"
    (folder / "vlm").rename(vlm)
    (vlm / "pytorch_model.bin").write_bytes(b"torch")
    pinned = hub_server.publish("org/vlm", vlm)
    config = read_config(folder)
    source = attrs.evolve(config.vlm, source="org/vlm", source_revision=pinned)
    (folder / "config.json").write_text(attrs.evolve(config, vlm=source).to_json())
    write_manifest(folder)
    commit = hub_server.publish("org/model", folder)
    (vlm / "vision_encoder.onnx").write_bytes(b"newer")
    hub_server.publish("org/vlm", vlm)
    opened = open_bundle("org/model", revision="main")
    assert (opened.revision, opened.vlm_folder.name) == (commit, pinned)
    assert hub_server.downloaded("org/vlm") == {"vision_encoder.onnx", "decoder_model_merged.onnx", "embed_tokens.npy"}
    assert (opened.vlm_folder / "vision_encoder.onnx").read_bytes() == bytes(range(256)) * 4000
    requests = hub_server.requests
    assert open_bundle("org/model", revision=commit) == opened
    assert hub_server.requests == requests


def test_a_card_that_was_edited_on_its_page_keeps_nobody_from_the_model(folder, hub_server):
    hub_server.publish("org/model", folder)
    repository = hub_server.repositories["org/model"]
    repository.commit({**repository.files(), "README.md": b"Our own words."}, "Edit README.md")
    assert (open_bundle("org/model").folder / "README.md").read_bytes() == b"Our own words."
    files = {name: data for name, data in repository.files().items() if name != "README.md"}
    commit = repository.commit(files, "Delete README.md")
    assert open_bundle("org/model").revision == commit


# Without the network

NO_NETWORK = """
import socket
def refuse(*arguments, **options):
    raise AssertionError("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
import sys, pydeper
for name, revision in zip(sys.argv[2::2], sys.argv[3::2]):
    model = pydeper.DeperModel.from_pretrained(name, device="cpu", threads=1, revision=revision or None)
    print(model.describe(sys.argv[1]))
"""


def test_what_is_cached_or_built_in_needs_no_network_at_all(hub_server, tmp_path, monkeypatch):
    commit = hub_server.publish("org/tiny", TINY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    expected = DeperModel.from_pretrained("org/tiny", device="cpu", threads=1).describe(TINY / "demo" / "scene.png")
    requests, scene = hub_server.requests, TINY / "demo" / "scene.png"
    online = hub_server.environment(tmp_path / "home")
    pinned = run(NO_NETWORK, scene, "tiny", "", "org/tiny", commit, **online)
    offline = run(NO_NETWORK, scene, "org/tiny", "", "org/tiny", "main", **online, HF_HUB_OFFLINE="1")
    for done in (pinned, offline):
        assert (done.stdout.split("\n"), done.stderr) == ([expected, expected, ""], "")
    assert hub_server.requests == requests


def test_a_branch_that_was_fetched_serves_while_the_hub_does_not(folder, hub_server, no_waiting):
    commit = hub_server.publish("org/model", folder)
    open_bundle("org/model")
    hub_server.fault("", times=99, status=503)
    assert open_bundle("org/model").revision == commit
    hub_server.shutdown()
    assert open_bundle("org/model").revision == commit
    assert open_bundle("org/model", local_files_only=True).revision == commit


# Interruptions


@pytest.mark.parametrize("times", [1, 3])
def test_a_broken_download_goes_on_where_it_broke(folder, hub_server, no_waiting, times, monkeypatch):
    # What is lost is at most the piece in progress, which has 10 MB.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)
    hub_server.publish("org/model", folder)
    whole = (folder / VISION).stat().st_size
    hub_server.fault(f"GET /objects/.*/{VISION}", times=times, cut_after=200_000)
    assert content(open_bundle("org/model").folder) == content(folder)
    assert sent(hub_server, VISION) == [
        *((200_000 * n, 200_000) for n in range(times)),
        (200_000 * times, whole - 200_000 * times),
    ]
    assert sum(size for _, size in sent(hub_server, VISION)) == whole


def test_a_failed_download_keeps_what_is_whole(folder, hub_server, no_waiting, tmp_path):
    hub_server.publish("org/model", folder)
    hub_server.fault(f"GET /objects/.*/{VISION}", times=99, cut_after=0)
    with pytest.raises(BundleError, match=r"model 'org/model': the Hugging Face Hub could not be used: "):
        open_bundle("org/model")
    assert left_in(tmp_path / "hub-cache") == []
    hub_server.faults.clear()
    before = {name for name in content(folder) if [size for _, size in sent(hub_server, name) if size]}
    assert VISION not in before
    assert {"config.json", "manifest.json"} <= before
    assert content(open_bundle("org/model").folder) == content(folder)
    assert all(len([size for _, size in sent(hub_server, name) if size]) == 1 for name in content(folder))


def test_what_comes_altered_is_not_believed(folder, hub_server):
    hub_server.publish("org/model", folder)
    repository = hub_server.repositories["org/model"]
    repository.commit({**repository.files(), VISION: (folder / VISION).read_bytes()[::-1]}, "Tamper")
    with pytest.raises(BundleError, match=r"vision_encoder\.onnx: its sha256 is not the one of manifest\.json"):
        open_bundle("org/model")


def test_two_processes_at_once_both_succeed(folder, hub_server, tmp_path):
    hub_server.publish("org/model", folder)
    hub_server.fault("GET /objects/", times=99, wait=0.2)
    environment = {**hub_server.environment(tmp_path / "home"), "PYDEPER_CACHE": str(tmp_path / "own")}
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(run(OPEN, "org/model", "", **environment))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(done.returncode, done.stderr) for done in found] == [(0, "")] * 2
    assert found[0].stdout == found[1].stdout
    assert content(Path(found[0].stdout.strip())) == content(folder)
    assert left_in(tmp_path / "home") == []


# Errors


def test_progress_is_shown_and_a_full_disk_explained(folder, hub_server, tmp_path):
    hub_server.publish("org/model", folder)
    environment = {**hub_server.environment(tmp_path / "home"), "PYDEPER_CACHE": str(tmp_path / "own")}
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        f"try:\n    exec({OPEN!r})\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = run(limited, "org/model", "", **environment)
    assert done.stdout.startswith("BundleError model 'org/model': there is no room for it in the cache ")
    assert "set HF_HOME to a folder on another disk" in done.stdout
    assert left_in(tmp_path / "home") == []
    hub_server.transfers.clear()
    del environment["HF_HUB_DISABLE_PROGRESS_BARS"]
    done = run(OPEN, "org/model", "", **environment)
    assert content(Path(done.stdout.strip())) == content(folder)
    assert VISION in hub_server.downloaded("org/model")
    assert "manifest.json" not in hub_server.downloaded("org/model")
    assert "Fetching" in done.stderr
    assert "100%" in done.stderr


def ask_for_a_model():
    open_bundle("org/model", revision="v1")


def ask_for_a_persona():
    Persona.from_pretrained("org/model", "ana", revision="v1")


@pytest.fixture(params=[ask_for_a_model, ask_for_a_persona])
def ask(request, folder, hub_server, no_waiting, monkeypatch):
    vector = np.ones(384, np.float32)
    made = Persona(subject_embedding=vector, encoder_fingerprint="f", model_id="org/m", num_samples=5, name="ana")
    made.save(folder / "ana.safetensors")
    write_manifest(folder)
    commit = hub_server.publish("org/model", folder)
    hub_server.repositories["org/model"].tags["v1"] = commit
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    return request.param


def refusal(ask):
    with pytest.raises((BundleError, PersonaError)) as caught:
        ask()
    return str(caught.value)


def test_errors_missing_repository(ask, hub_server):
    del hub_server.repositories["org/model"]
    assert "'org/model' is not on the Hugging Face Hub, or is private: check the spelling" in refusal(ask)


def test_errors_missing_revision(ask, hub_server):
    del hub_server.repositories["org/model"].tags["v1"]
    assert "'org/model' on the Hugging Face Hub has no revision 'v1': name a branch, tag or commit" in refusal(ask)


def test_errors_missing_file(ask, hub_server):
    repository = hub_server.repositories["org/model"]
    files = {name: data for name, data in repository.files().items() if name != "ana.safetensors"}
    repository.tags["v1"] = repository.commit(files, "Lose a file")
    message = {
        ask_for_a_model: "ana.safetensors: is missing, but manifest.json lists it",
        ask_for_a_persona: "'ana.safetensors' of 'org/model' does not exist on the Hugging Face Hub",
    }
    assert message[ask] in refusal(ask)


def test_errors_gated(ask, hub_server):
    hub_server.repositories["org/model"].gated = True
    assert "'org/model' on the Hugging Face Hub is gated: accept its terms on its page" in refusal(ask)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "is not on the Hugging Face Hub, or is private: check the spelling, and for a private repository log in"),
        ("hf_wrong", "answered 401: it does not know who asks; log in with `hf auth login`, or set HF_TOKEN"),
    ],
)
def test_errors_private(ask, hub_server, monkeypatch, token, message):
    hub_server.repositories["org/model"].private = True
    monkeypatch.setenv("HF_TOKEN", token)
    assert message in refusal(ask)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    ask()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "answered 403: the token may not do this"),
        (429, "answered 429: it was asked too often; wait some minutes"),
        (500, "answered 500: it has trouble of its own; try again later"),
        (503, "answered 503: it has trouble of its own; try again later"),
    ],
)
def test_errors_a_hub_in_trouble(ask, hub_server, status, message):
    hub_server.fault("", times=999, status=status)
    assert message in refusal(ask)
    hub_server.faults.clear()
    ask()


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_in_trouble_for_a_moment_is_waited_for(ask, hub_server, status):
    hub_server.fault("HEAD", times=2, status=status, headers={"Retry-After": "1"})
    ask()


def test_errors_no_network(ask, hub_server):
    hub_server.shutdown()
    assert "is not in the local cache and the Hugging Face Hub was not reached: fetch it once" in refusal(ask)


def test_errors_offline(ask, hub_server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from huggingface_hub.utils import close_session

    close_session()
    try:
        assert "is not in the local cache and the Hugging Face Hub was not reached: fetch it once" in refusal(ask)
    finally:
        close_session()
    assert hub_server.log == []


def test_errors_a_server_that_is_no_hub(ask, hub_server):
    hub_server.fault("", times=999, status=200)
    assert f"{hub_server.url} answers as no Hugging Face Hub does" in refusal(ask)


def test_errors_no_space(ask, monkeypatch, tmp_path):
    def full(*arguments, **options):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("huggingface_hub.file_download._chmod_and_move", full)
    assert "there is no room for it in the cache" in refusal(ask)
    assert left_in(tmp_path / "hub-cache") == []


def test_the_manifest_may_not_lead_elsewhere(folder, hub_server):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["../../evil"] = {"size": 1, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    hub_server.publish("org/evil", folder)
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        open_bundle("org/evil")
    assert hub_server.downloaded("org/evil") == {"config.json", "manifest.json"}
