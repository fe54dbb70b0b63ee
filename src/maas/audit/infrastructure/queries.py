"""Reads of the log: keyset pages over indexes that begin with the tenant.

What one index answers is asked in one statement; what several values mean (a prefix, a network, a
text) is read as a stream for each value. Everything else is looked for in stretches of time, each
longer than the one before, and only for so long: then the page is short and says where to go on.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from maas.audit.application.queries import (
    NEIGHBOURS,
    ActorDetails,
    ChangeDetails,
    EventDetails,
    EventFilter,
    EventNeighbours,
    Order,
    ResourceDetails,
)
from maas.audit.infrastructure.absence import explain_absence
from maas.audit.infrastructure.conditions import (
    DIRECTIONS,
    Arguments,
    Stretch,
    in_columns,
    in_stretch,
    within,
)
from maas.audit.infrastructure.streams import Stream, find_streams, is_alone, keys_of
from maas.audit.infrastructure.words import Words, find_words
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, Position
from maas.shared.infrastructure.database import Database, PooledConnection

PATIENCE: Final = timedelta(seconds=1)
"""How long a page of what no index answers is looked for, before it is given as it is."""

FIRST_STRETCHES: Final = (500, 8_000)
"""So many events the first stretches of time have; each later one is eight times as long."""

MOST_KEYS: Final = 2_000
"""So many are read first, where a page's worth of each of many values would be more."""

DEEPER: Final = 6
"""So many times as many are read of each value, where the first did not make a page."""

GROWTH: Final = 8
QUICK_SECONDS: Final = 0.05
_MICROSECOND: Final = timedelta(microseconds=1)

# A plan for any value would take a partition that has one action alone for full of what is wanted.
# By time alone there is one plan, and making it for all partitions takes longer than asking.
_PLAN_ONCE: Final = "SET LOCAL plan_cache_mode = force_generic_plan"
_PLAN_BY_VALUE: Final = "SET LOCAL plan_cache_mode = force_custom_plan"

_SELECT: Final = """
    SELECT l.occurred_at AS key_at, l.event_id AS key_id,
        l.*, p.actor_name, p.email, host(p.address) AS address, p.user_agent, c.leaf, c.row_hash
    FROM (
        SELECT * FROM audit_log AS l WHERE {conditions}
        ORDER BY l.occurred_at {direction}, l.event_id {direction} LIMIT {limit}
    ) AS l
    JOIN audit_chain AS c ON c.seq = l.seq
    LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
    ORDER BY l.occurred_at {direction}, l.event_id {direction}
"""
# Each key is looked up by itself; a list of all events would be the other way. A key whose event
# was dropped a moment ago still tells where the page ends.
_SELECT_KEYS: Final = """
    SELECT k.occurred_at AS key_at, k.event_id AS key_id,
        l.*, p.actor_name, p.email, host(p.address) AS address, p.user_agent
    FROM ({keys}) AS k
    LEFT JOIN LATERAL (
        SELECT e.*, c.leaf, c.row_hash FROM audit_log AS e JOIN audit_chain AS c ON c.seq = e.seq
        WHERE e.tenant_id = {tenant} AND e.occurred_at = k.occurred_at AND e.event_id = k.event_id
        LIMIT 1
    ) AS l ON true
    LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
    ORDER BY key_at {direction}, key_id {direction}
"""
_BOUNDS: Final = "SELECT min(occurred_at), max(occurred_at) FROM audit_log WHERE tenant_id = $1"


@dataclass(frozen=True, slots=True)
class _Question:
    """What one page is to have."""

    tenant_id: TenantId
    wanted: EventFilter
    words: Words
    order: Order
    page: PageRequest

    @property
    def stretch(self) -> Stretch:
        return Stretch(self.wanted.since, self.wanted.until, self.page.after)


