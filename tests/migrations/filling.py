"""Rows by the million for tables that are told apart by nothing but their catalogue.

A revision of long ago has tables the code no longer knows, so each value is made from its column:
what it may hold, what it refers to, and the row's number, from which parent and child make the same
id. Triggers and foreign keys are off while rows are written.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import asyncpg

from maas.shared.domain.ids import DEFAULT_TENANT_ID

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LARGE: Final = (
    "accounts",
    "memberships",
    "sessions",
    "audit_log",
    "audit_chain",
    "audit_dedup",
    "audit_personal",
    "models",
    "model_versions",
    "version_files",
    "blobs",
    "invitations",
    "api_keys",
    "usage",
    "quota_holds",
)
"""Tables that grow with people and their work, and that a later revision changes or reads."""

_HASH: Final = "sha256(convert_to('{0}-' || {1}, 'UTF8'))"
_VALUES: Final[Mapping[str, str]] = {
    "uuid": "md5('{table}-{column}-' || n)::uuid",
    "text": "'{column}-' || n",
    "bytea": _HASH.format("{table}-{column}", "n"),
    "boolean": "false",
    "timestamp with time zone": "now() - interval '1 second' * (n % 100000)",
    "date": "current_date - n % 300",
    "interval": "interval '1 minute'",
    "jsonb": "'{{}}'::jsonb",
    "inet": "'127.0.0.1'::inet",
}
_NUMBERS: Final = frozenset({"smallint", "integer", "bigint", "numeric", "double precision"})

_ACCOUNT: Final = "md5('accounts-id-' || n)::uuid"
_MODEL: Final = "md5('models-id-' || n)::uuid"
_BLOB: Final = _HASH.format("blobs-sha256", "n")
_OVERRIDES: Final[Mapping[str, str]] = {
    "*.tenant_id": f"'{DEFAULT_TENANT_ID}'::uuid",
    "*.home_tenant_id": f"'{DEFAULT_TENANT_ID}'::uuid",
    "*.account_id": _ACCOUNT,
    "*.actor_id": _ACCOUNT,
    "*.created_by": _ACCOUNT,
    "*.owner_id": _ACCOUNT,
    "*.model_id": _MODEL,
    "*.version_id": "md5('model_versions-id-' || n)::uuid",
    "*.sha256": _BLOB,
    "*.event_id": "md5('audit-' || n)::uuid",
    "*.retention_class": "'security'",
    "*.seq": "n + 1",
    "*.actor_kind": "'user'",
    "accounts.status": "'active'",
    "api_keys.account_id": _ACCOUNT,
    "accounts.email": "'person-' || n || '@example.com'",
    "audit_log.recorded_at": "date_trunc('month', now()) + interval '1 second' * (n % 80000)",
    "audit_log.occurred_at": "date_trunc('month', now()) + interval '1 second' * (n % 80000)",
    "audit_log.action": "(ARRAY['auth.login', 'model.read', 'user.created'])[1 + n % 3]",
    "audit_log.outcome": "(ARRAY['success', 'success', 'failure'])[1 + n % 3]",
    "audit_log.resource_kind": "'model'",
    "audit_log.resource_id": "'resource-' || n % 50000",
    "audit_personal.actor_name": "'person ' || n % 50000",
    "audit_personal.email": "'person-' || n % 50000 || '@example.com'",
    "model_versions.name": "'1.0.0'",
    "model_versions.status": "'draft'",
    "models.framework": "'other'",
    "models.description": "'A model that is described in some words, number ' || n",
    "memberships.status": "'active'",
    "sessions.address": "'127.0.0.1'::inet",
    "usage.at": "date_trunc('month', now()) + interval '1 second' * (n % 80000)",
    "usage.cost_nanos": "0",
    "version_files.path": "'weights.safetensors'",
}
_PARTITIONS: Final[Mapping[str, str]] = {"usage": "SELECT usage_ensure_partition(now())"}

_COLUMNS: Final = """
    SELECT attname AS name, format_type(atttypid, NULL) AS type,
        attnotnull AND NOT atthasdef AND attidentity = '' AS is_needed,
        attgenerated <> '' AS is_made
    FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
"""
_CHECKS: Final = """
    SELECT pg_get_constraintdef(oid) FROM pg_constraint
    WHERE conrelid = $1::regclass AND contype = 'c'
"""
_ONE_OF: Final = re.compile(r"\((\w+) = ANY \(ARRAY\['([^']*)'::text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    table: str
    rows: int
    seconds: float


async def find_empty(connection: Connection) -> list[str]:
    """List the large tables that there are by now and that hold nothing."""
    return [
        table
        for table in LARGE
        if await connection.fetchval("SELECT to_regclass($1)", f"public.{table}") is not None
        and not await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})")
    ]


async def fill(connection: Connection, table: str, rows: int) -> Filled:
    """Write the rows, and let the planner know of them."""
    began = time.monotonic()
    if table in _PARTITIONS:
        await connection.execute(_PARTITIONS[table])
    columns = await connection.fetch(_COLUMNS, table)
    checks = [str(row[0]) for row in await connection.fetch(_CHECKS, table)]
    allowed = {found[1]: found[2] for text in checks if (found := _ONE_OF.search(text))}
    values = _choose(table, columns, allowed)
    names = ", ".join(f'"{name}"' for name in values)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(
        f"INSERT INTO {table} ({names}) SELECT {', '.join(values.values())}"
        f" FROM generate_series(0, {rows - 1}) n",
        timeout=900,
    )
    await connection.execute("SET session_replication_role = origin")
    await connection.execute(f"ANALYZE {table}", timeout=900)
    return Filled(table=table, rows=rows, seconds=time.monotonic() - began)


def _choose(table: str, columns: Sequence[Any], allowed: Mapping[str, str]) -> dict[str, str]:
    """Tell what each column gets that needs or deserves a value, by the row's number `n`."""
    values = {}
    for column in columns:
        name = column["name"]
        own = _OVERRIDES.get(f"{table}.{name}")
        if column["is_made"] or not (column["is_needed"] or own):
            continue
        if own is None and name in allowed:
            own = f"'{allowed[name]}'"
        values[name] = own or _OVERRIDES.get(f"*.{name}") or _plain(table, name, column["type"])
    return values


def _plain(table: str, name: str, kind: str) -> str:
    if kind in _NUMBERS:
        return "1"
    if kind.endswith("[]"):
        return f"'{{}}'::{kind}"
    return _VALUES[kind].format(table=table, column=name)
