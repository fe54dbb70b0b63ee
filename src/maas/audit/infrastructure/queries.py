"""Reads of the log: keyset pages over indexes that begin with the tenant."""

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg

from maas.audit.application.queries import (
    ActorDetails,
    AuditEventNotFoundError,
    ChangeDetails,
    EventDetails,
    EventFilter,
    ResourceDetails,
)
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, Position
from maas.shared.infrastructure.database import Database

# How common a value is decides between two good plans, so none is made before the values are known.
_PLAN_BY_VALUE: Final = "SET LOCAL plan_cache_mode = force_custom_plan"

_LAST_CHARACTER: Final = "\U0010ffff"

_SELECT: Final = """
    SELECT l.*, p.actor_name, p.email, host(p.address) AS address, p.user_agent, c.leaf, c.row_hash
    FROM (
        SELECT * FROM audit_log AS l WHERE {conditions}
        ORDER BY l.occurred_at DESC, l.event_id DESC LIMIT {limit}
    ) AS l
    JOIN audit_chain AS c ON c.seq = l.seq
    LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
    ORDER BY l.occurred_at DESC, l.event_id DESC
"""


class _Conditions:
    """Collects conditions and their arguments; values never enter the text."""

    def __init__(self, tenant_id: TenantId) -> None:
        self.arguments: list[object] = []
        self._texts: list[str] = []
        self.add("l.tenant_id = {}", tenant_id)

    def add(self, text: str, *values: object) -> None:
        first = len(self.arguments) + 1
        self._texts.append(text.format(*(f"${first + index}" for index in range(len(values)))))
        self.arguments.extend(values)

    def add_equal(self, column: str, value: object | None) -> None:
        if value is not None:
            self.add(f"l.{column} = {{}}", value)

    @property
    def text(self) -> str:
        return " AND ".join(self._texts)


class PostgresAuditQueries:
    """Reads as `maas_app`: the filter by tenant is doubled by row-level security."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_events(
        self, tenant_id: TenantId, *, wanted: EventFilter, page: PageRequest
    ) -> Page[EventDetails]:
        conditions = _conditions(tenant_id, wanted)
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(_PLAN_BY_VALUE)
            total = None
            if page.include_total:
                total = await connection.fetchval(
                    f"SELECT count(*) FROM audit_log AS l WHERE {conditions.text}",  # noqa: S608  fixed words, no input
                    *conditions.arguments,
                )
            if page.after is not None:
                conditions.add(
                    "(l.occurred_at, l.event_id) < ({}, {})", page.after.at, page.after.id
                )
            query = _SELECT.format(conditions=conditions.text, limit=page.limit + 1)
            rows = await connection.fetch(query, *conditions.arguments)
        return _page(rows, page=page, total=total)

    async def get_event(self, tenant_id: TenantId, event_id: UUID) -> EventDetails:
        conditions = _Conditions(tenant_id)
        conditions.add("l.event_id = {}", event_id)
        async with self._database.tenant(tenant_id) as connection:
            query = _SELECT.format(conditions=conditions.text, limit=1)
            row = await connection.fetchrow(query, *conditions.arguments)
        if row is None:
            raise AuditEventNotFoundError
        return _details(row)


def _conditions(tenant_id: TenantId, wanted: EventFilter) -> _Conditions:
    conditions = _Conditions(tenant_id)
    for column in ("actor_id", "resource_kind", "resource_id", "request_id"):
        conditions.add_equal(column, getattr(wanted, column))
    if wanted.outcome is not None:
        # In the text, one of three words: only so does the partial index of failures serve.
        conditions.add(f"l.outcome = '{wanted.outcome}'")
    if wanted.action is not None:
        _add_action(conditions, wanted.action)
    if wanted.since is not None:
        conditions.add("l.occurred_at >= {}", wanted.since)
    if wanted.until is not None:
        conditions.add("l.occurred_at < {}", wanted.until)
    if wanted.address is not None:
        # A range, for row-level security lets `<<=` near no index.
        conditions.add(
            "l.event_id IN (SELECT event_id FROM audit_personal"
            " WHERE tenant_id = {} AND address >= {} AND address <= {})",
            tenant_id,
            wanted.address.network_address,
            wanted.address.broadcast_address,
        )
    return conditions


def _add_action(conditions: _Conditions, action: str) -> None:
    prefix = action.removesuffix("*")
    if prefix == action:
        conditions.add("l.action = {}", action)
    elif prefix:
        conditions.add("l.action >= {} AND l.action < {}", prefix, prefix + _LAST_CHARACTER)


def _page(
    rows: Sequence[asyncpg.Record], *, page: PageRequest, total: int | None
) -> Page[EventDetails]:
    items = [_details(row) for row in rows[: page.limit]]
    last = items[-1] if len(rows) > page.limit else None
    position = None if last is None else Position(at=last.occurred_at, id=last.id)
    return Page(items=items, next=position, total=total)


def _details(row: asyncpg.Record) -> EventDetails:
    hashed: dict[str, Any] = json.loads(row["payload"])
    kind = row["resource_kind"]
    return EventDetails(
        id=row["event_id"],
        seq=row["seq"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        actor=ActorDetails(kind=row["actor_kind"], id=row["actor_id"], name=row["actor_name"]),
        action=row["action"],
        resource=None if kind is None else ResourceDetails(kind=kind, id=row["resource_id"]),
        outcome=row["outcome"],
        reason=row["reason"],
        changes=ChangeDetails(**hashed["changes"]),
        email=row["email"],
        address=row["address"],
        user_agent=row["user_agent"],
        request_id=row["request_id"],
        session_id=row["session_id"],
        api_key_id=row["api_key_id"],
        duration_ms=row["duration_ms"],
        leaf=row["leaf"].hex(),
        row_hash=row["row_hash"].hex(),
    )
