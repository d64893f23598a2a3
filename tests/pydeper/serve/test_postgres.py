"""The store and the gateway on PostgreSQL: the same promises, and a server that goes away and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pydeper import DeperModel, Persona
from pydeper.serve.store.store import Store
from tests.pydeper.serve import store_promises
from tests.pydeper.serve.postgres import Postgres, programs
from tests.pydeper.serve.running import SCENE, running_gateway

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL's server programs are not installed"),
]


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    postgres = Postgres()
    yield postgres
    postgres.remove()


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Store]:
    store = Store(postgres.url, max_personas=6)
    store.migrate()
    yield store
    store.close()


def test_a_store_keeps_its_promises(store: Store, people: dict[str, Persona]) -> None:
    store_promises.keys_are_found_until_they_are_revoked(store)
    store_promises.personas_are_of_their_tenant_alone(store, people)
    store_promises.personas_are_listed_page_by_page(store, people)


def test_several_gateways_start_and_work_at_once(postgres: Postgres, people: dict[str, Persona]) -> None:
    store_promises.several_gateways_start_and_work_at_once(postgres.url, people)


def test_a_database_that_goes_away_comes_back(
    postgres: Postgres, tiny: DeperModel, people: dict[str, Persona], tmp_path: Path
) -> None:
    with running_gateway(tiny, tmp_path, database=postgres.url) as gateway, gateway.client("a") as client:
        stored = gateway.store.add_persona("a", people["ana"])
        data = {"persona_id": stored.id}
        said = client.post("/v1/describe", files={"image": SCENE}, data=data).json()
        postgres.stop()
        for answer in (
            client.post("/v1/describe", files={"image": SCENE}, data=data),
            client.get("/v1/personas"),
            client.delete(f"/v1/personas/{stored.id}"),
        ):
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:pydeper:problem:store-unavailable")
            assert answer.headers["retry-after"]
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["the database does not answer"])
        assert client.get("/healthz").status_code == 200
        postgres.start()
        assert client.post("/v1/describe", files={"image": SCENE}, data=data).json() == said
        assert client.get("/readyz").status_code == 200
