"""`/v1/personas`: made of samples, seen by their tenant alone, and gone once they are deleted."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from pydeper import DeperModel, Persona
from pydeper.bundle.layout import BUILTIN
from pydeper.persona.file import parse_persona
from tests.pydeper.serve.running import SCENE, Gateway, running_gateway

DEMO = BUILTIN / "tiny" / "demo"


def samples() -> list[dict[str, Any]]:
    """The samples of the demonstration, as JSON takes them."""
    records = [json.loads(line) for line in (DEMO / "ana.jsonl").read_text().splitlines()]
    return [
        {
            "image": base64.b64encode((DEMO / record["image"]).read_bytes()).decode(),
            "description": record["description"],
            "trajectory": record["trajectory"],
        }
        for record in records
    ]


def form() -> list[tuple[str, Any]]:
    images = [("images", (path.name, path.read_bytes())) for path in sorted(DEMO.glob("ana-*.png"))]
    return [("samples", ("ana.jsonl", (DEMO / "ana.jsonl").read_bytes())), *images]


@pytest.mark.parametrize("as_form", [True, False])
def test_a_persona_of_samples_describes_as_one_made_here(
    gateway: Gateway, tiny: DeperModel, people: dict[str, Persona], as_form: bool
) -> None:
    with gateway.client("maker") as client:
        body: dict[str, Any] = {"files": form(), "data": {"name": "ana"}} if as_form else {
            "json": {"name": "ana", "samples": samples()}
        }  # fmt: skip
        made = client.post("/v1/personas", **body)
        assert made.status_code == 201, made.text
        told = made.json()
        assert (told["name"], told["model"], told["num_samples"]) == ("ana", "tiny", 5)
        assert client.get(f"/v1/personas/{told['id']}").json() == told
        assert told in client.get("/v1/personas").json()["personas"]
        file = client.get(f"/v1/personas/{told['id']}/file").content
        np.testing.assert_array_equal(Persona(**parse_persona(file)).subject_embedding, people["ana"].subject_embedding)
        said = client.post("/v1/describe", files={"image": SCENE}, data={"persona_id": told["id"]}).json()
        assert said["description"] == tiny.describe(SCENE, people["ana"])
        assert client.delete(f"/v1/personas/{told['id']}").status_code == 204
        gone = client.post("/v1/describe", files={"image": SCENE}, data={"persona_id": told["id"]})
        assert (gone.status_code, gone.json()["type"]) == (404, "urn:pydeper:problem:not-found")
        assert client.delete(f"/v1/personas/{told['id']}").status_code == 404


def test_the_list_comes_in_pages(gateway: Gateway, people: dict[str, Persona]) -> None:
    ids = sorted(gateway.store.add_persona("pager", people["ana"]).id for _ in range(5))
    with gateway.client("pager") as client:
        first = client.get("/v1/personas", params={"limit": 3}).json()
        second = client.get("/v1/personas", params={"limit": 3, "after": first["next"]}).json()
    assert [entry["id"] for entry in first["personas"] + second["personas"]] == ids
    assert second["next"] is None


IMAGE = base64.b64encode(SCENE).decode()
BOX = {"box": [0.1, 0.1, 0.2, 0.2], "duration": 0.3}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "samples: Field required"),
        ({"samples": []}, "samples: List should have at least 1 item"),
        ({"samples": [{"image": IMAGE}]}, "samples[0]: description and trajectory are both missing"),
        ({"samples": [{"image": IMAGE, "description": " "}]}, "samples[0]: description is empty"),
        ({"samples": [{"description": "A dog."}]}, "samples.0.image: Field required"),
        ({"samples": [{"image": "AAAA", "description": "A dog."}]}, "is not an image file"),
        ({"samples": [{"image": "http://a/b.png", "description": "A dog."}]}, "addresses are not fetched"),
        ({"samples": [{"image": IMAGE, "trajectory": [{**BOX, "box": [2, 0, 1, 1]}]}]}, "samples[0]: "),
        ({"samples": [{"image": IMAGE, "trajectory": [{**BOX, "box": [0, 0, 1]}]}]}, "samples.0.trajectory.0.box"),
        ({"samples": [{"image": IMAGE, "trajectory": [{**BOX, "duration": 300.0}]}]}, "samples[0]: "),
        ({"samples": [{"image": IMAGE, "description": "A dog."}] * 33}, "at most 32 are taken"),
        ({"samples": [{"image": IMAGE, "description": "A dog."}], "name": "a\nb"}, "name: must not hold control"),
        ({"samples": [{"image": IMAGE, "description": "A dog.", "split": "x"}]}, "samples.0.split"),
    ],
)  # fmt: skip
def test_samples_that_are_wrong_are_a_problem(gateway: Gateway, body: dict[str, Any], detail: str) -> None:
    with gateway.client("wrong") as client:
        answer = client.post("/v1/personas", json=body)
        assert client.get("/v1/personas").json()["personas"] == []
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), answer.text
    assert detail in answer.json()["detail"]
    assert answer.json()["remedy"]


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        (form()[:3], "no file 'ana-3.png' was sent as images"),
        (form()[1:], "samples must be a part with a file name"),
        ([*form(), form()[0]], "the part 'samples' comes twice"),
        ([("samples", ("a.jsonl", b"{"))], "samples, line 1: not JSON"),
        ([("samples", ("a.jsonl", b"\n\n"))], "samples: List should have at least 1 item"),
    ],
)
def test_a_form_that_is_wrong_is_a_problem(gateway: Gateway, files: list[Any], detail: str) -> None:
    with gateway.client("wrong") as client:
        answer = client.post("/v1/personas", files=files)
    assert answer.status_code == 422
    assert detail in answer.json()["detail"]


def test_a_tenant_has_so_many_and_no_more(tiny: DeperModel, people: dict[str, Persona], tmp_path: Path) -> None:
    with running_gateway(tiny, tmp_path, max_personas=1) as gateway, gateway.client("a") as client:
        gateway.store.add_persona("a", people["ana"])
        answer = client.post("/v1/personas", json={"samples": samples()[:1]})
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:pydeper:problem:too-many-personas")
        with gateway.client("b") as other:
            assert other.post("/v1/personas", json={"samples": samples()[:1]}).status_code == 201


# --- who may do what


def asked_by(client: httpx2.Client, persona_id: str) -> list[httpx2.Response]:
    """Every way to another's persona."""
    return [
        client.get(f"/v1/personas/{persona_id}"),
        client.get(f"/v1/personas/{persona_id}/file"),
        client.delete(f"/v1/personas/{persona_id}"),
        client.post("/v1/describe", files={"image": SCENE}, data={"persona_id": persona_id}),
        client.post("/v1/describe", files={"image": SCENE}, data={"persona_id": persona_id, "stream": "true"}),
    ]


