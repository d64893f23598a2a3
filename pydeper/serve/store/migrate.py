"""The schema of a database, brought up to this version of pydeper."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from pydeper.errors import InvalidArgumentError

# Several gateways may start at once; any number, the same for all of them.
_LOCK = 0x64657065

# How long a gateway that starts waits for others that are at it; a request is not kept waiting for so long.
_WAIT_SECONDS = 60


def migrate(engine: Engine) -> None:
    """Makes the tables, or changes those of an earlier version; one process at a time.

    Raises:
        InvalidArgumentError: A newer pydeper made the schema.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be reached or written to.
    """
    with engine.connect() as connection:
        if engine.dialect.name != "sqlite":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            _upgrade(connection)
            return
        milliseconds = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {_WAIT_SECONDS * 1000}")
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _upgrade(connection)
        finally:
            connection.rollback()
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    _check_known(connection, config)
    command.upgrade(config, "head")
    connection.commit()


def _check_known(connection: Connection, config: Config) -> None:
    found = MigrationContext.configure(connection).get_current_revision()
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    if found is not None and found not in known:
        raise InvalidArgumentError(
            f"database: its schema {found!r} was made by a newer pydeper; this one knows {', '.join(sorted(known))}: "
            "`pip install --upgrade pydeper`, or name another database"
        )
