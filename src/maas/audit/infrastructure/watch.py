"""The watch in PostgreSQL, as `maas_system`: each slice is one transaction.

The row of `audit_watch` is its lock and its cursor. What a slice raises, the event and the
deliveries of it, what it remembers, and how far it came are committed together: killed anywhere, it
begins the slice again, and nothing of it had happened.
"""

import hmac
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from maas.audit.application.events import EventComposer
from maas.audit.application.watch import Watched
from maas.audit.domain.rules import RULES, InvalidRuleParameterError, Rule, RuleName
from maas.audit.domain.rules_clues import GRANTS, ROLE_CHANGES, Subject, WatchedEvent, site_of
from maas.audit.domain.watch import Burst, Point, Quiet, Verdict, judge
from maas.audit.domain.webhooks import MAX_PENDING
from maas.audit.infrastructure.ledger import Checkpoint, pass_by
from maas.audit.infrastructure.outbox import insert_event
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.infrastructure.watch_outages import naming_outages
from maas.audit.public import Actor, AuditedResource, AuditScope
from maas.shared.domain.call import Call
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

ALERT_ACTION = "audit.alert"
ALERT: Final = AuditedResource("alert", frozenset({"rule", "subject_kind", "subject_id", "count"}))

MEMORY: Final = timedelta(days=8)
"""The longest window, and a day for what comes late."""

KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 16

_CURSOR: Final = "SELECT seq FROM audit_watch WHERE id = 1 FOR UPDATE SKIP LOCKED"
_MOVE: Final = "UPDATE audit_watch SET seq = $1 WHERE id = 1"
_EVENTS: Final = """
    SELECT l.seq, l.event_id, l.tenant_id, l.occurred_at, l.actor_kind, l.actor_id, l.action,
           l.resource_kind, l.resource_id, l.outcome, l.reason,
           CASE WHEN l.action = ANY($3) THEN l.payload END AS payload,
           p.actor_name, host(p.address) AS address
    FROM (SELECT * FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2) AS l
    LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
    ORDER BY l.seq
"""
_SETTINGS: Final = """
    SELECT tenant_id, rule, is_enabled, parameters::text AS parameters FROM audit_rule_settings
    WHERE tenant_id = ANY($1)
"""
_OF: Final = """
    JOIN unnest($1::uuid[], $2::text[], $3::bytea[]) AS w (tenant_id, rule, subject)
    ON t.tenant_id = w.tenant_id AND t.rule = w.rule AND t.subject = w.subject
"""
_POINTS: Final = f"""
    SELECT t.tenant_id, t.rule, t.subject, t.event_id, t.occurred_at, host(p.address) AS address
    FROM audit_watch_points AS t {_OF} LEFT JOIN audit_personal AS p ON p.event_id = t.event_id
"""  # noqa: S608  fixed words, no input
_QUIET: Final = f"""
    SELECT t.tenant_id, t.rule, t.subject, t.since, t.until FROM audit_watch_quiet AS t {_OF}
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
    INSERT INTO audit_watch_quiet (tenant_id, rule, subject, since, until)
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::bytea[], $4::timestamptz[], $5::timestamptz[])
    ON CONFLICT (tenant_id, rule, subject, since) DO UPDATE SET until = excluded.until
"""
_RAISE: Final = """
    INSERT INTO audit_alerts (id, tenant_id, rule, subject_kind, subject_id, count, first_at,
        last_at, trigger_id, event_ids, raised_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (rule, trigger_id) DO NOTHING RETURNING id
"""
_WEBHOOKS: Final = """
    SELECT id, tenant_id, rules,
        (SELECT count(*) FROM audit_deliveries d
         WHERE d.webhook_id = w.id AND d.status = 'pending') AS pending
    FROM audit_webhooks w WHERE tenant_id = ANY($1) AND status = 'active'
    ORDER BY created_at, id FOR KEY SHARE
"""
_DELIVER: Final = """
    INSERT INTO audit_deliveries (id, tenant_id, webhook_id, alert_id, status, attempts, created_at,
        finished_at, last_error)
    VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8)
"""
_FORGET: Final = tuple(
    f"DELETE FROM {table} WHERE noted_at < clock_timestamp() - $1::interval"  # noqa: S608  fixed words
    for table in ("audit_watch_points", "audit_watch_quiet")
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Group:
    """What is judged together: one subject of one rule in one tenant."""

    tenant_id: TenantId
    rule: RuleName
    digest: bytes


@dataclass(slots=True)
class _Case:
    subject: Subject
    rule: Rule
    new: list[Point] = field(default_factory=list)
    old: list[Point] = field(default_factory=list)
    quiet: list[Quiet] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Raised:
    tenant_id: TenantId
    rule: RuleName
    subject: Subject
    burst: Burst


@dataclass(slots=True)
class _Memory:
    """Rows for the tables of points and quiet spans, and points that are to go."""

    gone: list[tuple[object, ...]] = field(default_factory=list)
    new: list[tuple[object, ...]] = field(default_factory=list)
    quiet: list[tuple[object, ...]] = field(default_factory=list)

    def note(self, group: _Group, case: _Case, verdict: Verdict) -> None:
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
            (*key, since, until) for since, until in {s.since: s.until for s in spans}.items()
        ]