class PostgresAuditQueries:
    """Reads as `maas_app`: the filter by tenant is doubled by row-level security."""

    def __init__(self, database: Database, *, patience: timedelta = PATIENCE) -> None:
        self._database = database
        self._patience = patience

    async def list_events(
        self,
        tenant_id: TenantId,
        *,
        wanted: EventFilter,
        page: PageRequest,
        order: Order = "newest",
    ) -> Page[EventDetails]:
        if wanted.action == "*":
            wanted = replace(wanted, action=None)
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(_PLAN_BY_VALUE)
            words = await find_words(connection, tenant_id, wanted)
            question = _Question(tenant_id, wanted, words, order, page)
            total = None
            if page.include_total:
                total = await _count(connection, question)
            if words.is_in_nothing:
                rows, reached = [], None
            elif is_alone(wanted) and words.actions is None:
                rows, reached = await _read(connection, question, page.limit + 1), None
            elif (streams := find_streams(wanted, words)) is not None:
                rows, reached = await _read_streams(connection, question, streams), None
            else:
                rows, reached = await self._search(connection, question)
        return _page(rows, limit=page.limit, reached=reached, total=total)

    async def get_event(self, tenant_id: TenantId, event_id: UUID) -> EventDetails:
        async with self._database.tenant(tenant_id) as connection:
            return await _get(connection, tenant_id, event_id)

    async def get_neighbours(self, tenant_id: TenantId, event_id: UUID) -> EventNeighbours:
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(_PLAN_BY_VALUE)
            event = await _get(connection, tenant_id, event_id)
            if event.session_id is not None:
                around = EventFilter(session_id=event.session_id)
            else:
                around = EventFilter(actor_id=event.actor.id)
            request = EventFilter(request_id=event.request_id)
            position = Position(at=event.occurred_at, id=event.id)

            async def near(wanted: EventFilter, order: Order) -> list[EventDetails]:
                page = PageRequest(limit=NEIGHBOURS, after=position)
                question = _Question(tenant_id, wanted, Words(), order, page)
                rows = await _read(connection, question, NEIGHBOURS)
                found = [_details(row) for row in rows]
                return found if order == "oldest" else found[::-1]

            has_others = event.session_id is not None or event.actor.id is not None
            return EventNeighbours(
                event=event,
                request=[*await near(request, "newest"), *await near(request, "oldest")],
                before=await near(around, "newest") if has_others else [],
                after=await near(around, "oldest") if has_others else [],
            )

    async def _search(
        self, connection: PooledConnection, question: _Question
    ) -> tuple[list[asyncpg.Record], Position | None]:
        """Look through one stretch after the other; tell how far that came, if not to the end."""
        limit, rows = question.page.limit + 1, list[asyncpg.Record]()
        whole = await _whole_stretch(connection, question)
        if whole is None:
            return rows, None
        is_newest = question.order == "newest"
        since, until = whole
        sizes, length = list(FIRST_STRETCHES), timedelta()
        began = time.monotonic()
        while since < until:
            if sizes:
                length = await _length_of(connection, question, (since, until), sizes.pop(0))
            step = min(length, until - since)
            stretch = (until - step, until) if is_newest else (since, since + step)
            asked = time.monotonic()
            rows += await _read_stretch(connection, question, limit - len(rows), stretch)
            since, until = (since, stretch[0]) if is_newest else (stretch[1], until)
            if len(rows) == limit:
                break
            now = time.monotonic()
            if now - began > self._patience.total_seconds() and since < until:
                # No event has this id, so that the next page begins right at the edge.
                return rows, Position(at=stretch[0] if is_newest else stretch[1], id=UUID(int=0))
            if now - asked < QUICK_SECONDS:
                length *= GROWTH
        return rows, None


async def _whole_stretch(
    connection: PooledConnection, question: _Question
) -> tuple[datetime, datetime] | None:
    """Find from when to when there is anything that may be wanted."""
    first, last = await connection.fetchrow(_BOUNDS, question.tenant_id) or (None, None)
    if first is None or last is None:
        return None
    wanted, after = question.wanted, question.page.after
    since = max(first, wanted.since or first)
    until = min(last + _MICROSECOND, wanted.until or last + _MICROSECOND)
    if after is not None and question.order == "newest":
        until = min(until, after.at + _MICROSECOND)
    elif after is not None:
        since = max(since, after.at)
    return since, until


async def _length_of(
    connection: PooledConnection,
    question: _Question,
    whole: tuple[datetime, datetime],
    events: int,
) -> timedelta:
    """Measure how long it took for so many events, where the search goes on."""
    arguments, direction = Arguments(), DIRECTIONS[question.order]
    texts = in_columns(question.tenant_id, EventFilter(), arguments)
    texts += within("l", Stretch(*whole), question.order, arguments)
    await connection.execute(_PLAN_ONCE)
    reached = await connection.fetchval(
        f"SELECT l.occurred_at FROM audit_log AS l WHERE {' AND '.join(texts)}"  # noqa: S608  fixed words, no input
        f" ORDER BY l.occurred_at {direction}, l.event_id {direction} OFFSET {events} LIMIT 1",
        *arguments.values,
    )
    await connection.execute(_PLAN_BY_VALUE)
    since, until = whole
    if reached is None:
        return until - since
    length: timedelta = until - reached if question.order == "newest" else reached - since
    return max(length, timedelta(milliseconds=1))


