"""Batches of rows, and the gateway, on a vLLM server."""

import time
from pathlib import Path

from pydeper import DeperModel, Persona, VLLMError
from pydeper.model.requests import DescriptionRequest
from tests.pydeper.serve.running import SCENE, running_gateway
from tests.pydeper.vlm.vllm.conftest import Opened
from tests.support.vllm.server import Fault, VLLMServer


def test_requests_come_and_go_as_they_do_here(
    server: VLLMServer, opened: Opened, local: DeperModel, people: list[Persona], pictures: list[Path]
) -> None:
    requests: list[DescriptionRequest] = [
        (picture, persona, {"max_new_tokens": 4 + number})
        for picture in pictures
        for number, persona in enumerate((*people, None))
    ]
    texts, ended = [""] * len(requests), []
    more = [requests[start : start + 2] for start in range(2, len(requests), 2)]
    for number, piece in opened(server).stream_batch(requests[:2], more=lambda running: more.pop(0) if more else ()):
        if piece is None:
            ended.append(number)
        else:
            assert isinstance(piece, str)
            texts[number] += piece
    assert sorted(ended) == list(range(len(texts)))
    assert texts == [local.describe(picture, persona, **options) for picture, persona, options in requests]


def test_one_that_is_not_wanted_any_more_ends_alone(
    server: VLLMServer, opened: Opened, local: DeperModel, pictures: list[Path]
) -> None:
    texts = ["", ""]
    for number, piece in opened(server).stream_batch(
        [(picture, None, {}) for picture in pictures[:2]], wanted=lambda number: number != 1
    ):
        assert piece is None or isinstance(piece, str)
        texts[number] += piece or ""
    assert texts == [local.describe(pictures[0]), ""]


def test_one_that_is_not_wanted_any_more_ends_before_its_first_piece(
    server: VLLMServer, opened: Opened, pictures: list[Path]
) -> None:
    """The server is still reading the prompt: the request is closed all the same."""
    server.script = [Fault(how="wait")]
    until = time.monotonic() + 0.3
    pieces = opened(server).stream_batch([(pictures[0], None, {})], wanted=lambda number: time.monotonic() < until)
    assert list(pieces) == [(0, None)]
    assert server.left.wait(20)


def test_a_server_that_fails_ends_what_it_was_sent_alone(
    server: VLLMServer, opened: Opened, local: DeperModel, pictures: list[Path]
) -> None:
    model = opened(server, retries=0)
    server.script = [Fault(status=503)]
    joining = iter([[(pictures[1], None, {})]])
    pieces = list(model.stream_batch([(pictures[0], None, {})], more=lambda running: next(joining, [])))
    (error,) = [piece for number, piece in pieces if number == 0]
    assert isinstance(error, VLLMError)
    assert "it is not available" in str(error)
    assert "".join(str(piece or "") for number, piece in pieces if number == 1) == local.describe(pictures[1])


def test_the_gateway_gives_what_it_gives_here(
    server: VLLMServer, opened: Opened, local: DeperModel, people: list[Persona], tmp_path: Path
) -> None:
    with running_gateway(opened(server), tmp_path, keys=False) as gateway, gateway.client() as client:
        files = {"image": SCENE, "persona": people[0].to_bytes()}
        assert client.post("/v1/describe", files=files).json()["description"] == local.describe(SCENE, people[0])
        refused = client.post("/v1/describe", files=files, data={"strength": 2})
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:pydeper:problem:invalid-request")


def test_the_gateway_says_that_a_server_fails(server: VLLMServer, opened: Opened, tmp_path: Path) -> None:
    with running_gateway(opened(server, retries=0), tmp_path, keys=False) as gateway, gateway.client() as client:
        server.script = [Fault(status=503)]
        failed = client.post("/v1/describe", files={"image": SCENE})
        assert (failed.status_code, failed.json()["type"]) == (503, "urn:pydeper:problem:model-unavailable")
        assert "127.0.0.1" not in failed.text  # where the servers are is no concern of clients
        assert client.post("/v1/describe", files={"image": SCENE}).status_code == 200
