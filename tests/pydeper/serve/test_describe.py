"""`POST /v1/describe`: what it gives, and what it says of requests that are wrong."""

import base64
import concurrent.futures
import io
import json
import threading
from typing import Any

import attrs
import pytest
from PIL import Image

from pydeper import DeperModel, Persona
from pydeper.vlm.local.runtime import Qwen2VLRuntime
from tests.pydeper.serve.running import SCENE, Gateway, running_gateway
from tests.support.images import random_image


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def events(text: str) -> list[tuple[str, Any]]:
    found = (event.split("\n", 1) for event in text.strip().split("\n\n"))
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in found]


def test_it_gives_what_the_model_gives(gateway: Gateway, tiny: DeperModel, people: dict[str, Persona]) -> None:
    with gateway.client("a") as client:
        for person in (None, *people.values()):
            said = {"description": tiny.describe(SCENE, person), "model": "tiny"}
            file = {} if person is None else {"persona": person.to_bytes()}
            form = client.post("/v1/describe", files={"image": SCENE, **file})
            body = {"image": encoded(SCENE), **{name: encoded(data) for name, data in file.items()}}
            assert form.json() == client.post("/v1/describe", json=body).json() == said
            assert form.headers["cache-control"] == "no-store"


def test_options_are_those_of_describe(gateway: Gateway, tiny: DeperModel, people: dict[str, Persona]) -> None:
    options: dict[str, Any] = {"temperature": 1.2, "top_p": 0.9, "seed": 5, "strength": 1.5, "max_new_tokens": 9}
    said = tiny.describe(SCENE, people["ana"], **options)
    files = {"image": SCENE, "persona": people["ana"].to_bytes()}
    with gateway.client("a") as client:
        assert client.post("/v1/describe", files=files, data=options).json()["description"] == said


