"""Health, metrics, logs and the page of the interface; a model that is elsewhere and not there yet."""

import json
import logging
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
import pytest

from pydeper import DeperModel, Persona, PydeperError, demo_image
from pydeper.errors import InvalidArgumentError
from pydeper.serve import engine
from pydeper.serve.logs import JsonLines
from pydeper.serve.settings import Settings, check_host, from_environment
from pydeper.vlm.local.runtime import Qwen2VLRuntime
from tests.pydeper.serve.running import SCENE, Gateway, running_gateway


def test_health_and_metrics_need_no_key(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.get("/healthz").json() == {"status": "ok", "reasons": []}
        assert client.get("/readyz").json() == {"status": "ok", "reasons": []}
        client.get("/made/up")
        text = client.get("/metrics").text
    assert "pydeper_queue_length 0.0" in text
    assert "pydeper_model_ready 1.0" in text
    assert 'pydeper_requests_total{method="GET",route="/readyz",status="200"} 1.0' in text
    assert "/made/up" not in text


def test_the_page_says_all_and_loads_nothing(gateway: Gateway) -> None:
    with gateway.client() as client:
        schema = client.get("/openapi.json").json()
        page = client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|src=|@import|url\(|https?://", page.text)
    for path in schema["paths"]:
        assert f" {path}</code>" in page.text
    for name in ("DescribeRequest", "PersonaForm"):
        for field in schema["components"]["schemas"][name]["properties"]:
            assert field in page.text


def test_every_reference_of_the_schema_leads_somewhere(gateway: Gateway) -> None:
    with gateway.client() as client:
        schema = client.get("/openapi.json").json()
    for reference in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)):
        assert reference in schema["components"]["schemas"]
    describe = schema["paths"]["/v1/describe"]["post"]
    assert {*describe["requestBody"]["content"]} == {"application/json", "multipart/form-data"}
    assert {"401", "404", "408", "413", "415", "422", "429", "503", "504"} <= {*describe["responses"]}
    assert describe["security"]


def test_logs_tell_no_picture_text_or_persona(
    gateway: Gateway, people: dict[str, Persona], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("what the model said of the picture")

    caplog.set_level(logging.INFO, logger="pydeper.serve")
    stored = gateway.store.add_persona("logged", people["ana"])
    with gateway.client("logged") as client:
        data = {"persona_id": stored.id, "style": "secret words"}
        client.post("/v1/describe", files={"image": SCENE}, data=data)
        del data["style"]
        said = client.post("/v1/describe", files={"image": SCENE}, data=data).json()["description"]
        client.get(f"/v1/personas/{stored.id}")
        monkeypatch.setattr(Qwen2VLRuntime, "stream_rows", broken)
        failed = client.post("/v1/describe", files={"image": SCENE}, data=data)
        monkeypatch.setattr("pydeper.serve.routes.personas._out", broken)
        failed_inside = client.get(f"/v1/personas/{stored.id}")
        key = client.headers["authorization"].split("_")[2]
    for answer in (failed, failed_inside):
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:pydeper:problem:failure")
        assert "what the model said" not in answer.text
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "pydeper.serve"]
    for line in lines:
        for secret in (said, "secret words", stored.id, key, "what the model said", "'ana'"):
            assert secret not in line
    told = [json.loads(line) for line in lines]
    requests = [line for line in told if line["event"] == "request"]
    assert [line["status"] for line in requests] == [422, 200, 200, 500, 500]
    assert {line["tenant"] for line in requests} == {"logged"}
    assert requests[2]["route"] == "/v1/personas/{persona_id}"
    assert failed_inside.headers["x-request-id"] == requests[-1]["request"]
    assert {line["error"] for line in told if "error" in line} == {"ZeroDivisionError"}