async def _read(
    connection: PooledConnection, question: _Question, limit: int
) -> list[asyncpg.Record]:
    """Read the first events of what one index answers."""
    arguments = Arguments()
    conditions = [
        *in_columns(question.tenant_id, question.wanted, arguments),
        *within("l", question.stretch, question.order, arguments),
    ]
    query = _SELECT.format(
        conditions=" AND ".join(conditions),
        direction=DIRECTIONS[question.order],
        limit=limit,
    )
    return list(await connection.fetch(query, *arguments.values))


async def _read_stretch(
    connection: PooledConnection,
    question: _Question,
    limit: int,
    bounds: tuple[datetime, datetime],
) -> list[asyncpg.Record]:
    """Read the first events of a stretch that have all that is wanted, whichever index helps."""
    arguments = Arguments()
    stretch = replace(question.stretch, since=bounds[0], until=bounds[1])
    answers = in_stretch(
        question.tenant_id, question.wanted, stretch, question.order,
        words=question.words, arguments=arguments,
    )  # fmt: skip
    direction = DIRECTIONS[question.order]
    # All that fits, and no limit in sight: in its hope to be done soon PostgreSQL would look up
    # event after event. The keys alone are often all in one index, and rows are wide.
    parts = [
        f"SELECT l.occurred_at, l.event_id FROM audit_log AS l WHERE {conditions}"  # noqa: S608  fixed words, no input
        for conditions in answers
    ]
    keys = (
        f"WITH found AS MATERIALIZED ({' UNION '.join(parts)})"  # noqa: S608  likewise
        " SELECT occurred_at, event_id FROM found"
        f" ORDER BY occurred_at {direction}, event_id {direction} LIMIT {limit}"
    )
    return await _read_keys(connection, question, keys, arguments)


async def _read_streams(
    connection: PooledConnection, question: _Question, streams: Sequence[Stream]
) -> list[asyncpg.Record]:
    if not streams:
        return []
    limit = question.page.limit + 1
    values = sum(len(stream.values) for stream in streams)
    # Of hundreds of values few have as many of the first events as a page has room for.
    depth = max(1, MOST_KEYS // values)
    while depth < limit:
        rows = await _read_so_deep(connection, question, streams, depth)
        if len(rows) == limit:
            return rows
        depth *= DEEPER
    return await _read_so_deep(connection, question, streams, limit)


async def _read_so_deep(
    connection: PooledConnection, question: _Question, streams: Sequence[Stream], depth: int
) -> list[asyncpg.Record]:
    arguments = Arguments()
    keys = keys_of(
        question.tenant_id, streams, question.stretch, question.order,
        limit=question.page.limit + 1, depth=depth, arguments=arguments,
    )  # fmt: skip
    return await _read_keys(connection, question, keys, arguments)


async def _read_keys(
    connection: PooledConnection, question: _Question, keys: str, arguments: Arguments
) -> list[asyncpg.Record]:
    query = _SELECT_KEYS.format(
        keys=keys,
        tenant=arguments.put("{}", question.tenant_id),
        direction=DIRECTIONS[question.order],
    )
    return list(await connection.fetch(query, *arguments.values))


async def _count(connection: PooledConnection, question: _Question) -> int:
    if question.words.is_in_nothing:
        return 0
    arguments, wanted = Arguments(), question.wanted
    answers = in_stretch(
        question.tenant_id, wanted, Stretch(wanted.since, wanted.until), question.order,
        words=question.words, arguments=arguments,
    )  # fmt: skip
    conditions = " OR ".join(f"({answer})" for answer in answers)
    total: int = await connection.fetchval(
        f"SELECT count(*) FROM audit_log AS l WHERE {conditions}",  # noqa: S608  fixed words, no input
        *arguments.values,
    )
    return total


async def _get(connection: PooledConnection, tenant_id: TenantId, event_id: UUID) -> EventDetails:
    query = _SELECT.format(
        conditions="l.tenant_id = $1 AND l.event_id = $2", direction="DESC",
        limit=1,
    )  # fmt: skip
    row = await connection.fetchrow(query, tenant_id, event_id)
    if row is None:
        raise await explain_absence(connection, event_id)
    return _details(row)


def _page(
    rows: Sequence[asyncpg.Record], *, limit: int, reached: Position | None, total: int | None
) -> Page[EventDetails]:
    items = [_details(row) for row in rows[:limit] if row["seq"] is not None]
    if len(rows) > limit:
        reached = Position(at=rows[limit - 1]["key_at"], id=rows[limit - 1]["key_id"])
    return Page(items=items, next=reached, total=total)


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
