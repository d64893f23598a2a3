"""What a gateway keeps: API keys and personas, each of one tenant."""

import contextlib
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
from sqlalchemy import Connection, Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.persona.persona import Persona
from pydeper.serve.store.migrate import migrate
from pydeper.serve.store.tables import api_keys, personas

_BUSY_SECONDS = 2
_STARTING_SECONDS = 10
_FULL = ("disk is full", "disk full", "no space left", "could not extend file")


class StoreUnavailableError(PydeperError):
    """The database cannot be reached or is locked; what was asked for has not happened."""


class StoreFullError(PydeperError):
    """The database has no room left; what was asked for has not happened."""


class TooManyPersonasError(PydeperError):
    """A tenant has as many personas as it may."""


@attrs.frozen
class ApiKey:
    """An API key as it is stored; its secret is not.

    Attributes:
        id: Names the key, and is a part of it that is no secret.
        tenant: Whose it is.
        salt: Of the digest.
        digest: HMAC-SHA256 of the secret.
        created: When it was made.
        revoked: When it was revoked, or None.
    """

    id: str
    tenant: str
    salt: bytes = attrs.field(repr=False)
    digest: bytes = attrs.field(repr=False)
    created: datetime
    revoked: datetime | None = None


@attrs.frozen
class StoredPersona:
    """What is known of a stored persona without its file."""

    id: str
    name: str | None
    model_id: str
    num_samples: int
    created: datetime


