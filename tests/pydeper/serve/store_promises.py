"""What a store promises, whatever its database."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import attrs
import pytest

from pydeper import InvalidArgumentError, Persona
from pydeper.persona.file import parse_persona
from pydeper.serve.access import create_key, tenant_of_key
from pydeper.serve.store.store import Store, TooManyPersonasError


def keys_are_found_until_they_are_revoked(store: Store) -> None:
    key, other = create_key(store, "ana"), create_key(store, "ben")
    assert (tenant_of_key(store, key), tenant_of_key(store, other)) == ("ana", "ben")
    listed = store.list_keys()
    assert [entry.tenant for entry in listed] == ["ana", "ben"]
    assert all(abs(entry.created - datetime.now(UTC)) < timedelta(minutes=5) for entry in listed)
    secret = key.split("_")[2]
    assert not any(secret in repr(entry) or secret.encode() in entry.digest for entry in listed)
    assert store.revoke_key(listed[0].id)
    assert not store.revoke_key(listed[0].id)
    assert not store.revoke_key("nobody")
    assert tenant_of_key(store, key) is None
    assert tenant_of_key(store, other) == "ben"
    assert store.list_keys()[0].revoked is not None
    for wrong in ("", key[:-1], key[:-1] + ("0" if key[-1] != "0" else "1"), other.replace("_", "-"), f"{key} ", "ü"):
        assert tenant_of_key(store, wrong) is None
    assert tenant_of_key(store, f"deper_{listed[1].id}_{secret}") is None
    for tenant in ("", "a b", "a" * 65, "../x", "é"):
        with pytest.raises(InvalidArgumentError, match="tenant: must be"):
            create_key(store, tenant)


def personas_are_of_their_tenant_alone(store: Store, people: dict[str, Persona]) -> None:
    mine = store.add_persona("a", people["ana"])
    yours = store.add_persona("b", people["ben"])
    found = store.find_persona("a", mine.id)
    assert found is not None
    assert (found[0], Persona(**parse_persona(found[1]))) == (mine, people["ana"])
    assert store.find_persona("a", yours.id) is None
    assert not store.delete_persona("a", yours.id)
    assert store.list_personas("a") == [mine]
    assert store.list_personas("nobody") == []
    assert store.delete_persona("a", mine.id)
    assert not store.delete_persona("a", mine.id)
    assert store.find_persona("a", mine.id) is None
    assert store.list_personas("b") == [yours]


def personas_are_listed_page_by_page(store: Store, people: dict[str, Persona]) -> None:
    added = {store.add_persona("pages", attrs.evolve(people["ana"], name=f"no. {number}")).id for number in range(5)}
    first = store.list_personas("pages", limit=3)
    rest = store.list_personas("pages", after=first[-1].id, limit=3)
    assert [len(first), len(rest)] == [3, 2]
    assert {stored.id for stored in first + rest} == added
    small = attrs.evolve(people["ana"], name=None)
    store.add_persona("pages", small)
    with pytest.raises(TooManyPersonasError, match="6 personas"):
        store.add_persona("pages", small)


def several_gateways_start_and_work_at_once(url: str, people: dict[str, Persona]) -> None:
    start = threading.Barrier(4)

    def work(number: int) -> list[str]:
        store = Store(url)
        try:
            start.wait()
            store.migrate()
            return [store.add_persona("many", people["ana"]).id for _ in range(5)]
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        found = [name for names in pool.map(work, range(4)) for name in names]
    store = Store(url)
    store.migrate()
    assert {stored.id for stored in store.list_personas("many")} == {*found}
    store.close()
