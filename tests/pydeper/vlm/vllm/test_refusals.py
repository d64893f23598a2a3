"""What a server refuses, or cannot do, is explained, with the remedy."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pydeper import (
    DeperModel,
    InvalidArgumentError,
    Persona,
    VLLMAuthenticationError,
    VLLMError,
    VLLMIncompatibleError,
    VLLMServers,
    VLLMUnreachableError,
)
from tests.pydeper.vlm.vllm.conftest import Opened
from tests.support.processes import FORKS, forked
from tests.support.vllm.engine import Engine
from tests.support.vllm.server import Fault, VLLMServer

CERTIFICATE = Path(__file__).parents[3] / "support/vllm/localhost.pem"
KEY = "sk-not-to-be-shown"


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ({"version": "0.20.2"}, VLLMIncompatibleError, r"is vLLM '0\.20\.2', and pydeper needs vLLM 0\.21 or newer"),
        (
            {"models": [{"id": "Qwen/Qwen2-VL-7B-Instruct", "root": "Qwen/Qwen2-VL-7B-Instruct"}]},
            VLLMIncompatibleError,
            r"serves another model than the bundle's base model 'tiny .*it serves 'Qwen/Qwen2-VL-7B.*model=NAME",
        ),
        ({"models": []}, VLLMIncompatibleError, "serves another model.*it serves none"),
        ({"models": {"id": 1}}, VLLMError, "does not answer as vLLM does; check the address"),
        ({"models": [{"name": "x"}]}, VLLMError, "does not answer as vLLM does; check the address"),
    ],
)
def test_a_server_that_does_not_fit_is_refused_at_loading(
    server: VLLMServer, opened: Opened, said: dict[str, Any], kind: type[VLLMError], told: str
) -> None:
    vars(server).update(said)
    with pytest.raises(kind, match=f"^{server.address}: {told}"):
        opened(server)


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        ({"version": None}, {}),
        ({"version": "0.1.dev1+g0123abc"}, {}),
        ({"version": "1.0.0"}, {}),
        ({"models": [{"id": "vlm", "root": "/models/Tiny (drawn scenes only)/"}]}, {}),
        ({"models": [{"id": "lora"}, {"id": "org/tiny (drawn scenes only)", "max_model_len": 500}]}, {}),
        ({"models": [{"id": "other", "max_model_len": None}]}, {"model": "other"}),
    ],
)
def test_a_server_that_fits_by_version_and_name(
    server: VLLMServer,
    opened: Opened,
    local: DeperModel,
    people: list[Persona],
    pictures: list[Path],
    said: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    vars(server).update(said)
    assert opened(server, **settings).describe(pictures[0], people[0]) == local.describe(pictures[0], people[0])


def test_a_name_that_is_not_served(server: VLLMServer, opened: Opened) -> None:
    with pytest.raises(VLLMIncompatibleError, match="serves no model 'qwen'; it serves 'served'"):
        opened(server, model="qwen")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"enable_prompt_embeds": False}, "takes no embeddings: start vLLM with --enable-prompt-embeds"),
        ({"hidden_size": 1536}, "serves a model of hidden size 1536, and the bundle's soft tokens have 256 numbers"),
        (
            {"opening": "<|im_start|>"},
            r"reads the prompt as other tokens .*\(they differ from token 2 on\).*chat templ",
        ),
        ({"opening": "<|image_pad|>"}, "takes an image as 82 tokens, and the bundle's model as 81: .*max_pixels"),
    ],
)
def test_a_server_that_was_started_otherwise(
    server: VLLMServer,
    engine: Engine,
    opened: Opened,
    people: list[Persona],
    pictures: list[Path],
    wrong: dict[str, Any],
    told: str,
) -> None:
    model = opened(server)
    vars(engine).update(wrong)
    for describe in (model.describe, lambda *of: list(model.stream(*of))):
        with pytest.raises(VLLMIncompatibleError, match=f"^{server.address}: {told}"):
            describe(pictures[0], people[0])
    assert len(server.completions) == 2  # no other try would end otherwise


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (
            Fault(400, {"message": "Unknown part type: prompt_embeds"}),
            VLLMIncompatibleError,
            r"does not take a soft token.* needs vLLM 0\.21.*Unknown part type",
        ),
        (
            Fault(400, {"message": "This model's maximum context length is 64 tokens"}),
            InvalidArgumentError,
            "do not fit into the context of .*--max-model-len",
        ),
        (
            Fault(400, {"message": "At most 0 image(s) may be provided in one prompt."}),
            VLLMIncompatibleError,
            "takes no images: .*--limit-mm-per-prompt",
        ),
        (Fault(404, '{"detail": "Not Found"}'), VLLMIncompatibleError, r"\(404\): check the address.*Not Found"),
        (Fault(403), VLLMAuthenticationError, r"refuses the API key, or wants one \(403\): set \$PYDEPER_VLLM_API_KEY"),
        (Fault(308, headers={"Location": "/v2"}), VLLMError, r"sends requests elsewhere \(308\)"),
        (Fault(500, "<html>"), VLLMError, r"refused the request \(500\)$"),
        (Fault(400, {"message": "\x1b[2J" + "long " * 1000}), VLLMError, r"it says: \"\\x1b\[2Jlong .{,300}$"),
        (
            Fault(after=0, how="error", error={"message": "engine died"}),
            VLLMError,
            'refused the request; .*"engine died"',
        ),
    ],
    ids=str,
)
def test_refusals_are_explained(
    server: VLLMServer,
    opened: Opened,
    people: list[Persona],
    pictures: list[Path],
    fault: Fault,
    kind: type[Exception],
    told: str,
) -> None:
    model = opened(server)
    server.script = [fault]
    with pytest.raises(kind, match=told):
        model.describe(pictures[0], people[0])
    assert len(server.completions) == 1


def test_a_context_that_is_too_short(
    server: VLLMServer, opened: Opened, local: DeperModel, people: list[Persona], pictures: list[Path]
) -> None:
    server.models = [{"id": "served", "root": server.engine.base_model, "max_model_len": 120}]
    text = opened(server).describe(pictures[0], people[0])
    prompt = server.completions[0]["max_tokens"]
    assert local.describe(pictures[0], people[0], max_new_tokens=prompt) == text
    server.models = [{"id": "served", "root": server.engine.base_model, "max_model_len": 20}]
    with pytest.raises(InvalidArgumentError, match=r"takes .* the vLLM server's context holds 20: .*--max-model-len"):
        opened(server).describe(pictures[0], people[0])


class TestTheKey:
    def test_it_is_sent_and_never_shown(
        self,
        server: VLLMServer,
        opened: Opened,
        people: list[Persona],
        pictures: list[Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server.key = KEY
        given = opened(server, api_key=KEY)
        monkeypatch.setenv("PYDEPER_VLLM_API_KEY", KEY)
        found = opened(server)
        assert given.describe(pictures[0], people[0]) == found.describe(pictures[0], people[0])
        for thing in (VLLMServers(server.address, api_key=KEY), given, found, given.report(), found.report()):
            assert KEY not in repr(thing) + str(thing)

    @pytest.mark.parametrize("settings", [{}, {"api_key": "sk-another"}])
    def test_one_that_is_missing_or_wrong(self, server: VLLMServer, opened: Opened, settings: dict[str, Any]) -> None:
        server.key = KEY
        with pytest.raises(VLLMAuthenticationError, match=r"refuses the API key, or wants one \(401\)") as caught:
            opened(server, **settings)
        assert "sk-" not in str(caught.value)

    def test_a_server_that_repeats_it(
        self, server: VLLMServer, opened: Opened, people: list[Persona], pictures: list[Path]
    ) -> None:
        model = opened(server, api_key=KEY)
        faults = [Fault(400, {"message": f"what is {KEY}?"}), Fault(after=0, how="error", error={"message": KEY})]
        for fault in faults:
            server.script = [fault]
            with pytest.raises(VLLMError, match=r"it says: .*\.\.\.") as caught:
                model.describe(pictures[0], people[0])
            assert KEY not in str(caught.value)


class TestTLS:
    @pytest.fixture
    def secure(self, engine: Engine) -> Any:
        server = VLLMServer(engine, certificate=CERTIFICATE)
        yield server
        server.close()

    @pytest.mark.parametrize("settings", [{"ca_file": CERTIFICATE}, {"verify": False}])
    def test_a_certificate_that_is_trusted(
        self,
        secure: VLLMServer,
        opened: Opened,
        local: DeperModel,
        people: list[Persona],
        pictures: list[Path],
        settings: dict[str, Any],
    ) -> None:
        model = opened(secure, **settings)
        assert model.describe(pictures[0], people[0]) == local.describe(pictures[0], people[0])

    def test_one_that_is_not(self, secure: VLLMServer, opened: Opened) -> None:
        with pytest.raises(VLLMUnreachableError, match=r"its certificate is not trusted.*ca_file"):
            opened(secure)

    @pytest.mark.parametrize("content", [None, "no certificate"])
    def test_a_file_without_certificates(
        self, secure: VLLMServer, opened: Opened, tmp_path: Path, content: str | None
    ) -> None:
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_text(content)
        with pytest.raises(InvalidArgumentError, match=rf"ca_file: {re.escape(str(path))}: holds no certificates"):
            opened(secure, ca_file=path)


@FORKS
def test_a_model_does_not_cross_a_fork(server: VLLMServer) -> None:
    printed = forked(f"""
model = pydeper.DeperModel.from_pretrained("tiny", vlm={server.address!r})
in_child(lambda: model.describe(scene))
in_child(lambda: list(model.stream(scene)))
print(len(model.describe(scene)) > 0)
""")
    told = [line for line in printed.splitlines() if line.startswith("ForkedProcessError this model was loaded in")]
    assert len(told) == printed.count("exit status 7") == 2
    assert printed.endswith("True\n")


def test_httpx_is_missing(server: VLLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pydeper.vlm.vllm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(VLLMError, match=r'pip install "pydeper\[vllm\]"'):
        DeperModel.from_pretrained("tiny", vlm=server.address)
