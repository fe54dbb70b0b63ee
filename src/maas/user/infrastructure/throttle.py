"""Counters of failed sign-ins, in PostgreSQL: one store, so that no outage gives a second count.

A guess is counted as under way before the password is compared, so that a thousand at once are
held as a thousand in a row would be. Names and addresses are hashed into the keys.
"""

import asyncio
import hashlib
import ipaddress
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

import asyncpg
from typing_extensions import override

from maas.shared.domain.ids import AccountId
from maas.shared.infrastructure.database import Database
from maas.user.application.throttle import (
    AttemptOutcome,
    LoginAttempt,
    LoginThrottle,
    TooManyLoginsError,
)
from maas.user.domain.throttle import BURST, MEMORY, AttemptCounter, WaitPolicy

ADDRESS_BURST: Final = 50
"""People behind one address may sign in for the first time together."""

BUSY_LIMIT_SECONDS: Final = 2.0
BUSY_POLL_SECONDS: Final = 0.05
LONGEST_POLL_SECONDS: Final = 0.4
CONNECTIONS: Final = 3
"""Of the pool of hot reads: a flood of guesses must leave room for everybody else's requests."""

IPV6_SITE_BITS: Final = 64
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Verdict: TypeAlias = Literal["admitted", "decoy", "wait", "busy"]

_READ: Final = """
SELECT *, clock_timestamp() AS at FROM login_throttles WHERE key = ANY($1::text[])
"""
# Sorted, so that two guesses lock what they share in the same order. The update changes nothing:
# it locks the row and returns it as it was, with the clock that all processes share.
_LOCK: Final = """
INSERT INTO login_throttles AS mine
    (key, failures, pending, pending_until, blocked_until, touched_at)
SELECT key, 0, 0, clock_timestamp(), clock_timestamp(), clock_timestamp()
FROM unnest($1::text[]) AS key ORDER BY key
ON CONFLICT (key) DO UPDATE SET key = mine.key
RETURNING mine.*, clock_timestamp() AS at
"""
_SAVE: Final = """
UPDATE login_throttles AS mine SET failures = new.failures, pending = new.pending,
    pending_until = new.pending_until, blocked_until = new.blocked_until, touched_at = $6
FROM unnest($1::text[], $2::int[], $3::int[], $4::timestamptz[], $5::timestamptz[])
    AS new (key, failures, pending, pending_until, blocked_until)
WHERE mine.key = new.key
"""
# A crash of the server may forget the guesses of its last 0.2 s; waiting for its disk at each
# would cost more than that tells.
_BEGIN: Final = "BEGIN; SET LOCAL synchronous_commit = off"


def site_of(address: str | None) -> str | None:
    """Tell what counts as one address: an IPv4 one itself, an IPv6 one's /64."""
    if address is None:
        return None
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:  # noqa: PLR2004  IPv4
        return f"{parsed}/32"
    return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))


def _key(kind: str, value: str) -> str:
    digest = hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()[:32]
    return f"{kind}:{digest}"


