"""What the watch remembers of subjects: points that may add up, and spans that are quiet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import asyncpg

from maas.audit.domain.rules import Rule, RuleName
from maas.audit.domain.rules_clues import Subject, site_of
from maas.audit.domain.watch import Point, Quiet, Verdict
from maas.shared.domain.ids import TenantId

MEMORY: Final = timedelta(days=8)
"""The longest window, and a day for what comes late."""

_OF: Final = """
    JOIN unnest($1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[], $5::integer[])
        AS w (tenant_id, rule, subject, oldest, version)
    ON t.tenant_id = w.tenant_id AND t.rule = w.rule AND t.subject = w.subject
"""
_POINTS: Final = f"""
    SELECT t.tenant_id, t.rule, t.subject, t.event_id, t.occurred_at, host(p.address) AS address
    FROM audit_watch_points AS t {_OF} LEFT JOIN audit_personal AS p ON p.event_id = t.event_id
"""  # noqa: S608  fixed words, no input
_QUIET: Final = f"""
    SELECT t.tenant_id, t.rule, t.subject, t.since, t.until FROM audit_watch_quiet AS t {_OF}
    WHERE t.until > w.oldest AND t.version = w.version
"""  # noqa: S608  fixed words, no input
_NOTE: Final = """
    INSERT INTO audit_watch_points (tenant_id, rule, subject, event_id, occurred_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[], $5::timestamptz[])
    ON CONFLICT DO NOTHING
"""
_DROP: Final = """
    DELETE FROM audit_watch_points AS t
    USING unnest($1::uuid[], $2::text[], $3::bytea[], $4::uuid[])
        AS w (tenant_id, rule, subject, event_id)
    WHERE t.tenant_id = w.tenant_id AND t.rule = w.rule AND t.subject = w.subject
      AND t.event_id = w.event_id
"""
_KEEP_QUIET: Final = """
    INSERT INTO audit_watch_quiet (tenant_id, rule, subject, since, until, version)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[],
        $5::timestamptz[], $6::integer[])
    ON CONFLICT (tenant_id, rule, subject, since)
    DO UPDATE SET until = excluded.until, version = excluded.version
"""
_FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE noted_at < clock_timestamp() - $1::interval"  # noqa: S608  fixed words
    for table in ("audit_watch_points", "audit_watch_quiet")
)


@dataclass(frozen=True, slots=True)
class Group:
    """What is judged together: one subject of one rule in one tenant."""

    tenant_id: TenantId
    rule: RuleName
    digest: bytes


@dataclass(slots=True)
class Case:
    """`version` is the rule's: spans that its old parameters made quiet hush nothing now."""

    subject: Subject
    rule: Rule
    version: int
    new: list[Point] = field(default_factory=list)
    old: list[Point] = field(default_factory=list)
    quiet: list[Quiet] = field(default_factory=list)


async def recall(
    connection: "asyncpg.Connection[asyncpg.Record]", cases: Mapping[Group, Case]
) -> None:
    """Put into each case what waits already, and what is quiet."""
    keys: tuple[Sequence[object], ...] = (
        [group.tenant_id for group in cases],
        [group.rule for group in cases],
        [group.digest for group in cases],
        [min(point.at for point in case.new) for case in cases.values()],
        [case.version for case in cases.values()],
    )
    for row in await connection.fetch(_POINTS, *keys):
        case = cases[Group(row["tenant_id"], row["rule"], row["subject"])]
        points_to = None
        if case.rule.is_distinct:
            if row["address"] is None:
                # Erased since, with the person.
                continue
            points_to = site_of(row["address"])
        case.old.append(Point(row["occurred_at"], row["event_id"], points_to))
    for row in await connection.fetch(_QUIET, *keys):
        case = cases[Group(row["tenant_id"], row["rule"], row["subject"])]
        case.quiet.append(Quiet(row["since"], row["until"]))


@dataclass(slots=True)
class Memory:
    """Rows for the tables of points and quiet spans, and points that are to go."""

    gone: list[tuple[object, ...]] = field(default_factory=list)
    new: list[tuple[object, ...]] = field(default_factory=list)
    quiet: list[tuple[object, ...]] = field(default_factory=list)

    def note(self, group: Group, case: Case, verdict: Verdict) -> None:
        key = (group.tenant_id, group.rule, group.digest)
        known = {point.event_id for point in case.old}
        kept = {point.event_id for point in verdict.waiting}
        self.gone += [(*key, event_id) for event_id in known - kept]
        self.new += [
            (*key, point.event_id, point.at)
            for point in verdict.waiting
            if point.event_id not in known
        ]
        # Spans that begin together would be one row written twice: the longest holds.
        spans = sorted(verdict.quiet, key=lambda span: span.until)
        self.quiet += [
            (*key, since, until, case.version)
            for since, until in {span.since: span.until for span in spans}.items()
        ]

    async def write(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Write what is to be remembered of all subjects at once: a slice may have hundreds."""
        for statement, rows in (
            (_DROP, self.gone),
            (_NOTE, self.new),
            (_KEEP_QUIET, self.quiet),
        ):
            if rows:
                await connection.execute(statement, *map(list, zip(*rows, strict=True)))


async def forget_old(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for statement in _FORGET:
        await connection.execute(statement, MEMORY)
