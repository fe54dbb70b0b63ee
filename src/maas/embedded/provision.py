"""The roles and the database inside a private PostgreSQL."""

import asyncio
from pathlib import Path

import asyncpg

from maas.embedded.credentials import Credentials
from maas.embedded.errors import ServerStartError
from maas.embedded.postgres import PORT, SUPERUSER

DATABASE = "maas"
OWNER, APP, SYSTEM = "maas_owner", "maas_app", "maas_system"

_ANSWER_SECONDS = 30.0
_PLAIN = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
_BYPASSING = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS"


def provision(sockets: Path, credentials: Credentials) -> None:
    """Make the three roles and the database, or set them right again.

    Raises:
        ServerStartError: the superuser's password is not the one in the file of secrets, or the
            server refused.
    """
    try:
        asyncio.run(_provision(sockets, credentials))
    except asyncpg.InvalidPasswordError as exc:
        raise ServerStartError(
            "PostgreSQL does not accept the password in secrets.json.",
            "The file belongs to another data folder: put the right one back from a backup.",
        ) from exc
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise ServerStartError(
            f"The database could not be set up: {exc}.",
            "The reason is in the last lines of logs/postgres.log in the data folder.",
        ) from exc


async def _provision(sockets: Path, credentials: Credentials) -> None:
    connection = await asyncpg.connect(
        host=str(sockets),
        port=PORT,
        user=SUPERUSER,
        password=credentials.superuser_password,
        database="postgres",
        timeout=_ANSWER_SECONDS,
        command_timeout=_ANSWER_SECONDS,
        # A failed statement is not logged here: it may hold a password.
        server_settings={"log_min_error_statement": "panic", "log_statement": "none"},
    )
    try:
        await _ensure_roles(connection, credentials)
        await _ensure_database(connection)
    finally:
        await connection.close()


async def _ensure_roles(connection: asyncpg.Connection, credentials: Credentials) -> None:
    existing = await connection.fetch("SELECT rolname FROM pg_catalog.pg_roles")
    names = {row["rolname"] for row in existing}
    roles = (
        (OWNER, _PLAIN, credentials.owner_password),
        (APP, _PLAIN, credentials.app_password),
        (SYSTEM, _BYPASSING, credentials.system_password),
    )
    statements = [
        f"{'ALTER' if name in names else 'CREATE'} ROLE {name} WITH {rights} PASSWORD '{password}'"
        for name, rights, password in roles
    ]
    # Several statements in one message are one transaction, and one flush to the disk.
    await connection.execute(";".join(statements))


async def _ensure_database(connection: asyncpg.Connection) -> None:
    exists = await connection.fetchval(
        "SELECT true FROM pg_catalog.pg_database WHERE datname = $1", DATABASE
    )
    if not exists:
        await connection.execute(
            f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template0 ENCODING 'UTF8' "
            f"LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
        )
    await connection.execute(
        f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;"
        f"GRANT CONNECT ON DATABASE {DATABASE} TO {APP}, {SYSTEM}"
    )
