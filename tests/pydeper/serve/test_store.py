"""Keys and personas in SQLite: kept, private, and gone once they are deleted."""

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, event

from pydeper import InvalidArgumentError, Persona
from pydeper.serve.store.store import Store, StoreFullError, StoreUnavailableError
from pydeper.serve.store.tables import metadata
from tests.pydeper.serve import store_promises


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{file}", max_personas=6)
    store.migrate()
    yield store
    store.close()


def test_keys_are_found_until_they_are_revoked(store: Store) -> None:
    store_promises.keys_are_found_until_they_are_revoked(store)


def test_personas_are_of_their_tenant_alone(store: Store, people: dict[str, Persona]) -> None:
    store_promises.personas_are_of_their_tenant_alone(store, people)


def test_personas_are_listed_page_by_page(store: Store, people: dict[str, Persona]) -> None:
    store_promises.personas_are_listed_page_by_page(store, people)


def test_several_gateways_start_and_work_at_once(file: Path, people: dict[str, Persona]) -> None:
    store_promises.several_gateways_start_and_work_at_once(f"sqlite:///{file}", people)


def test_what_is_deleted_is_in_no_file_any_more(store: Store, file: Path, people: dict[str, Persona]) -> None:
    kept = store.add_persona("a", people["ben"])
    stored = store.add_persona("a", people["ana"])
    secret, other = (people[name].subject_embedding.tobytes()[100:400] for name in ("ana", "ben"))

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in sorted(file.parent.iterdir()))

    assert secret in files()
    assert store.delete_persona("a", stored.id)
    assert secret not in files()
    assert stored.id.encode() not in files()
    assert other in files()
    assert store.list_personas("a") == [kept]


def test_the_file_is_its_owners_alone(store: Store, file: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}


def test_the_migrations_lead_to_the_tables(store: Store, file: Path) -> None:
    store.migrate()  # a second time changes nothing
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_schema_of_a_newer_version_is_refused(store: Store, file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(InvalidArgumentError, match="'9999' was made by a newer pydeper"):
        store.migrate()


def test_a_locked_database_is_unavailable_and_comes_back(store: Store, file: Path, people: dict[str, Persona]) -> None:
    blocking = sqlite3.connect(file, isolation_level=None)
    blocking.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailableError, match=r"does not answer .*locked"):
        store.add_persona("a", people["ana"])
    blocking.execute("ROLLBACK")
    blocking.close()
    assert store.list_personas("a") == []
    store.add_persona("a", people["ana"])


def test_a_full_database_says_so_and_keeps_what_it_has(store: Store, file: Path, people: dict[str, Persona]) -> None:
    kept = store.add_persona("a", people["ana"])
    store.close()
    with sqlite3.connect(file) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.close()
    full = Store(f"sqlite:///{file}")
    limit = f"PRAGMA max_page_count = {pages}"
    event.listen(full.engine, "connect", lambda connection, _: connection.execute(limit))
    with pytest.raises(StoreFullError, match="no room left"):
        [full.add_persona("b", people["ana"]) for _ in range(40)]
    assert full.list_personas("a") == [kept]
    full.close()


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("gateway.db", "is no URL"),
        ("mysql://a/b", "must be of sqlite or postgresql, got 'mysql'"),
        ("sqlite://", "must be a file"),
        ("postgresql+pg8000://a/b", "pip install"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError, match=complaint):
        Store(url)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/nowhere/gateway.db")
    with pytest.raises(StoreUnavailableError, match="unable to open database file"):
        store.migrate()
    store.close()
