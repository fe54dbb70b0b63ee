"""Runs the migrations as `maas_owner`, whoever connects; one runner at a time."""

import asyncio
import re
import time

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from maas.bootstrap import METADATA
from maas.shared.infrastructure.database import owner_arguments
from maas.shared.infrastructure.migrations import (
    RESTORING_TABLE,
    VERSION_TABLE,
    RestoreBrokeOffError,
)
from maas.shared.infrastructure.roles import OWNER_ROLE, ensure_roles
from maas.shared.infrastructure.settings import load_database_settings

MIGRATION_LOCK = 7_245_001
RETRY_SECONDS = 0.2
PARTITIONS = re.compile(r"audit_log_.*|usage_\d{4}_\d{2}")


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave out the partitions, which the application makes as time goes by."""
    return not (kind == "table" and name is not None and PARTITIONS.fullmatch(name))


def version_table() -> str:
    """Tell where the revision stands: a restore has a place of its own until it is done."""
    return str(context.config.attributes.get("version_table", VERSION_TABLE))


def _refuse_half_restored(connection: Connection) -> None:
    asked = text("SELECT to_regclass(:name) IS NOT NULL")
    is_restoring = connection.execute(asked, {"name": f"public.{RESTORING_TABLE}"}).scalar_one()
    if is_restoring and version_table() != RESTORING_TABLE:
        raise RestoreBrokeOffError


def configure(**options: object) -> None:
    context.configure(
        target_metadata=METADATA,
        include_name=include_name,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
        version_table=version_table(),
        **options,
    )


def _wait_for_turn(connection: Connection) -> None:
    """Ask again and again, for whoever waits in a statement holds up `CREATE INDEX CONCURRENTLY`.

    The runner who has the lock would wait for the one who waits for it.
    """
    asked = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.execute(asked, {"key": MIGRATION_LOCK}).scalar_one():
        connection.commit()
        time.sleep(RETRY_SECONDS)
    connection.commit()


def run(connection: Connection) -> None:
    _wait_for_turn(connection)
    try:
        _refuse_half_restored(connection)
        ensure_roles(connection)
        connection.execute(text(f"SET ROLE {OWNER_ROLE}"))
        connection.commit()
        configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()


async def online() -> None:
    connect = owner_arguments(load_database_settings())
    engine = create_async_engine("postgresql+asyncpg://", connect_args=connect)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(online())
