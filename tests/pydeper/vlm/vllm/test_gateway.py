"""Batches of rows, and the gateway, on a vLLM server."""

from pathlib import Path

import pytest

from pydeper import DeperModel, Persona, VLLMError
from tests.pydeper.serve.running import SCENE, running_gateway
from tests.pydeper.vlm.vllm.conftest import Opened
from tests.support.vllm.server import Fault, VLLMServer


def test_rows_come_piece_by_piece_as_they_do_here(
    server: VLLMServer, opened: Opened, local: DeperModel, people: list[Persona], pictures: list[Path]
) -> None:
    pairs = [(picture, persona) for picture in pictures for persona in (*people, None)]
    texts, ended = [""] * len(pairs), []
    for place, piece in opened(server).stream_batch(pairs):
        if piece is None:
            ended.append(place)
        else:
            texts[place] += piece
    assert sorted(ended) == list(range(len(pairs)))
    assert texts == [local.describe(picture, persona) for picture, persona in pairs]


def test_a_row_that_is_not_wanted_any_more_ends_alone(
    server: VLLMServer, opened: Opened, local: DeperModel, pictures: list[Path]
) -> None:
    texts = ["", ""]
    for place, piece in opened(server).stream_batch(
        [(picture, None) for picture in pictures[:2]], wanted=lambda place: place != 1
    ):
        texts[place] += piece or ""
    assert texts == [local.describe(pictures[0]), ""]


def test_a_server_that_fails_ends_the_rows_with_its_error(
    server: VLLMServer, opened: Opened, pictures: list[Path]
) -> None:
    model = opened(server, retries=0)
    server.script = [Fault(status=503)] * 2
    with pytest.raises(VLLMError, match="it is not available"):
        list(model.stream_batch([(pictures[0], None), (pictures[1], None)]))


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
        assert client.post("/v1/describe", files={"image": SCENE}).status_code == 200