def test_a_model_that_cannot_be_reached_is_tried_again(
    tiny: DeperModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "RETRY_SECONDS", 0.2)
    reachable: list[bool] = []

    def opened(_: Settings) -> DeperModel:
        if not reachable:
            raise PydeperError("http://vlm:8000 does not answer; start it")
        return tiny

    with running_gateway(tiny, tmp_path, opened=opened) as gateway, gateway.client("a") as client:
        answer = client.post("/v1/describe", files={"image": SCENE})
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:pydeper:problem:model-unavailable")
        assert "the model is not ready: it is not available (PydeperError)" in answer.json()["detail"]
        assert "vlm:8000" not in answer.text  # where it runs is no concern of clients
        assert "http://vlm:8000 does not answer" in JsonLines().format(caplog.records[-1])
        assert answer.headers["retry-after"]
        assert client.get("/readyz").json() == {"status": "unavailable", "reasons": ["the model is not ready"]}
        assert client.get("/v1/personas").status_code == 200
        reachable.append(True)
        until = time.monotonic() + 30
        while client.get("/readyz").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert client.post("/v1/describe", files={"image": SCENE}).status_code == 200


def test_the_model_runs_on_the_runtime_that_is_set(
    tiny: DeperModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pydeper.serve")
    runtime = from_environment({"PYDEPER_SERVE_RUNTIME": "openvino"}).runtime

    def opened(settings: Settings) -> DeperModel:
        return engine.open_model(attrs.evolve(settings, model="tiny", threads=1))

    with running_gateway(tiny, tmp_path, opened, runtime=runtime) as gateway, gateway.client("a") as client:
        until = time.monotonic() + 60
        while client.get("/readyz").status_code != 200 and time.monotonic() < until:
            time.sleep(0.05)
        said = client.post("/v1/describe", files={"image": SCENE}).json()["description"]
    assert said == tiny.describe(demo_image())
    loaded = next(record for record in caplog.records if record.message == "model loaded")
    assert json.loads(JsonLines().format(loaded))["provider"] == "CPU"  # ONNX Runtime's is CPUExecutionProvider


def test_one_failing_row_spares_the_others(tiny: DeperModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream_rows = Qwen2VLRuntime.stream_rows

    def too_many(runtime: Qwen2VLRuntime, encoded: Any, *arguments: Any, **options: Any) -> Any:
        if len(encoded) > 1:
            raise MemoryError
        return stream_rows(runtime, encoded, *arguments, **options)

    monkeypatch.setattr(Qwen2VLRuntime, "stream_rows", too_many)
    with (
        running_gateway(tiny, tmp_path, keys=False) as gateway,
        gateway.client() as client,
        ThreadPoolExecutor(6) as pool,
    ):
        answers = list(pool.map(lambda _: client.post("/v1/describe", files={"image": SCENE}), range(6)))
    assert {answer.json()["description"] for answer in answers} == {tiny.describe(SCENE)}


# --- settings


def test_settings_come_from_the_environment() -> None:
    found = from_environment(
        {
            "PYDEPER_SERVE_MODEL": "tiny",
            "PYDEPER_SERVE_KEYS": "false",
            "PYDEPER_SERVE_DEADLINE_SECONDS": "2.5",
            "X": "1",
        }
    )
    assert (found.model, found.keys, found.deadline_seconds) == ("tiny", False, 2.5)


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PYDEPER_SERVE_MODLE", "x", "PYDEPER_SERVE_MODLE: is no setting"),
        ("PYDEPER_SERVE_KEYS", "yes", "must be true or false"),
        ("PYDEPER_SERVE_MAX_BYTES", "many", "must be a number, got 'many'"),
        ("PYDEPER_SERVE_MAX_BYTES", "1", "max_bytes: must be a number from 1024"),
        ("PYDEPER_SERVE_DEADLINE_SECONDS", "nan", "must be a finite number"),
        ("PYDEPER_SERVE_QUEUE_LENGTH", "0", "queue_length: must be a number from 1"),
    ],
)
def test_a_setting_that_is_wrong_is_named(variable: str, value: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        from_environment({variable: value})


def test_only_this_machine_is_served_without_keys() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
        check_host(host, Settings(keys=False))
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        check_host(host, Settings())
        with pytest.raises(InvalidArgumentError, match="--no-keys: everybody who reaches"):
            check_host(host, Settings(keys=False))