def test_a_tenant_reaches_no_other_tenants_persona(gateway: Gateway, people: dict[str, Persona]) -> None:
    theirs = gateway.store.add_persona("owner", people["ana"])
    with gateway.client("stranger") as client:
        answers, guesses = asked_by(client, theirs.id), asked_by(client, "0" * 32)
        for answer, guess in zip(answers, guesses, strict=True):
            assert answer.status_code == 404
            assert answer.json() == guess.json()  # nothing tells one that is another's from one that is not there
        assert client.get("/v1/personas").json() == {"personas": [], "next": None}
        nearby = client.get("/v1/personas", params={"after": theirs.id[:-1]})
        assert nearby.json()["personas"] == []
        for path in ("/v1/personas/%2e%2e", f"/v1/personas/{theirs.id}%00", "/v1/personas/' OR '1'='1"):
            assert client.get(path).status_code in (404, 422)
    with gateway.client("owner") as client:
        assert client.get(f"/v1/personas/{theirs.id}").status_code == 200


def test_without_a_valid_key_nothing_is_told(gateway: Gateway, people: dict[str, Persona]) -> None:
    theirs = gateway.store.add_persona("owner", people["ana"])
    with gateway.client("owner") as client:
        key = client.headers["authorization"]
    revoked = gateway.client("owner")
    assert gateway.store.revoke_key(revoked.headers["authorization"].split("_")[1])
    keys = (
        None,
        "",
        "Bearer",
        "Bearer x",
        key.swapcase(),
        key[:-1],
        f"Basic {key[7:]}",
        revoked.headers["authorization"],
    )
    revoked.close()
    for value in keys:
        headers = {} if value is None else {"Authorization": value}
        with httpx2.Client(base_url=gateway.address, headers=headers) as client:
            answers = [*asked_by(client, theirs.id), client.get("/v1/personas"), client.post("/v1/personas", json={})]
        for answer in answers:
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json() == answers[0].json()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_without_keys_pages_of_other_sites_are_refused(
    tiny: DeperModel, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    with running_gateway(tiny, tmp_path, keys=False) as gateway, gateway.client() as client:
        assert client.get("/v1/personas", headers=headers).status_code == status
