"""Buckets in Redis, by its clock and in the round trip that is made anyway; without it, in here.

A script of somebody else's begins with `TAKE` and calls `take`; it names the buckets as this module
does, and what it answers is for `read`. What the buckets hold is neither written to the file of
Redis nor sent to its replicas: that would cost every request a sync of the disk, and be worthless
a minute later. So a Redis that was restarted begins with full buckets.
"""

import contextlib
import hashlib
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple, get_args
from uuid import UUID

from maas.shared.domain.call import current_call, find_call
from maas.shared.domain.rate_limit import (
    HOUR,
    MICROSECONDS,
    MINUTE,
    Level,
    Rate,
    RateLimitedError,
    RouteClass,
    Standing,
    StrangerClass,
    has_room,
    level_of,
    refill,
)
from maas.shared.infrastructure.rate_limit_settings import RateLimitSettings
from maas.shared.infrastructure.redis import KEY_PREFIX, RedisGate, RedisUnavailableError, Script

PREFIX: Final = f"{KEY_PREFIX}limit:"
ON_ACCOUNTS: Final = f"{PREFIX}account:"
ON_KEYS: Final = f"{PREFIX}key:"
TOLD_EVERY_SECONDS: Final = 60
MAX_LOCAL: Final = 10_000
IPV6_SITE_BITS: Final = 64

# `take(buckets, now, cost)`: a bucket is {key, interval, span}, times in microseconds. It takes
# `cost` (1, or 0 to look) from all of them, or from none if one is empty. It answers what `read`
# reads: whether a refusal is to be told of, then for each bucket what is left and how long until
# there is more; or nothing, where the server takes no writes. A bucket outlives its refilling by a
# minute: when a key dies, the server writes that down and syncs.
TAKE: Final = """
local function take(buckets, now, cost)
  redis.set_repl(redis.REPL_NONE)
  local full_at, refused = {}, nil
  for i, bucket in ipairs(buckets) do
    local at = tonumber(redis.call('GET', bucket[1]) or now)
    if at < now then at = now elseif at > now + bucket[3] then at = now + bucket[3] end
    full_at[i] = at
    if not refused and at + bucket[2] > now + bucket[3] then refused = bucket[1] end
  end
  local answer = {0}
  if refused then
    local told = redis.pcall('SET', refused .. ':told', '1', 'NX', 'PX', 60000)
    if told and told.ok then answer[1] = 1 end
  end
  for i, bucket in ipairs(buckets) do
    local at, left = full_at[i], -1
    if at + bucket[2] <= now + bucket[3] then
      if not refused and cost > 0 then
        at = at + bucket[2]
        local lives = 60000 + math.ceil((at - now) / 1000)
        local done = redis.pcall('SET', bucket[1], string.format('%.0f', at), 'PX', lives)
        if done.err then
          redis.set_repl(redis.REPL_ALL)
          return nil
        end
      end
      left = math.floor((now + bucket[3] - at) / bucket[2])
    end
    local wait = 0
    if left <= 0 then wait = at + bucket[2] - bucket[3] - now end
    answer[2 * i], answer[2 * i + 1] = left, wait
  end
  redis.set_repl(redis.REPL_ALL)
  return answer
end
local function microseconds()
  local now = redis.call('TIME')
  return now[1] * 1000000 + now[2]
end
"""

TAKE_ONE_OF_EACH: Final = Script(
    TAKE
    + """
local buckets = {}
for i, key in ipairs(KEYS) do
  buckets[i] = {key, tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])}
end
return take(buckets, microseconds(), 1) or {}
"""
)

# What is past its moment is full, and full buckets are not kept.
GIVE_BACK: Final = Script("""
redis.set_repl(redis.REPL_NONE)
for i, key in ipairs(KEYS) do
  local at = redis.call('GET', key)
  if at then
    redis.pcall('SET', key, string.format('%.0f', at - ARGV[i]), 'KEEPTTL')
  end
end
return 0
""")


class Bucket(NamedTuple):
    """Where requests of one subject are counted, and at which rate they are let through."""

    key: str
    rate: Rate


def site_of(address: str | None) -> str:
    """Tell what counts as one address: an IPv4 one itself, an IPv6 one's /64."""
    if address is None:
        return "none"
    return _site_of(address)