class PostgresWatch:
    """`key` hides subjects; `checkpoint` is called where a test may want to stop it."""

    def __init__(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        *,
        key: bytes,
        clock: Clock,
        checkpoint: Checkpoint = pass_by,
    ) -> None:
        self._connection = connection
        self._key = key
        self._clock = clock
        self._composer = EventComposer(clock)
        self._checkpoint = checkpoint

    async def watch_slice(self, limit: int) -> Watched | None:
        with naming_outages():
            async with self._connection.transaction():
                watched = await self._watch(limit)
                self._checkpoint("before_commit")
            self._checkpoint("after_commit")
        return watched

    async def forget(self) -> None:
        with naming_outages():
            for statement in _FORGET:
                await self._connection.execute(statement, MEMORY)

    async def _watch(self, limit: int) -> Watched | None:
        seq = await self._connection.fetchval(_CURSOR)
        if seq is None:
            return None
        rows = await self._connection.fetch(_EVENTS, seq, limit, [*GRANTS, *ROLE_CHANGES])
        if not rows:
            return Watched(0, 0)
        events = [_event(row) for row in rows]
        cases = await self._open_cases(events)
        raised: dict[tuple[RuleName, UUID], _Raised] = {}
        memory = _Memory()
        for group, case in cases.items():
            verdict = judge(case.rule, new=case.new, old=case.old, quiet=case.quiet)
            memory.note(group, case, verdict)
            for burst in verdict.bursts:
                _raise(raised, _Raised(group.tenant_id, group.rule, case.subject, burst))
        await self._remember(memory)
        self._checkpoint("after_judging")
        order = {event.id: index for index, event in enumerate(events)}
        alerts = sorted(raised.values(), key=lambda each: order[each.burst.trigger_id])
        count = await self._tell(alerts)
        await self._connection.execute(_MOVE, rows[-1]["seq"])
        return Watched(len(rows), count)

    async def _open_cases(self, events: Sequence[WatchedEvent]) -> dict[_Group, _Case]:
        rules = await self._rules_of({event.tenant_id for event in events})
        cases: dict[_Group, _Case] = {}
        for event in events:
            for rule in rules[event.tenant_id]:
                for clue in rule.clues(event):
                    group = _Group(event.tenant_id, rule.name, self._digest(clue.subject))
                    case = cases.setdefault(group, _Case(clue.subject, rule))
                    case.new.append(Point(event.at, event.id, clue.points_to))
        keys = (
            [group.tenant_id for group in cases],
            [group.rule for group in cases],
            [group.digest for group in cases],
        )
        for row in await self._connection.fetch(_POINTS, *keys):
            case = cases[_Group(row["tenant_id"], row["rule"], row["subject"])]
            points_to = None
            if case.rule.is_distinct:
                if row["address"] is None:
                    # Erased since, with the person.
                    continue
                points_to = site_of(row["address"])
            case.old.append(Point(row["occurred_at"], row["event_id"], points_to))
        for row in await self._connection.fetch(_QUIET, *keys):
            case = cases[_Group(row["tenant_id"], row["rule"], row["subject"])]
            case.quiet.append(Quiet(row["since"], row["until"]))
        return cases

    async def _rules_of(self, tenants: Iterable[TenantId]) -> Mapping[TenantId, list[Rule]]:
        rules: dict[TenantId, dict[str, Rule | None]] = {
            tenant: {name: kind() if kind.on_by_default else None for name, kind in RULES.items()}
            for tenant in tenants
        }
        for row in await self._connection.fetch(_SETTINGS, list(rules)):
            kind = RULES.get(row["rule"])
            if kind is not None:
                rules[row["tenant_id"]][kind.name] = _read_rule(kind, row)
        return {
            tenant: [rule for rule in of_tenant.values() if rule is not None]
            for tenant, of_tenant in rules.items()
        }

    def _digest(self, subject: Subject) -> bytes:
        text = f"{subject.kind}\0{subject.key or ''}"
        return hmac.digest(self._key, text.encode(), "sha256")[:DIGEST_BYTES]

    async def _remember(self, memory: _Memory) -> None:
        """Write what is to be remembered of all subjects at once: a slice may have hundreds."""
        for statement, rows in (
            (_DROP, memory.gone),
            (_NOTE, memory.new),
            (_KEEP_QUIET, memory.quiet),
        ):
            if rows:
                await self._connection.execute(statement, *map(list, zip(*rows, strict=True)))

    async def _tell(self, alerts: Sequence[_Raised]) -> int:
        """Write alerts, the events of them, and a delivery for each webhook that wants to know."""
        if not alerts:
            return 0
        tenants = list({alert.tenant_id for alert in alerts})
        webhooks = await self._connection.fetch(_WEBHOOKS, tenants)
        room = {row["id"]: MAX_PENDING - row["pending"] for row in webhooks}
        count = 0
        for alert in alerts:
            alert_id = await self._write(alert)
            if alert_id is None:
                continue
            count += 1
            await insert_event(self._connection, self._compose(alert, alert_id))
            for row in webhooks:
                wants = not row["rules"] or alert.rule in row["rules"]
                if row["tenant_id"] == alert.tenant_id and wants:
                    await self._queue(row["id"], alert, alert_id, has_room=room[row["id"]] > 0)
                    room[row["id"]] -= 1
        return count

    async def _write(self, alert: _Raised) -> UUID | None:
        burst = alert.burst
        written: UUID | None = await self._connection.fetchval(
            _RAISE,
            new_id(),
            alert.tenant_id,
            alert.rule,
            alert.subject.kind,
            alert.subject.shown_id,
            burst.count,
            burst.first_at,
            burst.last_at,
            burst.trigger_id,
            list(burst.event_ids),
            self._clock.now(),
        )
        return written

    async def _queue(
        self, webhook_id: UUID, alert: _Raised, alert_id: UUID, *, has_room: bool
    ) -> None:
        now = self._clock.now()
        state = ("pending", now, None, None) if has_room else ("failed", now, now, "queue-full")
        await self._connection.execute(
            _DELIVER, new_id(), alert.tenant_id, webhook_id, alert_id, *state
        )

    def _compose(self, alert: _Raised, alert_id: UUID) -> Any:
        scope = AuditScope(ALERT_ACTION, tenant_id=alert.tenant_id)
        scope.actor = Actor("system", None, name="watch")
        told = {
            "rule": alert.rule,
            "subject_kind": alert.subject.kind,
            "subject_id": alert.subject.shown_id,
            "count": alert.burst.count,
        }
        scope.change(ALERT, alert_id, after=told)
        return self._composer.compose(scope, Call(request_id=new_id().hex, recorder=SilentAudit()))


