"""The watch in PostgreSQL, as `maas_system`: each slice is one transaction.

The row of `audit_watch` is its lock and its cursor. What a slice raises, the event and the
deliveries of it, what it remembers, and how far it came are committed together: killed anywhere, it
begins the slice again, and nothing of it had happened.
"""

import hmac
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg
import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from maas.audit.application.events import EventComposer
from maas.audit.application.watch import SliceTooLongError, Watched
from maas.audit.domain.rules import RULES, InvalidRuleParameterError, Rule, RuleName
from maas.audit.domain.rules_clues import (
    GRANTS,
    LOGIN,
    QUOTA_REACHED,
    REMOVALS,
    ROLE_CHANGES,
    Subject,
    WatchedEvent,
    is_administrative,
    roles_given,
)
from maas.audit.domain.watch import Point, judge
from maas.audit.infrastructure.ledger import Checkpoint, pass_by
from maas.audit.infrastructure.watch_alerts import AlertWriter, Raised
from maas.audit.infrastructure.watch_memory import Case, Group, Memory, forget_old, recall
from maas.audit.infrastructure.watch_outages import naming_outages
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

KEY_BYTES: Final = 32
DIGEST_BYTES: Final = 16

_CURSOR: Final = "SELECT seq FROM audit_watch WHERE id = 1 FOR UPDATE SKIP LOCKED"
_MOVE: Final = "UPDATE audit_watch SET seq = $1 WHERE id = 1"
_SLICE: Final = """
    SELECT max(seq) AS seq_to, count(*) AS events
    FROM (SELECT seq FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2) AS l
"""
# Most events only tell that an account was seen at an address: one of them a minute is enough.
_EVENTS: Final = """
    SELECT l.seq, l.event_id, l.tenant_id, l.occurred_at, l.actor_kind, l.actor_id, l.action,
           l.resource_kind, l.resource_id, l.outcome, l.reason,
           CASE WHEN l.action = ANY($3) THEN l.payload END AS payload,
           l.actor_name, host(l.address) AS address
    FROM (
        SELECT l.*, p.actor_name, p.address,
            l.action = ANY($4) OR l.action LIKE '%deleted'
                OR l.tenant_id IN (SELECT tenant_id FROM audit_rule_settings
                                   WHERE is_enabled AND rule = ANY($5)) AS is_telling,
            row_number() OVER (
                PARTITION BY l.tenant_id, l.actor_id, p.address, date_trunc('minute', l.occurred_at)
            ) AS place
        FROM audit_log AS l LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
        WHERE l.seq > $1 AND l.seq <= $2
    ) AS l
    WHERE l.is_telling OR l.place = 1
    ORDER BY l.seq
"""
_READ_WHOLE: Final = [*GRANTS, *ROLE_CHANGES, QUOTA_REACHED]
_TELLING: Final = [LOGIN, *REMOVALS, *_READ_WHOLE]
_SEEING_ALL: Final = [rule.name for rule in RULES.values() if rule.sees_all]
_SETTINGS: Final = """
    SELECT tenant_id, rule, is_enabled, version, parameters::text AS parameters
    FROM audit_rule_settings
    WHERE tenant_id = ANY($1)
"""
_ROLES: Final = """
    SELECT tenant_id, name, permissions FROM roles WHERE tenant_id = ANY($1) AND name = ANY($2)
"""

log = structlog.get_logger(__name__)

_RuleInUse: TypeAlias = tuple[Rule, int]
"""A rule and the version of its setting."""