def test_a_stream_comes_in_pieces(gateway: Gateway, tiny: DeperModel, people: dict[str, Persona]) -> None:
    files = {"image": SCENE, "persona": people["ben"].to_bytes()}
    with gateway.client("a") as client:
        answer = client.post("/v1/describe", files=files, data={"stream": "true"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, last = events(answer.text)
    assert {name for name, _ in pieces} == {"piece"}
    assert len(pieces) > 5
    assert "".join(data["text"] for _, data in pieces) == tiny.describe(SCENE, people["ben"])
    assert last == ("done", {"model": "tiny"})


def test_requests_of_one_moment_are_one_batch_and_none_is_mixed_up(
    gateway: Gateway, tiny: DeperModel, people: dict[str, Persona]
) -> None:
    jobs = [
        (png(random_image(84, 84, number)), person, streamed, tokens)
        for number, (person, streamed, tokens) in enumerate(
            (person, streamed, tokens)
            for person in (*people.values(), None)
            for streamed in (False, True)
            for tokens in (7, 12, 12)
        )
    ]

    def ask(job: tuple[bytes, Persona | None, bool, int]) -> str:
        image, person, streamed, tokens = job
        files = {"image": image, **({} if person is None else {"persona": person.to_bytes()})}
        answer = client.post("/v1/describe", files=files, data={"stream": str(streamed), "max_new_tokens": tokens})
        if streamed:
            return "".join(data.get("text", "") for _, data in events(answer.text))
        return str(answer.json()["description"])

    with gateway.client("a") as client, concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(ask, jobs))
        metrics = client.get("/metrics").text
    assert found == [tiny.describe(image, person, max_new_tokens=tokens) for image, person, _, tokens in jobs]
    batches, rows = (
        float(line.split()[1])
        for name in ("pydeper_batch_rows_count", "pydeper_batch_rows_sum")
        for line in metrics.splitlines()
        if line.startswith(f"{name} ")
    )
    assert batches < rows


OTHERS = {"encoder_fingerprint": "sha256:" + "0" * 64, "model_id": "another"}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({}, 422, "image: Field required"),
        ({"image": "%%%"}, 422, "image: Value error, is not base64"),
        ({"image": ""}, 422, "image given as 0 bytes"),
        ({"image": encoded(b"no image")}, 422, "is not an image file"),
        ({"image": encoded(SCENE[:700])}, 422, "damaged or cut short"),
        ({"image": "https://example.org/a.png"}, 422, "addresses are not fetched"),
        ({"image": "data:image/png;base64,AAAA"}, 422, "data URI"),
        ({"image": encoded(png(Image.new("RGB", (1000, 600))))}, 422, "at most 500000: make it smaller"),
        ({"style": "sonnet"}, 422, "style: model 'tiny' knows"),
        ({"style": "s" * 100}, 422, "style: "),
        ({"max_new_tokens": 0}, 422, "max_new_tokens: "),
        ({"max_new_tokens": 100_000}, 422, "at most 512"),
        ({"temperature": -1}, 422, "temperature: "),
        ({"top_p": 0}, 422, "top_p: "),
        ({"seed": 2**70}, 422, "seed: "),
        ({"strength": "NaN"}, 422, "strength: "),
        ({"colour": "red"}, 422, "colour: "),
        ({"deadline_seconds": 0}, 422, "deadline_seconds: "),
        ({"persona": encoded(b"nobody")}, 422, "persona: not a safetensors file"),
        ({"persona_id": "x" * 1000}, 422, "persona_id: "),
        ({"persona_id": "0" * 32}, 404, "no persona of this id"),
        ({"persona_id": "0" * 32, "persona": encoded(b"x")}, 422, "both given"),
        ("another encoder", 422, "was made by the persona encoder"),
    ],
)
def test_what_is_wrong_is_a_problem_with_cause_and_remedy(
    gateway: Gateway, people: dict[str, Persona], body: Any, status: int, detail: str
) -> None:
    if body == "another encoder":
        body = {"persona": encoded(attrs.evolve(people["ana"], **OTHERS).to_bytes())}
    if body:
        body = {"image": encoded(SCENE), **body}
    with gateway.client("a") as client:
        answer = client.post("/v1/describe", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert detail in problem["detail"]
    assert problem["status"] == status
    assert problem["remedy"]
    assert problem["type"].startswith("urn:pydeper:problem:")


TEXT_PART = b"--x\r\nContent-Disposition: form-data; name=image\r\n\r\nhttp://a/b\r\n--x--\r\n"


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"\xff\xfe", "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (SCENE, "image/png", 415),
        (b"image=1", "application/x-www-form-urlencoded", 415),
        (b"", None, 415),
        (b"nothing", "multipart/form-data", 422),
        (b"nothing", "multipart/form-data; boundary=x", 422),
        (TEXT_PART, "multipart/form-data; boundary=x", 422),
    ],
)
def test_a_body_that_is_none_is_a_problem(
    gateway: Gateway, content: bytes, content_type: str | None, status: int
) -> None:
    with gateway.client("a") as client:
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = client.post("/v1/describe", content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text


def test_an_address_that_there_is_not_is_a_problem(gateway: Gateway) -> None:
    with gateway.client("a") as client:
        assert client.get("/v2").json()["type"] == "urn:pydeper:problem:not-found"
        answer = client.get("/v1/describe")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["type"] == "urn:pydeper:problem:method-not-allowed"


# --- deadlines, overload, clients that go


class Slow:
    """Holds every step of the decoder until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.steps = threading.Event(), 0
        stream_rows = Qwen2VLRuntime.stream_rows

        def held(runtime: Qwen2VLRuntime, *arguments: Any, **options: Any) -> Any:
            for step in stream_rows(runtime, *arguments, **options):
                self.steps += 1
                yield step
                self.go.wait(20)

        monkeypatch.setattr(Qwen2VLRuntime, "stream_rows", held)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(monkeypatch)


def test_an_answer_that_is_late_is_a_problem(gateway: Gateway, slow: Slow) -> None:
    with gateway.client("a") as client:
        answer = client.post("/v1/describe", files={"image": SCENE}, data={"deadline_seconds": "0.2"})
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:pydeper:problem:deadline")
        streamed = client.post("/v1/describe", files={"image": SCENE}, data={"deadline_seconds": 0.2, "stream": True})
        slow.go.set()
        assert streamed.status_code == 504  # the batch before held the worker, so no piece had come
        assert client.post("/v1/describe", files={"image": SCENE}).status_code == 200


def test_an_error_after_the_first_piece_is_an_event(gateway: Gateway, slow: Slow) -> None:
    with gateway.client("a") as client:
        answer = client.post("/v1/describe", files={"image": SCENE}, data={"deadline_seconds": "1", "stream": "true"})
        slow.go.set()
    first, last = events(answer.text)
    assert first[0] == "piece"
    assert (last[0], last[1]["type"]) == ("error", "urn:pydeper:problem:deadline")


def test_a_full_queue_is_refused_at_once(tiny: DeperModel, slow: Slow, tmp_path: Any) -> None:
    with (
        running_gateway(tiny, tmp_path, keys=False, queue_length=2, batch_rows=1) as gateway,
        gateway.client() as client,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        waiting = []
        for number in range(3):
            waiting.append(pool.submit(client.post, "/v1/describe", files={"image": SCENE}))
            while (slow.steps, gateway.app.state.engine.batcher.waiting) < (1, number):
                pass
        answer = client.post("/v1/describe", files={"image": SCENE})
        assert (answer.status_code, answer.json()["type"]) == (429, "urn:pydeper:problem:queue-full")
        assert int(answer.headers["retry-after"]) >= 1
        large = client.post("/v1/describe", files={"image": bytes(8_000_000)})  # an answer, and no broken pipe
        assert large.status_code == 429
        slow.go.set()
        assert [job.result().status_code for job in waiting] == [200] * 3


@pytest.mark.parametrize("streamed", ["true", "false"])
def test_nothing_more_is_computed_for_a_client_that_has_gone(gateway: Gateway, slow: Slow, streamed: str) -> None:
    import httpx2

    with gateway.client("a") as client, pytest.raises(httpx2.ReadTimeout):
        client.post("/v1/describe", files={"image": SCENE}, data={"stream": streamed}, timeout=0.5)
    with gateway.client("a") as client:
        ended = client.get("/metrics").text.count('pydeper_descriptions_total{end="done"}')
        slow.go.set()
        assert client.post("/v1/describe", files={"image": SCENE}, data={"max_new_tokens": 1}).status_code == 200
        assert 'pydeper_descriptions_total{end="dropped"}' in client.get("/metrics").text
    assert ended <= 1
    assert slow.steps < 10  # of more than 20