class Store:
    """The database of one gateway or several; thread-safe.

    Every persona is found by its tenant and its id together, so there is no way to another tenant's.

    Attributes:
        engine: SQLAlchemy's, with the connections.
    """

    def __init__(self, url: str, *, max_personas: int = 10_000) -> None:
        """Opens a database; nothing is read or written before `migrate`.

        Args:
            url: SQLAlchemy's, such as ``sqlite:///gateway.db`` or ``postgresql://user@host/name``.
            max_personas: The most of a tenant.

        Raises:
            InvalidArgumentError: The URL is none, or its driver is not installed.
        """
        self._max_personas = max_personas
        self.engine: Final = _open(_checked(url))

    def migrate(self) -> None:
        """Brings the schema up to this version.

        Raises:
            InvalidArgumentError: A newer pydeper made it.
            StoreUnavailableError: The database cannot be reached.
        """
        with _explained():
            migrate(self.engine)

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def ping(self) -> None:
        """Asks the database for nothing.

        Raises:
            StoreUnavailableError: It does not answer.
        """
        with self._connected() as connection:
            connection.execute(select(1))

    # --- keys

    def add_key(self, key: ApiKey) -> None:
        """Keeps a new key."""
        with self._connected() as connection:
            connection.execute(insert(api_keys).values(attrs.asdict(key)))

    def find_key(self, key_id: str) -> ApiKey | None:
        """Returns the key of that id, revoked or not; None where there is none."""
        with self._connected() as connection:
            row = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).one_or_none()
        return None if row is None else ApiKey(**_with_zone(row._mapping))

    def list_keys(self) -> list[ApiKey]:
        """Returns all keys, the oldest first."""
        with self._connected() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created, api_keys.c.id)).all()
        return [ApiKey(**_with_zone(row._mapping)) for row in rows]

    def revoke_key(self, key_id: str) -> bool:
        """Ends a key; whether there was one that had not ended yet."""
        statement = (
            update(api_keys)
            .where(api_keys.c.id == key_id, api_keys.c.revoked.is_(None))
            .values(revoked=datetime.now(UTC))
        )
        with self._connected() as connection:
            return connection.execute(statement).rowcount == 1

    # --- personas

    def add_persona(self, tenant: str, persona: Persona) -> StoredPersona:
        """Keeps a persona, and returns what it is called from now on.

        Raises:
            TooManyPersonasError: The tenant has as many as it may.
        """
        stored = StoredPersona(
            secrets.token_hex(16), persona.name, persona.model_id, persona.num_samples, datetime.now(UTC)
        )
        with self._connected() as connection:
            count = select(func.count()).select_from(personas).where(personas.c.tenant == tenant)
            if connection.execute(count).scalar_one() >= self._max_personas:
                raise TooManyPersonasError(f"there are {self._max_personas} personas already")
            values = {**attrs.asdict(stored), "tenant": tenant, "file": persona.to_bytes()}
            connection.execute(insert(personas).values(values))
        return stored

    def list_personas(self, tenant: str, *, after: str = "", limit: int = 100) -> list[StoredPersona]:
        """Returns a tenant's personas in the order of their ids: at most `limit` of those after `after`."""
        columns = [personas.c[field.name] for field in attrs.fields(StoredPersona)]
        statement = select(*columns).where(personas.c.tenant == tenant, personas.c.id > after)
        with self._connected() as connection:
            rows = connection.execute(statement.order_by(personas.c.id).limit(limit)).all()
        return [StoredPersona(**_with_zone(row._mapping)) for row in rows]

    def find_persona(self, tenant: str, persona_id: str) -> tuple[StoredPersona, bytes] | None:
        """Returns a tenant's persona and its file; None where the tenant has none of that id."""
        statement = select(personas).where(personas.c.tenant == tenant, personas.c.id == persona_id)
        with self._connected() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            return None
        found = _with_zone(row._mapping)
        del found["tenant"]
        return StoredPersona(**{name: value for name, value in found.items() if name != "file"}), found["file"]

    def delete_persona(self, tenant: str, persona_id: str) -> bool:
        """Removes a tenant's persona; whether there was one.

        In SQLite, its bytes are overwritten in the file and gone from the write-ahead log. PostgreSQL keeps them out of
        sight in its files until it vacuums the table, and in its own log.
        """
        with self._connected() as connection:
            statement = delete(personas).where(personas.c.tenant == tenant, personas.c.id == persona_id)
            found = connection.execute(statement).rowcount == 1
        if found and self.engine.dialect.name == "sqlite":
            with self._connected() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return found

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block."""
        with _explained(), self.engine.begin() as connection:
            yield connection


def _checked(url: str) -> URL:
    try:
        found = make_url(url)
    except ArgumentError:
        raise InvalidArgumentError(
            "database: is no URL; give one such as sqlite:///gateway.db or postgresql://user@host/name"
        ) from None
    if found.drivername in ("postgresql", "postgres"):
        found = found.set(drivername="postgresql+psycopg")
    if found.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidArgumentError(f"database: must be of sqlite or postgresql, got {found.get_backend_name()!r}")
    if found.get_backend_name() == "sqlite" and not found.database:
        raise InvalidArgumentError("database: must be a file, as in sqlite:///gateway.db, so that personas are kept")
    return found


def _open(url: URL) -> Engine:
    try:
        if url.get_backend_name() == "postgresql":
            return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": _BUSY_SECONDS})
        engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    except ModuleNotFoundError as error:
        raise InvalidArgumentError(f'database: {error}; pip install "pydeper[postgres]"') from error
    except NoSuchModuleError as error:
        raise InvalidArgumentError(f"database: {error}; use sqlite:///FILE or postgresql://…") from error

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _: object) -> None:
        # Personas are personal data: what is deleted is overwritten, and what is answered has reached the disk.
        _use_write_ahead_log(connection)
        for pragma in ("synchronous = FULL", "secure_delete = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "do_connect")
    def keep_private(*_: object) -> None:
        path = Path(str(url.database))
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    return engine


def _use_write_ahead_log(connection: Any) -> None:
    """Turns a file's write-ahead log on.

    Where several turn it on at once, SQLite refuses all but one of them at once, however long it may wait for a lock.
    """
    end = time.monotonic() + _STARTING_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        # The statement and its values stay out of the message: they are somebody's persona.
        reason = str(error.orig).strip() if isinstance(error, DBAPIError) else type(error).__name__
        if any(text in reason.lower() for text in _FULL):
            raise StoreFullError(f"the database has no room left ({reason}); make room, and try again") from None
        raise StoreUnavailableError(f"the database does not answer ({reason}); check that it runs") from None


def _with_zone(row: Any) -> dict[str, Any]:
    """A row's values; SQLite gives times back without the zone, which is UTC."""
    return {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
        for name, value in row.items()
    }
