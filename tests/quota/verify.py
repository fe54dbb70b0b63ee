"""What must be true at the end: of the ledger, the balances, and what every caller was told."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from maas.user.infrastructure.usage_check import find_usage_differences
from tests.chaos.invariants import Report
from tests.quota.book import Booked, Call
from tests.quota.watch import add_up
from tests.quota.world import SCOPES, Tenant, subject_of

USABLE: Final = 0.95

ROWS: Final = """
    SELECT request_id, id, requests, input_tokens + output_tokens + reasoning_tokens AS tokens,
        cost_nanos, is_estimated, is_overrun, settled_at
    FROM usage
"""
USED: Final = """
    SELECT q.subject_id, q.scope, max((b.settled + b.held)::numeric / q.limit_amount) AS share
    FROM quotas q JOIN quota_balances b ON b.quota_id = q.id GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the ledger."""

    hold_id: str
    booked: Booked
    is_estimated: bool
    is_overrun: bool
    requests: int
    settled_at: float


async def verify(
    connection: "asyncpg.Connection[asyncpg.Record]",
    calls: Mapping[str, Call],
    report: Report,
) -> None:
    """Check all that can be checked once the last lease is over, and count."""
    holds = await connection.fetch("SELECT id, lease_until FROM quota_holds LIMIT 20")
    report.check("no hold left", (f"{row['id']} until {row['lease_until']}" for row in holds))
    report.check("balances", await add_up(connection))
    report.check("rollups", await find_usage_differences(connection))
    rows: dict[str, Row] = {}
    for found in await connection.fetch(ROWS):
        if found["request_id"] in rows:
            report.check("booked twice", [found["request_id"]])
        rows[found["request_id"]] = _read(found)
    report.check("made up", (name for name in rows if name not in calls))
    for call in calls.values():
        report.check("told", judge(call, rows.get(call.request_id)))
    report.figures.update(_figures(calls, rows))


def _read(found: asyncpg.Record) -> Row:
    return Row(
        str(found["id"]),
        Booked(found["tokens"], found["cost_nanos"]),
        found["is_estimated"],
        found["is_overrun"],
        found["requests"],
        found["settled_at"].timestamp(),
    )


def judge(call: Call, row: Row | None) -> Iterator[str]:
    """Tell what is wrong with a call, from what its caller knows and what the ledger has."""
    name = call.request_id
    if row is not None and (row.is_overrun or row.requests != 1):
        yield f"{name}: booked as {row}"
    if call.answer == "granted" and call.granted is not None:
        if not _is_between(call.granted, call):
            yield f"{name}: granted {call.granted} of {call.wanted}, at least {call.least}"
        yield from _judge_granted(call, call.granted, row)
    elif row is not None:
        # Granted, and nobody was told: whoever asked had left, or was killed.
        if call.answer == "refused":
            yield f"{name}: refused, and booked as {row.booked}"
        elif not (row.is_estimated and _is_between(row.booked, call)):
            yield f"{name}: never told, and booked as {row}"


def _judge_granted(call: Call, granted: Booked, row: Row | None) -> Iterator[str]:
    name = call.request_id
    if row is None:
        if call.ended_by != "release":
            yield f"{name}: held {granted}, {call.ended_by or 'left'}, and not booked"
        return
    if row.hold_id != call.hold_id:
        yield f"{name}: held as {call.hold_id}, booked as {row.hold_id}"
    if not row.is_estimated:
        if call.ended_by != "settle" or row.booked != call.used:
            yield f"{name}: {call.ended_by} with {call.used}, booked as {row.booked}"
        return
    yield from _judge_expired(call, granted, row)


def _judge_expired(call: Call, granted: Booked, row: Row) -> Iterator[str]:
    """Check what expired: no sooner than its lease, and so before any answer to its caller."""
    name = call.request_id
    if row.settled_at < call.lease_until:
        yield f"{name}: expired {call.lease_until - row.settled_at:.3f} s too early"
    if call.told_at is not None and call.told_at < call.lease_until:
        yield f"{name}: told that it is ended within the lease, and it expired all the same"
    may_be = {granted} if call.progress is None else {call.progress}
    if call.progress is not None and not call.is_progress_told:
        may_be.add(granted)
    if row.booked not in may_be:
        yield f"{name}: expired as {row.booked}, not as one of {may_be}"


def _is_between(booked: Booked, call: Call) -> bool:
    low, high = call.least, call.wanted
    return (
        low.tokens <= booked.tokens <= high.tokens
        and low.cost_nanos <= booked.cost_nanos <= high.cost_nanos
    )


def _figures(calls: Mapping[str, Call], rows: Mapping[str, Row]) -> dict[str, Any]:
    told = [
        call
        for call in calls.values()
        if call.ended_by == "settle"
        and call.told_at is not None
        and not _is_estimated(rows.get(call.request_id))
    ]
    answers = Counter(call.answer or "killed before the answer" for call in calls.values())
    settled = {call.request_id for call in told}
    late = [
        name
        for name, row in rows.items()
        if row.is_estimated and name in calls and calls[name].told_at is not None
    ]
    more = [row for name, row in rows.items() if name not in settled]
    return {
        "calls": f"{len(calls):,} ({_spell(answers)})",
        "settled, as callers were told": _sum(call.used for call in told),
        "settled, in the ledger": _sum(row.booked for name, row in rows.items() if name in settled),
        "in the ledger beside those": _sum(row.booked for row in more)
        + f", {sum(row.is_estimated for row in more):,} of them estimated, "
        f"{len(late):,} settled after their lease",
    }


def _is_estimated(row: Row | None) -> bool:
    return row is not None and row.is_estimated


def _spell(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))


def _sum(amounts: Iterable[Booked | None]) -> str:
    known = [each for each in amounts if each is not None]
    tokens, cost = sum(each.tokens for each in known), sum(each.cost_nanos for each in known)
    return f"{len(known):,} calls, {tokens:,} tokens, {cost:,} nano-units"


@dataclass(frozen=True, slots=True)
class Use:
    """How much of what bound them could be used: by the payer who got least of it."""

    least: float
    exhausted: Mapping[str, int]


async def measure_use(
    connection: "asyncpg.Connection[asyncpg.Record]", world: Sequence[Tenant]
) -> Use:
    """Find how far the fullest quota is used that binds each payer; tell the least of those."""
    rows = await connection.fetch(USED)
    shares = {(row["scope"], row["subject_id"]): float(row["share"]) for row in rows}
    fullest = [
        max(shares.get((scope, subject_of(payer, scope)), 0.0) for scope in SCOPES)
        for tenant in world
        for payer in tenant.payers
    ]
    full = Counter(scope for (scope, _), share in shares.items() if share >= USABLE)
    return Use(min(fullest, default=0.0), {scope: full[scope] for scope in SCOPES})
