"""Bodies that are too large or too slow, however they are sent."""

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from pydeper import DeperModel
from tests.pydeper.serve.running import SCENE, Gateway, running_gateway


@pytest.fixture(scope="module")
def gateway(tiny: DeperModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("limits")
    with running_gateway(tiny, folder, keys=False, max_bytes=50_000, upload_seconds=0.5) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/describe", "/v1/personas"])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_is_refused(gateway: Gateway, path: str, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(80):
            yield bytes(1000)

    headers = {"Content-Type": "application/json"}
    with gateway.client() as client:
        answer = client.post(path, content=chunks() if chunked else bytes(80_000), headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (413, "urn:pydeper:problem:too-large")
        assert client.post("/v1/describe", files={"image": SCENE}).status_code == 200


def connected(gateway: Gateway, *lines: str) -> socket.socket:
    """Returns a connection on which a request with these headers has begun."""
    address = urlsplit(gateway.address)
    assert address.hostname
    assert address.port
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    connection.sendall("\r\n".join(["POST /v1/describe HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
    return connection


@pytest.mark.parametrize("length", ["Content-Length: 40000", "Transfer-Encoding: chunked"])
def test_a_body_that_is_too_slow_is_refused(gateway: Gateway, length: str) -> None:
    with connected(gateway, "Content-Type: application/json", length) as connection:
        connection.setblocking(False)
        answer, sent = b"", 0
        until = time.monotonic() + 30
        while b"\r\n\r\n" not in answer and time.monotonic() < until:
            time.sleep(0.05)
            try:
                connection.send(b"1\r\n{\r\n" if "chunked" in length else b" ")
                sent += 1
                answer += connection.recv(10_000)
            except BlockingIOError:
                continue
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:pydeper:problem:upload-too-slow" in answer
    assert sent < 100


def test_a_declared_length_is_refused_before_the_body_comes(gateway: Gateway) -> None:
    lines = ["Content-Type: application/json", "Content-Length: 10000000000", "Expect: 100-continue"]
    with connected(gateway, *lines) as connection:
        assert connection.recv(10_000).startswith(b"HTTP/1.1 413 ")


def test_many_parts_are_refused(gateway: Gateway) -> None:
    with gateway.client() as client:
        many = client.post("/v1/describe", files=[("image", ("a", b"x"))] * 5)
        fields = client.post(
            "/v1/describe", files={"image": SCENE}, data={f"field{number}": "1" for number in range(50)}
        )
    for answer in (many, fields):
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:pydeper:problem:invalid-request")
        assert "Too many" in answer.json()["detail"]
