"""Counters of failed sign-ins: in Redis, by one script each way; in PostgreSQL while it is down.

A guess is counted as under way before the password is compared, so that a thousand at once are
held as a thousand in a row would be. Names and addresses are hashed into the keys.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Literal, TypeAlias

import asyncpg
from typing_extensions import override

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import KEY_PREFIX, RedisGate, RedisUnavailableError, Script
from maas.user.application.throttle import (
    AttemptOutcome,
    LoginAttempt,
    LoginThrottle,
    TooManyLoginsError,
)
from maas.user.domain.throttle import (
    BURST,
    FREE_FAILURES,
    LEASE,
    MEMORY,
    AttemptCounter,
    WaitPolicy,
)

THROTTLE_PREFIX: Final = f"{KEY_PREFIX}throttle:"
ADDRESS_BURST: Final = 50
"""People behind one address may sign in for the first time together."""

BUSY_LIMIT_SECONDS: Final = 2.0
BUSY_POLL_SECONDS: Final = 0.05
IPV6_SITE_BITS: Final = 64

Verdict: TypeAlias = Literal["admitted", "decoy", "wait", "busy"]

# KEYS: the counters; with ARGV[1] = 1 the last one is hidden, and held it makes a decoy.
# ARGV: has_hidden, lease ms, memory ms, free failures, then the burst of each counter.
ADMIT: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local free, wait, is_full, is_decoy = tonumber(ARGV[4]), 0, false, false
local pending = {}
for i, key in ipairs(KEYS) do
  local fields = redis.call('HMGET', key, 'failures', 'until', 'pending', 'lease')
  local failures, left = tonumber(fields[1] or 0), (tonumber(fields[2] or 0)) - now
  pending[i] = tonumber(fields[3] or 0)
  if tonumber(fields[4] or 0) <= now then pending[i] = 0 end
  local room = 1
  if failures < free then room = tonumber(ARGV[4 + i]) - failures end
  if ARGV[1] == '1' and i == #KEYS then
    is_decoy = left > 0 or pending[i] >= room
  else
    if left > wait then wait = left end
    if pending[i] >= room then is_full = true end
  end
end
if wait > 0 then return {'wait', wait} end
if is_full then return {'busy', 0} end
for i, key in ipairs(KEYS) do
  if not (is_decoy and i == #KEYS) then
    redis.call('HSET', key, 'pending', pending[i] + 1, 'lease', now + tonumber(ARGV[2]))
    redis.call('PEXPIRE', key, ARGV[3])
  end
end
if is_decoy then return {'decoy', 0} end
return {'admitted', 0}
""")

# ARGV: outcome, is_known, free failures, first wait ms, longest wait ms.
SETTLE: Final = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(KEYS) do
  local fields = redis.call('HMGET', key, 'failures', 'until', 'pending')
  local failures, held = tonumber(fields[1] or 0), tonumber(fields[2] or 0)
  redis.call('HSET', key, 'pending', math.max(tonumber(fields[3] or 0) - 1, 0))
  if ARGV[1] == 'failed' then
    failures = failures + 1
    local doublings = math.min(failures - tonumber(ARGV[3]), 40)
    if doublings >= 0 then
      held = math.max(held, now + math.min(tonumber(ARGV[4]) * 2 ^ doublings, tonumber(ARGV[5])))
    end
    redis.call('HSET', key, 'failures', failures, 'until', string.format('%.0f', held))
  elseif ARGV[1] == 'right' and ARGV[2] == '1' then
    redis.call('HSET', key, 'failures', 0, 'until', 0)
  end
end
return 1
""")

_ADD: Final = """
INSERT INTO login_throttles
    (key, failures, pending, pending_until, blocked_until, touched_at)
SELECT key, 0, 0, $2, $2, $2 FROM unnest($1::text[]) AS key ORDER BY key
ON CONFLICT DO NOTHING
"""
_LOCK: Final = "SELECT * FROM login_throttles WHERE key = ANY($1::text[]) ORDER BY key FOR UPDATE"
_SAVE: Final = """
UPDATE login_throttles SET failures = $2, pending = $3, pending_until = $4, blocked_until = $5,
    touched_at = $6
