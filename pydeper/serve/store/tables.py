"""The tables of the newest schema; `migrations/versions` holds the way there."""

from sqlalchemy import Column, DateTime, Index, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("salt", LargeBinary(32), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("revoked", DateTime(timezone=True)),
)

personas = Table(
    "personas",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("name", String(256)),
    Column("model_id", String(256), nullable=False),
    Column("num_samples", Integer, nullable=False),
    Column("created", DateTime(timezone=True), nullable=False),
    Column("file", LargeBinary, nullable=False),
    Index("personas_by_tenant", "tenant", "id"),
)