def watch_key(secret: str) -> bytes:
    """Derive the key that hides subjects from the server's own."""
    derivation = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"maas audit watch")
    return derivation.derive(secret.encode())


def _event(row: asyncpg.Record) -> WatchedEvent:
    payload = row["payload"]
    return WatchedEvent(
        id=row["event_id"],
        tenant_id=TenantId(row["tenant_id"]),
        at=row["occurred_at"],
        actor_kind=row["actor_kind"],
        actor_id=row["actor_id"],
        action=row["action"],
        resource_kind=row["resource_kind"],
        resource_id=row["resource_id"],
        outcome=row["outcome"],
        reason=row["reason"],
        actor_name=row["actor_name"],
        address=row["address"],
        changes=None if payload is None else json.loads(payload)["changes"],
    )


def _read_rule(kind: type[Rule], row: asyncpg.Record) -> Rule | None:
    if not row["is_enabled"]:
        return None
    try:
        return kind().revised(json.loads(row["parameters"]))
    except InvalidRuleParameterError:
        # A zone that this machine does not know must not stop the watch over everybody else.
        log.warning("audit_rule_unreadable", rule=kind.name, tenant_id=str(row["tenant_id"]))
        return kind()


def _raise(raised: dict[tuple[RuleName, UUID], _Raised], alert: _Raised) -> None:
    """Raise one alert where an event completes two: whose account tells more than where from."""
    key = (alert.rule, alert.burst.trigger_id)
    known = raised.get(key)
    if known is None or known.subject.kind == "address":
        raised[key] = alert


@asynccontextmanager
async def open_watch(
    settings: DatabaseSettings, *, key: bytes, clock: Clock, checkpoint: Checkpoint = pass_by
) -> AsyncIterator[PostgresWatch]:
    """Connect for one run.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    with naming_outages():
        connection = await asyncpg.connect(**system_arguments(settings))
    try:
        yield PostgresWatch(connection, key=key, clock=clock, checkpoint=checkpoint)
    finally:
        await connection.close()
