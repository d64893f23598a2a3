"""What Alembic runs to migrate: on the connection that `pydeper.serve.store.migrate` hands over."""

from alembic import context

from pydeper.serve.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
