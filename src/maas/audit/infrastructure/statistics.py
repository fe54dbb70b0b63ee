"""Counts read from the rollups, as `maas_app`: each answer is one statement, so of one moment."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from maas.audit.application.queries import ActorDetails
from maas.audit.application.statistics import Counted, Counts, Key, Tally
from maas.audit.domain.statistics import Question
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database, PooledConnection

# With the values known, conditions that do not apply are gone before there is a plan.
_PLAN_BY_VALUE: Final = "SET LOCAL plan_cache_mode = force_custom_plan"

_LAST_CHARACTER: Final = "\U0010ffff"

_SUMS: Final = """
    sum(events)::bigint AS events, sum(failures)::bigint AS failures,
    sum(denials)::bigint AS denials
"""
_WANTED: Final = """
    CASE $4::text WHEN 'failure' THEN failures WHEN 'denied' THEN denials
        WHEN 'success' THEN events - failures - denials ELSE events END
"""
_TOTAL: Final = f"""
    SELECT coalesce(sum(events), 0)::bigint AS all_events,
        coalesce(sum(failures), 0)::bigint AS all_failures,
        coalesce(sum(denials), 0)::bigint AS all_denials,
        count({{keys}}) FILTER (WHERE {_WANTED} > 0) AS keys
    FROM found
"""  # noqa: S608  fixed words, no input

# $1 tenant, $2 since, $3 until, $4 outcome, $5 limit
_BY_ACTION: Final = f"""
    WITH found AS MATERIALIZED (
        SELECT {{at}} AS at, {{key}} AS key, {_SUMS}
        FROM audit_rollup_hours
        WHERE tenant_id = $1 AND hour >= $2 AND hour < $3
            AND ($6::text IS NULL OR action = $6)
            AND ($7::text IS NULL OR (action >= $7 AND action < $8))
        GROUP BY 1, 2
    ), total AS ({_TOTAL.format(keys="DISTINCT key")}), top AS (
        SELECT key, sum({_WANTED}) AS wanted FROM found
        GROUP BY key HAVING sum({_WANTED}) > 0 ORDER BY wanted DESC, key LIMIT $5
    )
    SELECT * FROM total LEFT JOIN (top JOIN found USING (key)) ON true
    ORDER BY wanted DESC, key, at
"""  # noqa: S608  fixed words, no input
_HOUR_BUCKETS: Final = {
    None: "NULL::timestamptz", "hour": "hour", "day": "date_trunc('day', hour, 'UTC')",
}  # fmt: skip

# From many actors the most frequent, by whole weeks where there are any; $6 and $7 bound those.
_BY_ACTOR: Final = f"""
    WITH found AS MATERIALIZED (
        SELECT actor_kind, actor_id, {_SUMS},
            max(newest_seq) AS newest_seq
        FROM (
            SELECT * FROM audit_rollup_weeks WHERE tenant_id = $1 AND week >= $6 AND week < $7
            UNION ALL
            SELECT * FROM audit_rollup_days WHERE tenant_id = $1 AND day >= $2 AND day < $6
            UNION ALL
            SELECT * FROM audit_rollup_days WHERE tenant_id = $1 AND day >= $7 AND day < $3
        ) AS kept
        GROUP BY 1, 2
    ), total AS ({_TOTAL.format(keys="*")}), top AS (
        SELECT *, {_WANTED} AS wanted FROM found
        WHERE {_WANTED} > 0 ORDER BY wanted DESC, actor_kind, actor_id LIMIT $5
    )
"""  # noqa: S608  fixed words, no input
_TOP_ACTORS: Final = f"""{_BY_ACTOR}
    SELECT *, NULL::date AS at FROM total LEFT JOIN top ON true
    ORDER BY wanted DESC, actor_kind, actor_id
"""  # noqa: S608  fixed words, no input
_TOP_ACTORS_BY_DAY: Final = f"""{_BY_ACTOR}
    SELECT total.*, top.actor_kind, top.actor_id, top.newest_seq, by_day.*
    FROM total LEFT JOIN top ON true LEFT JOIN LATERAL (
        SELECT day AS at, {_SUMS} FROM audit_rollup_days AS d
        WHERE d.tenant_id = $1 AND d.day >= $2 AND d.day < $3 AND d.actor_kind = top.actor_kind
            AND (d.actor_id = top.actor_id OR (top.actor_id IS NULL AND d.actor_id IS NULL))
        GROUP BY 1
    ) AS by_day ON true
    ORDER BY wanted DESC, actor_kind, actor_id, at
"""  # noqa: S608  fixed words, no input
_OF_ACTOR: Final = f"""
    WITH found AS (
        SELECT {{at}} AS at, {{kind}} AS actor_kind, actor_id, {_SUMS},
            max(newest_seq) AS newest_seq
        FROM audit_rollup_days
        WHERE tenant_id = $1 AND day >= $2 AND day < $3 AND actor_id = $5
        GROUP BY 1, 2, 3
    ), total AS ({_TOTAL.format(keys="DISTINCT actor_kind")})
    SELECT * FROM total LEFT JOIN found ON {_WANTED} > 0 ORDER BY actor_kind, at