WHERE key = $1
"""


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
    return f"{THROTTLE_PREFIX}{kind}:{digest}"


class GuardedLoginThrottle:
    """The `LoginThrottle` port."""

    def __init__(
        self, redis: RedisGate, database: Database, *, policy: WaitPolicy, clock: Clock
    ) -> None:
        self._redis = redis
        self._postgres = _PostgresCounters(database, policy=policy, clock=clock)
        self._policy = policy

    async def admit(
        self, *, login: str, address: str | None, account_id: AccountId | None, is_known: bool
    ) -> LoginAttempt:
        site = site_of(address) or "none"
        if is_known and account_id is not None:
            keys, bursts = [_key("pair", f"{account_id}@{site}")], [BURST]
        else:
            keys, bursts = [_key("login", login.lower()), _key("address", site)], [BURST]
            bursts.append(ADDRESS_BURST)
            if account_id is not None:
                keys.append(_key("account", str(account_id)))
                bursts.append(BURST)
        has_hidden = len(keys) == 3  # noqa: PLR2004  the account's own comes last
        give_up = time.monotonic() + BUSY_LIMIT_SECONDS
        while True:
            store, verdict, wait = await self._ask(keys, bursts, has_hidden=has_hidden)
            if verdict != "busy" or time.monotonic() > give_up:
                break
            # Others are at it this moment; theirs may well be the right password.
            await asyncio.sleep(BUSY_POLL_SECONDS)
        if verdict in {"wait", "busy"}:
            raise TooManyLoginsError(
                "Wait as long as Retry-After says, then try again.",
                retry_after=wait or timedelta(seconds=1),
            )
        is_decoy = verdict == "decoy"
        return LoginAttempt(
            store=store,
            keys=tuple(keys[:-1] if is_decoy else keys),
            is_known=is_known,
            is_decoy=is_decoy,
        )

    async def _ask(
        self, keys: list[str], bursts: list[int], *, has_hidden: bool
    ) -> tuple[Literal["redis", "postgres"], Verdict, timedelta]:
        lease, memory = (round(span / timedelta(milliseconds=1)) for span in (LEASE, MEMORY))
        head: list[str | int] = [int(has_hidden), lease, memory, FREE_FAILURES]
        try:
            verdict, wait_ms = await self._redis.evaluate(ADMIT, keys=keys, args=[*head, *bursts])
        except RedisUnavailableError:
            return "postgres", *await self._postgres.admit(keys, bursts, has_hidden=has_hidden)
        return "redis", verdict.decode(), timedelta(milliseconds=wait_ms)

    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None:
        if attempt.store == "postgres":
            await self._postgres.settle(attempt, outcome)
            return
        first, longest = self._policy.first, self._policy.longest
        args: list[str | int] = [
            outcome,
            int(attempt.is_known),
            FREE_FAILURES,
            round(first / timedelta(milliseconds=1)),
            round(longest / timedelta(milliseconds=1)),
        ]
        # Redis died between the two: the guess stays under way until its lease runs out.
        with contextlib.suppress(RedisUnavailableError):
            await self._redis.evaluate(SETTLE, keys=list(attempt.keys), args=args)


class OpenLoginThrottle(LoginThrottle):
    """Holds nobody: for chaos and load runs, whose clients fail to sign in on purpose."""

    @override
    async def admit(
        self, *, login: str, address: str | None, account_id: AccountId | None, is_known: bool
    ) -> LoginAttempt:
        return LoginAttempt(store="none", keys=(), is_known=is_known, is_decoy=False)

    @override
    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None:
        """Count nothing."""


class _PostgresCounters:
    """The same counters in a table, for as long as Redis does not answer."""

    def __init__(self, database: Database, *, policy: WaitPolicy, clock: Clock) -> None:
        self._database = database
        self._policy = policy
        self._clock = clock

    async def admit(
        self, keys: Sequence[str], bursts: Sequence[int], *, has_hidden: bool
    ) -> tuple[Verdict, timedelta]:
        async with self._locked(keys) as counters:
            now = self._clock.now()
            open_keys = keys[:-1] if has_hidden else keys
            wait = max(counters[key].wait(now) for key in open_keys)
            if wait:
                return "wait", wait
            rooms = {
                key: counters[key].has_room(burst) and not counters[key].wait(now)
                for key, burst in zip(keys, bursts, strict=True)
            }
            if not all(rooms[key] for key in open_keys):
                return "busy", timedelta()
            is_decoy = not all(rooms.values())
            for key in open_keys if is_decoy else keys:
                counters[key].begin(now)
        return ("decoy" if is_decoy else "admitted"), timedelta()

    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None:
        async with self._locked(attempt.keys) as counters:
            now = self._clock.now()
            for counter in counters.values():
                if outcome == "failed":
                    counter.fail(now, self._policy)
                elif outcome == "right" and attempt.is_known:
                    counter.forgive(now)
                else:
                    counter.release()

    @asynccontextmanager
    async def _locked(self, keys: Sequence[str]) -> AsyncIterator[dict[str, AttemptCounter]]:
        """Lock the counters, in one order everywhere, and save them at the end of the block."""
        now = self._clock.now()
        async with self._database.acquire() as connection, connection.transaction():
            await connection.execute(_ADD, list(keys), now)
            rows = await connection.fetch(_LOCK, list(keys))
            counters = {row["key"]: _read(row) for row in rows}
            for row in rows:
                counter = counters[row["key"]]
                counter.lapse(now)
                if row["touched_at"] < now - MEMORY:
                    counter.failures = 0
            yield counters
            saved = [
                (key, c.failures, c.pending, c.pending_until, c.blocked_until, now)
                for key, c in counters.items()
            ]
            await connection.executemany(_SAVE, saved)


def _read(row: asyncpg.Record) -> AttemptCounter:
    return AttemptCounter(
        failures=row["failures"],
        pending=row["pending"],
        pending_until=row["pending_until"],
        blocked_until=row["blocked_until"],
    )