@dataclass(frozen=True, slots=True)
class _Patience:
    until: float | None

    def check(self) -> None:
        if self.until is not None and time.monotonic() >= self.until:
            raise SliceTooLongError


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
        self._alerts = AlertWriter(connection, EventComposer(clock))
        self._checkpoint = checkpoint

    async def watch_slice(self, limit: int, *, patience: float | None = None) -> Watched | None:
        until = None if patience is None else time.monotonic() + patience
        with naming_outages():
            async with self._connection.transaction():
                watched = await self._watch(limit, _Patience(until))
                self._checkpoint("before_commit")
            self._checkpoint("after_commit")
        return watched

    async def forget(self) -> None:
        with naming_outages():
            await forget_old(self._connection)

    async def _watch(self, limit: int, patience: _Patience) -> Watched | None:
        seq = await self._connection.fetchval(_CURSOR)
        if seq is None:
            return None
        found = await self._connection.fetchrow(_SLICE, seq, limit)
        if found is None or not found["events"]:
            return Watched(0, 0)
        rows = await self._connection.fetch(
            _EVENTS, seq, found["seq_to"], _READ_WHOLE, _TELLING, _SEEING_ALL
        )
        events = await self._with_roles([_event(row) for row in rows])
        cases = await self._open_cases(events)
        patience.check()
        raised, memory = _judge_all(cases, patience)
        await memory.write(self._connection)
        self._checkpoint("after_judging")
        order = {event.id: index for index, event in enumerate(events)}
        raised.sort(key=lambda each: order[each.burst.trigger_id])
        count = await self._alerts.tell(raised, at=self._clock.now())
        patience.check()
        await self._connection.execute(_MOVE, found["seq_to"])
        return Watched(found["events"], count)

    async def _with_roles(self, events: Sequence[WatchedEvent]) -> list[WatchedEvent]:
        """Look up which of the roles that somebody was given are an administrator's by content."""
        given = {event.id: roles_given(event) for event in events}
        wanted = frozenset[str]().union(*given.values())
        if not wanted:
            return list(events)
        tenants = {event.tenant_id for event in events if given[event.id]}
        found: dict[UUID, set[str]] = {}
        for row in await self._connection.fetch(_ROLES, list(tenants), list(wanted)):
            if is_administrative(frozenset(row["permissions"])):
                found.setdefault(row["tenant_id"], set()).add(row["name"])
        return [
            replace(event, admin_roles=given[event.id] & found.get(event.tenant_id, set()))
            if given[event.id]
            else event
            for event in events
        ]

    async def _open_cases(self, events: Sequence[WatchedEvent]) -> dict[Group, Case]:
        rules = await self._rules_of({event.tenant_id for event in events})
        cases: dict[Group, Case] = {}
        for event in events:
            for rule, version in rules[event.tenant_id]:
                for clue in rule.clues(event):
                    group = Group(event.tenant_id, rule.name, self._digest(clue.subject))
                    case = cases.setdefault(group, Case(clue.subject, rule, version))
                    case.new.append(Point(event.at, event.id, clue.points_to))
        await recall(self._connection, cases)
        return cases

    async def _rules_of(self, tenants: Iterable[TenantId]) -> Mapping[TenantId, list[_RuleInUse]]:
        rules: dict[TenantId, dict[str, _RuleInUse | None]] = {
            tenant: {
                name: (kind(), 0) if kind.on_by_default else None for name, kind in RULES.items()
            }
            for tenant in tenants
        }
        for row in await self._connection.fetch(_SETTINGS, list(rules)):
            kind = RULES.get(row["rule"])
            if kind is not None:
                rule = _read_rule(kind, row)
                in_use = None if rule is None else (rule, int(row["version"]))
                rules[row["tenant_id"]][kind.name] = in_use
        return {
            tenant: [each for each in of_tenant.values() if each is not None]
            for tenant, of_tenant in rules.items()
        }

    def _digest(self, subject: Subject) -> bytes:
        text = f"{subject.kind}\0{subject.key or ''}"
        return hmac.digest(self._key, text.encode(), "sha256")[:DIGEST_BYTES]


def _judge_all(cases: Mapping[Group, Case], patience: _Patience) -> tuple[list[Raised], Memory]:
    """Judge addresses last: whose account tells more than where from.

    What an alert about an account tells sets off none about its address, but still counts there:
    behind guesses at one account others shall not hide.
    """
    raised: list[Raised] = []
    memory = Memory()
    told: dict[RuleName, set[UUID]] = {name: set() for name in RULES}
    for group, case in sorted(cases.items(), key=lambda each: each[1].subject.kind == "address"):
        patience.check()
        verdict = judge(
            case.rule, new=case.new, old=case.old, quiet=case.quiet, told=told[group.rule]
        )
        if case.subject.kind != "address":
            told[group.rule] |= verdict.told
        memory.note(group, case, verdict)
        raised += [
            Raised(group.tenant_id, group.rule, case.subject, burst) for burst in verdict.bursts
        ]
    return raised, memory


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