@lru_cache(maxsize=4096)
def _hidden(address: str | None) -> str:
    """Name what counts as one address without saying it: nobody erases a person's from here."""
    return hashlib.blake2s(site_of(address).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def _site_of(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:  # noqa: PLR2004  IPv4
        return str(parsed)
    return str(ipaddress.ip_network((parsed, IPV6_SITE_BITS), strict=False))


@lru_cache(maxsize=1024)
def _rate_of_key(per_minute: int) -> Rate:
    return Rate("key", per_minute, MINUTE)


@lru_cache(maxsize=1024)
def _share(rate: Rate, processes: int) -> Rate:
    return rate.shared_by(processes)


def arguments_of(*buckets: Bucket) -> list[str | int]:
    """Spell the rates of buckets as scripts take them."""
    return [
        figure for bucket in buckets for figure in (bucket.rate.interval_us, bucket.rate.span_us)
    ]


def read_standing(buckets: Sequence[Bucket], answer: Sequence[int]) -> Standing:
    """Read what `take` answered, which `answer` holds nothing beside."""
    levels = [
        Level(bucket.rate, answer[2 * index + 1], answer[2 * index + 2])
        for index, bucket in enumerate(buckets)
    ]
    return Standing(levels, answer[0] == 1, [bucket.key for bucket in buckets])


class LocalBuckets:
    """The buckets of one process, as many as fit; what is let go of begins anew, and full."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, buckets: Sequence[Bucket], *, cost: int = 1) -> Standing:
        """Do what the script of the same name does."""
        now = int(self._clock() * MICROSECONDS)
        held = [refill(self._full_at.get(key, now), now, rate) for key, rate in buckets]
        refused = [
            bucket.key
            for bucket, full_at in zip(buckets, held, strict=True)
            if not has_room(full_at, now, bucket.rate)
        ]
        levels = []
        for (key, rate), full_at in zip(buckets, held, strict=True):
            if key in refused:
                levels.append(Level(rate, -1, level_of(full_at, now, rate)[1]))
                continue
            after = full_at if refused else full_at + rate.interval_us * cost
            if after > now:
                self._keep(key, after, now)
            levels.append(Level(rate, *level_of(after, now, rate)))
        is_news = bool(refused) and self._is_news(refused[0], now)
        return Standing(levels, is_news, [bucket.key for bucket in buckets], is_local=True)

    def give_back(self, standing: Standing) -> None:
        for key, level in zip(standing.buckets, standing.levels, strict=True):
            if key in self._full_at:
                self._full_at[key] -= level.rate.interval_us

    def _is_news(self, key: str, now: int) -> bool:
        mark = f"{key}:told"
        if self._full_at.get(mark, now) > now:
            return False
        self._keep(mark, now + TOLD_EVERY_SECONDS * MICROSECONDS, now)
        return True

    def _keep(self, key: str, full_at: int, now: int) -> None:
        if key not in self._full_at and len(self._full_at) >= MAX_LOCAL:
            self._make_room(now)
        # Put at the end: what is in use is not the oldest.
        self._full_at.pop(key, None)
        self._full_at[key] = full_at

    def _make_room(self, now: int) -> None:
        """Let go of what is full again, and of a quarter at least, the oldest first."""
        live = [(key, full_at) for key, full_at in self._full_at.items() if full_at > now]
        self._full_at = dict(live[-MAX_LOCAL * 3 // 4 :])


def _tell_nobody(_: str) -> None:
    """Count for nobody."""


class RateLimits:
    """Counts requests, for the edge (the `RateLimiter` port) and for who checks credentials."""

    def __init__(
        self, settings: RateLimitSettings, *, redis: RedisGate, processes: int = 1
    ) -> None:
        """`processes` share the limits where they cannot count together."""
        self._redis = redis
        self._processes = processes
        self._local = LocalBuckets()
        self.apply(settings)
        self.on_refused: Callable[[str], None] = _tell_nobody

    def apply(self, settings: RateLimitSettings) -> None:
        """Limit by these figures from the next request on; what was counted is kept."""
        self._strangers: dict[StrangerClass, Rate] = {
            name: Rate(name, settings.unauthenticated_per_minute, MINUTE)
            for name in get_args(StrangerClass)
        }
        self._registration = Rate("registration", settings.registrations_per_hour, HOUR)
        self._classes: dict[RouteClass, Rate] = {
            name: Rate(name, quota, MINUTE) for name, quota in settings.by_class.items()
        }

    def buckets_of_account(self, holder: UUID) -> list[Bucket]:
        """Name where the call counts of a person or a service account: one bucket, or none."""
        call = find_call()
        route_class = None if call is None else call.route_class
        if route_class is None:
            return []
        return [Bucket(f"{ON_ACCOUNTS}{holder.hex}:{route_class}", self._classes[route_class])]

    def note(self, buckets: Sequence[Bucket], answer: Sequence[int]) -> None:
        """Note in the call what a script's `take` answered of these buckets, if there are any."""
        if buckets:
            current_call().standing = self._read(buckets, answer)

    def note_here(self, buckets: Sequence[Bucket]) -> None:
        """Count the call in this process, and note what came of it.

        Raises:
            RateLimitedError: no room was left, so PostgreSQL need not be asked whose call it is.
        """
        if buckets:
            standing = current_call().standing = self.take_here(buckets)
            if standing.is_exceeded:
                raise RateLimitedError(standing)

    async def count(self, buckets: Sequence[Bucket]) -> None:
        """Count the call in a round trip of its own, and note what came of it."""
        if buckets:
            current_call().standing = await self.take(buckets)

    def key_check(
        self, public_id: str, *, is_guess: bool = True
    ) -> tuple[list[str], list[str | int]]:
        """Name what the check of a key has to know beside its entry, if the call is limited.

        A guess counts on its address until it turns out to be right.
        """
        call = find_call()
        if call is None or call.route_class is None:
            return [], []
        guesses, rate = self._of_address(call.address, "bad-key"), self._classes[call.route_class]
        keys = [guesses.key, f"{ON_KEYS}{public_id}"]
        of_holder = [call.route_class, rate.interval_us, rate.span_us]
        return keys, [*arguments_of(guesses), *of_holder, int(is_guess)]

    def buckets_of_key(
        self, holder: UUID, public_id: str, *, per_minute: int | None
    ) -> list[Bucket]:
        """Name where a call by a key counts: on its holder, and on the key if it has a rate."""
        buckets = self.buckets_of_account(holder)
        if buckets and per_minute is not None:
            buckets.append(Bucket(f"{ON_KEYS}{public_id}", _rate_of_key(per_minute)))
        return buckets

    def count_guess(self, answer: Sequence[int]) -> None:
        """Count a key of which nothing is known on its address; `forgive_guess` undoes it.

        `answer` is what the script of the check counted; without one, this process counts.

        Raises:
            RateLimitedError: before PostgreSQL is asked.
        """
        call = find_call()
        if call is None or call.route_class is None:
            return
        standing = self._read([self._of_address(call.address, "bad-key")], answer)
        call.standing = replace(standing, is_of_address=True)
        if standing.is_exceeded:
            raise RateLimitedError(standing)

    async def forgive_guess(self) -> None:
        """Give back what the call was counted for as a guess, if it was."""
        call = find_call()
        if call is not None and call.standing is not None and call.standing.is_of_address:
            await self.give_back(call.standing)
            call.standing = None

    def _of_address(self, address: str | None, stranger: StrangerClass) -> Bucket:
        return Bucket(f"{PREFIX}{stranger}:{_hidden(address)}", self._strangers[stranger])

    def _read(self, buckets: Sequence[Bucket], answer: Sequence[int]) -> Standing:
        # Where the server takes no writes, its script counts nothing.
        return read_standing(buckets, answer) if answer else self.take_here(buckets)

    async def take(self, buckets: Sequence[Bucket]) -> Standing:
        """Count a request, in a round trip of its own."""
        try:
            answer = await self._redis.evaluate(
                TAKE_ONE_OF_EACH,
                keys=[bucket.key for bucket in buckets],
                args=arguments_of(*buckets),
            )
        except RedisUnavailableError:
            return self.take_here(buckets)
        return self._read(buckets, answer)

    def take_here(self, buckets: Sequence[Bucket]) -> Standing:
        """Count in this process alone, for its part of the limits."""
        own = [Bucket(key, _share(rate, self._processes)) for key, rate in buckets]
        return self._local.take(own)

    async def take_of_address(
        self,
        address: str | None,
        *,
        stranger: StrangerClass = "address",
        is_registration: bool = False,
    ) -> Standing:
        buckets = [self._of_address(address, stranger)]
        if is_registration:
            key = f"{PREFIX}registration:{_hidden(address)}"
            buckets.append(Bucket(key, self._registration))
        return replace(await self.take(buckets), is_of_address=True)

    async def give_back(self, standing: Standing) -> None:
        """Undo the counting of a request that should not have been counted there."""
        if standing.is_exceeded:
            return
        if standing.is_local:
            self._local.give_back(standing)
            return
        # A server that is gone has lost what it counted.
        with contextlib.suppress(RedisUnavailableError):
            await self._redis.evaluate(
                GIVE_BACK,
                keys=list(standing.buckets),
                args=[level.rate.interval_us for level in standing.levels],
            )

    def tell_refusal(self, standing: Standing) -> None:
        for rate in standing.exceeded:
            self.on_refused(rate.name)