class GuardedLoginThrottle:
    """The `LoginThrottle` port."""

    def __init__(self, database: Database, *, policy: WaitPolicy) -> None:
        self._database = database
        self._policy = policy
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def admit(
        self, *, login: str, address: str | None, account_id: AccountId | None, is_known: bool
    ) -> LoginAttempt:
        site = site_of(address) or "none"
        hidden = None
        if is_known and account_id is not None:
            bursts = {_key("pair", f"{account_id}@{site}"): BURST}
        else:
            bursts = {_key("login", login.lower()): BURST, _key("address", site): ADDRESS_BURST}
            if account_id is not None:
                hidden = _key("account", str(account_id))
        give_up, pause = time.monotonic() + BUSY_LIMIT_SECONDS, BUSY_POLL_SECONDS
        while True:
            verdict, wait = await self._ask(bursts, hidden)
            if verdict != "busy" or time.monotonic() > give_up:
                break
            # Others are at it this moment; theirs may well be the right password.
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_POLL_SECONDS)
        if verdict in {"wait", "busy"}:
            raise TooManyLoginsError(
                "Wait as long as Retry-After says, then try again.",
                retry_after=wait or timedelta(seconds=1),
            )
        keys = bursts if hidden is None or verdict == "decoy" else [*bursts, hidden]
        return LoginAttempt(keys=tuple(keys), is_known=is_known, is_decoy=verdict == "decoy")

    async def _ask(self, bursts: dict[str, int], hidden: str | None) -> tuple[Verdict, timedelta]:
        """Begin a guess on all the counters, if those that may tell have room for one more.

        `hidden` is the counter that must not tell: held, it makes a decoy of the guess.
        """
        keys = [*bursts] if hidden is None else [*bursts, hidden]
        async with self._turns:
            # A flood consists of what is refused: it is refused without a lock or a write.
            async with self._database.acquire() as connection:
                counters, now = _read(await connection.fetch(_READ, keys))
            verdict, wait = _judge(counters, bursts, hidden, now)
            if verdict in {"wait", "busy"}:
                return verdict, wait
            async with self._locked(keys) as (counters, now):
                verdict, wait = _judge(counters, bursts, hidden, now)
                if verdict in {"admitted", "decoy"}:
                    for key in keys if verdict == "admitted" else bursts:
                        counters[key].begin(now)
        return verdict, wait

    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None:
        async with self._turns, self._locked(attempt.keys) as (counters, now):
            for counter in counters.values():
                if outcome == "failed":
                    counter.fail(now, self._policy)
                elif outcome == "right" and attempt.is_known:
                    counter.forgive(now)
                else:
                    counter.release()

    @asynccontextmanager
    async def _locked(
        self, keys: Sequence[str]
    ) -> AsyncIterator[tuple[dict[str, AttemptCounter], datetime]]:
        """Lock the counters, in one order everywhere, and save what the block made of them."""
        async with self._database.acquire() as connection:
            await connection.execute(_BEGIN)
            try:
                counters, now = _read(await connection.fetch(_LOCK, keys))
                yield counters, now
                saved = counters.values()
                await connection.execute(
                    _SAVE,
                    list(counters),
                    [counter.failures for counter in saved],
                    [counter.pending for counter in saved],
                    [counter.pending_until for counter in saved],
                    [counter.blocked_until for counter in saved],
                    now,
                )
                await connection.execute("COMMIT")
            except BaseException:
                if not connection.is_closed():
                    await connection.execute("ROLLBACK")
                raise


class OpenLoginThrottle(LoginThrottle):
    """Holds nobody: for chaos and load runs, whose clients fail to sign in on purpose."""

    @override
    async def admit(
        self, *, login: str, address: str | None, account_id: AccountId | None, is_known: bool
    ) -> LoginAttempt:
        return LoginAttempt(keys=(), is_known=is_known, is_decoy=False)

    @override
    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None:
        """Count nothing."""


def _read(rows: Sequence[asyncpg.Record]) -> tuple[dict[str, AttemptCounter], datetime]:
    """Make counters of rows, and tell PostgreSQL's time: the one clock all processes share."""
    now = max((row["at"] for row in rows), default=EPOCH)
    counters = {}
    for row in rows:
        counter = AttemptCounter(
            failures=0 if row["touched_at"] < now - MEMORY else row["failures"],
            pending=row["pending"],
            pending_until=row["pending_until"],
            blocked_until=row["blocked_until"],
        )
        counter.lapse(now)
        counters[row["key"]] = counter
    return counters, now


def _judge(
    counters: Mapping[str, AttemptCounter],
    bursts: Mapping[str, int],
    hidden: str | None,
    now: datetime,
) -> tuple[Verdict, timedelta]:
    """Tell what becomes of one more guess; a counter without a row has seen none."""
    known = {key: counters[key] for key in bursts if key in counters}
    wait = max((counter.wait(now) for counter in known.values()), default=timedelta())
    if wait:
        return "wait", wait
    if not all(counter.has_room(bursts[key]) for key, counter in known.items()):
        return "busy", timedelta()
    secret = counters.get(hidden) if hidden is not None else None
    if secret is not None and (secret.wait(now) or not secret.has_room(BURST)):
        return "decoy", timedelta()
    return "admitted", timedelta()