"""  # noqa: S608  fixed words, no input
_DAY_BUCKETS: Final = {None: "NULL::date", "day": "day"}

# What an actor was called last; nothing, once that is erased.
_NAMES: Final = """
    SELECT l.seq, p.actor_name FROM audit_log AS l JOIN audit_personal AS p USING (event_id)
    WHERE l.tenant_id = $1 AND l.seq = ANY ($2::bigint[])
"""


class PostgresRollups:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, tenant_id: TenantId, question: Question) -> Tally:
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(_PLAN_BY_VALUE)
            if not question.is_by_actor:
                rows = await _count_actions(connection, tenant_id, question)
                return _tally(rows, [_action(question, row) for row in rows])
            rows = await _count_actors(connection, tenant_id, question)
            names: Mapping[int, str | None] = {}
            if question.subject == "actor":
                names = await _read_names(connection, tenant_id, rows)
        return _tally(rows, [_actor(question, row, names) for row in rows])


async def _count_actions(
    connection: PooledConnection, tenant_id: TenantId, question: Question
) -> Sequence[asyncpg.Record]:
    key = "action" if question.subject == "action" else "''"
    exact, first, beyond = _action_range(question.action)
    return await connection.fetch(
        _BY_ACTION.format(at=_HOUR_BUCKETS[question.step], key=key),
        tenant_id, question.since, question.until, question.outcome, question.limit,
        exact, first, beyond,
    )  # fmt: skip


def _action_range(action: str | None) -> tuple[str | None, str | None, str | None]:
    """Spell an action as itself, or a prefix as where it begins and what is beyond it."""
    if action is None or not action.endswith("*"):
        return action, None, None
    prefix = action.removesuffix("*")
    return None, prefix, prefix + _LAST_CHARACTER


async def _count_actors(
    connection: PooledConnection, tenant_id: TenantId, question: Question
) -> Sequence[asyncpg.Record]:
    since, until = question.since.date(), question.until.date()
    asked = (tenant_id, since, until, question.outcome)
    if question.actor_id is not None:
        query = _OF_ACTOR.format(
            at=_DAY_BUCKETS["day" if question.step is not None else None],
            # One id may be of two kinds: they are told apart only where that is asked.
            kind="actor_kind" if question.subject == "actor" else "NULL::text",
        )
        return await connection.fetch(query, *asked, question.actor_id)
    query = _TOP_ACTORS if question.step is None else _TOP_ACTORS_BY_DAY
    return await connection.fetch(query, *asked, question.limit, *_whole_weeks(since, until))


def _whole_weeks(since: date, until: date) -> tuple[date, date]:
    """Tell between which Mondays there are only whole weeks, if there are any."""
    first = since + timedelta(days=-since.weekday() % 7)
    last = until - timedelta(days=until.weekday())
    return (first, last) if first < last else (until, until)


async def _read_names(
    connection: PooledConnection, tenant_id: TenantId, rows: Sequence[asyncpg.Record]
) -> Mapping[int, str | None]:
    newest = {row["newest_seq"] for row in rows if row["newest_seq"] is not None}
    found = await connection.fetch(_NAMES, tenant_id, list(newest))
    return {row["seq"]: row["actor_name"] for row in found}


def _action(question: Question, row: asyncpg.Record) -> Key:
    action: str | None = row["key"]
    return action if question.subject == "action" else None


def _actor(question: Question, row: asyncpg.Record, names: Mapping[int, str | None]) -> Key:
    if question.subject != "actor" or row["actor_kind"] is None:
        return None
    actor_id: UUID | None = row["actor_id"]
    return ActorDetails(kind=row["actor_kind"], id=actor_id, name=names.get(row["newest_seq"]))


def _tally(rows: Sequence[asyncpg.Record], keys: Sequence[Key]) -> Tally:
    first = rows[0]
    return Tally(
        total=_counts(first["all_events"], first["all_failures"], first["all_denials"]),
        keys=first["keys"],
        # Where nothing was found there is one row, of the total alone.
        rows=[
            Counted(_instant(row["at"]), key, _counts(*(row[name] for name in _COUNTS)))
            for row, key in zip(rows, keys, strict=True)
            if row["events"] is not None
        ],
    )


_COUNTS: Final = ("events", "failures", "denials")


def _counts(events: int, failures: int, denials: int) -> Counts:
    return Counts(success=events - failures - denials, failure=failures, denied=denials)


def _instant(at: date | None) -> datetime | None:
    if at is None or isinstance(at, datetime):
        return at
    return datetime.combine(at, time(), UTC)
