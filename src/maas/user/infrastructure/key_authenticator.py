"""The check of API keys: the checksum first, then one Redis round trip, else PostgreSQL.

As for sessions (see there), Redis holds what PostgreSQL said for at most five seconds: what the key
may do, and the hashes to compare with. An entry dies with the key or with the grace of its last
rotation, if that is sooner, by the clock of the server that keeps it. What changes is marked stale
after its commit, so the next request reads anew.
"""

import asyncio
import contextlib
import hmac
import json
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

import asyncpg

from maas.shared.application.ports import Authenticator, InvalidApiKeyError
from maas.shared.domain.call import find_call
from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.shared.domain.principal import KeyLimits, Principal, meet
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.rate_limits import ON_ACCOUNTS, TAKE, RateLimits
from maas.shared.infrastructure.redis import RedisGate, RedisUnavailableError, Script
from maas.user.domain.key_text import KEY_PREFIX, PresentedKey, read_key
from maas.user.infrastructure.good_keys import GoodLately
from maas.user.infrastructure.key_uses import KeyUses
from maas.user.infrastructure.sessions import (
    FALLBACK_READS_AT_ONCE,
    FILL,
    MAX_PARSED,
    SETTLING_SECONDS,
    VALID_ENTRY_LIFETIME,
    key_entry,
)
from maas.user.public import SELF_PERMISSIONS

# One row in any case, which tells whether anybody has the id at all.
KEY_QUERY: Final = (
    "SELECT p.*, p.id IS NOT NULL OR api_key_is_known($1) AS is_known"
    " FROM (VALUES (1)) always LEFT JOIN api_key_principal($1) p ON true"
)
FIRST_USE: Final = "SELECT api_key_first_use($1, $2) AS is_current"
NOBODYS: Final = "n|0|"
"""What stands for an id that no key has; a new key's commit replaces it."""

# An entry is `v|<version>|<rate>|<holder>|<hash>|<previous hash>|<the rest>`. As for sessions, a
# miss brings the time. Nobody who does not know the secret uses up what the holder and the key have
# left: a miss counts on the address until the key turns out to be good, a hit counts only if the
# hash is right. Nor does who knows it where the key may not be: one that is bound to networks has
# an entry `b|...`, of which nothing is counted here.
# KEYS: the entry; if calls are limited, the bucket of bad keys and of the key. ARGV: the hash,
# interval and span of bad keys, the class of routes, interval and span of the holder, and 1 unless
# the key was good lately.
CHECK: Final = Script(
    TAKE
    + f"local accounts = '{ON_ACCOUNTS}'"
    + """
local entry = redis.call('GET', KEYS[1])
local now, answer = microseconds(), {}
if not entry or string.sub(entry, 1, 1) == 's' then
  if KEYS[2] and ARGV[7] == '1' then
    answer = take({{KEYS[2], tonumber(ARGV[2]), tonumber(ARGV[3])}}, now, 1) or {}
  end
  table.insert(answer, 1, math.floor(now / 1000))
  return answer
end
if KEYS[2] then
  local rate, holder, secret, previous =
    string.match(entry, '^v|%d+|(%d+)|(%x+)|(%x+)|(%x*)|')
  if secret and (ARGV[1] == secret or ARGV[1] == previous) then
    local bucket = accounts .. holder .. ':' .. ARGV[4]
    local buckets = {{bucket, tonumber(ARGV[5]), tonumber(ARGV[6])}}
    if rate ~= '0' then
      local interval = math.ceil(60000000 / rate)
      buckets[2] = {KEYS[3], interval, interval * rate}
    end
    answer = take(buckets, now, 1) or {}
  end
end
table.insert(answer, 1, entry)
return answer
"""
)


LIFETIME_MS: Final = round(VALID_ENTRY_LIFETIME / timedelta(milliseconds=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """What a key that is good so far may do, and what a presented one must hash to."""

    principal: Principal
    secret_hash: bytes
    is_secret_used: bool
    previous_hash: bytes | None

    def is_current(self, key: PresentedKey) -> bool:
        return hmac.compare_digest(self.secret_hash, key.secret_hash)

    def is_previous(self, key: PresentedKey) -> bool:
        return self.previous_hash is not None and hmac.compare_digest(
            self.previous_hash, key.secret_hash
        )


class KeyAuthenticator:
    """Checks API keys (the `Authenticator` port)."""

    def __init__(
        self,
        *,
        redis: RedisGate,
        database: Database,
        uses: KeyUses,
        limits: RateLimits | None = None,
    ) -> None:
        self._limits = limits
        self._redis = redis
        self._database = database
        self._uses = uses
        self._bulkhead = asyncio.Semaphore(FALLBACK_READS_AT_ONCE)
        self._parsed: dict[bytes, KnownKey] = {}
        self._good_lately = GoodLately()

    async def authenticate(self, credential: str) -> Principal:
        key = read_key(credential)
        if key is None:
            raise InvalidApiKeyError
        try:
            known, counted = await self._look_up(key)
        except InvalidApiKeyError:
            self._good_lately.forget(key.secret_hash)
            raise
        is_current = known.is_current(key)
        if not (is_current or known.is_previous(key)):
            self._good_lately.forget(key.secret_hash)
            raise InvalidApiKeyError
        principal = known.principal
        # What is not let in here is no use, and nothing its holder is counted for.
        if not _is_elsewhere(principal):
            self._good_lately.note(key.secret_hash)
            self._uses.note(principal.api_key_id)
            if self._limits is not None:
                await self._count(self._limits, known, key, counted)
        return principal if is_current else replace(principal, is_superseded=True)

    async def _look_up(self, key: PresentedKey) -> tuple[KnownKey, Sequence[int]]:
        """Find what is known of a key, and how the call was counted, if it was.

        Raises:
            InvalidApiKeyError: there is none of this id.
            RateLimitedError: its address has shown too many bad ones.
        """
        entry, limits = key_entry(key.public_id), self._limits
        is_guess = key.secret_hash not in self._good_lately
        keys: list[str] = []
        args: list[str | int] = []
        if limits is not None:
            keys, args = limits.key_check(key.public_id, is_guess=is_guess)
        args = [key.secret_hash.hex(), *args]
        try:
            found, *counted = await self._redis.evaluate(CHECK, keys=[entry, *keys], args=args)
        except RedisUnavailableError:
            self._count_guess((), is_guess=is_guess)
            return (await self._read(key))[0], ()
        if isinstance(found, int):
            self._count_guess(counted, is_guess=is_guess)
            return await self._read_and_fill(key, entry, asked_at_ms=found), ()
        if self._redis.server_age_seconds < SETTLING_SECONDS:
            return (await self._read(key))[0], counted
        if found == NOBODYS.encode():
            raise InvalidApiKeyError
        known = self._parse(found)
        if _is_first_use(known, key):
            known = (await self._read(key))[0]
        return known, counted

    def _count_guess(self, counted: Sequence[int], *, is_guess: bool) -> None:
        if self._limits is not None and is_guess:
            self._limits.count_guess(counted)

    async def _count(
        self, limits: RateLimits, known: KnownKey, key: PresentedKey, counted: Sequence[int]
    ) -> None:
        """Note how the call was counted, or count it where Redis had no entry to count by."""
        await limits.forgive_guess()
        principal = known.principal
        bound = principal.key_limits
        per_minute = None if bound is None else bound.requests_per_minute
        buckets = limits.buckets_of_key(principal.account_id, key.public_id, per_minute=per_minute)
        if len(counted) == 1 + 2 * len(buckets):
            limits.note(buckets, counted)
        else:
            await limits.count(buckets)

    async def _read(self, key: PresentedKey) -> tuple[KnownKey, int]:
        """Ask PostgreSQL, a few at a time; tell for how many ms at most its answer is good."""
        return await self._understand(await self._fetch(key), key)

    async def _fetch(self, key: PresentedKey) -> asyncpg.Record | None:
        async with self._bulkhead:
            return await self._database.fetchrow(KEY_QUERY, key.public_id)

    async def _understand(
        self, row: asyncpg.Record | None, key: PresentedKey
    ) -> tuple[KnownKey, int]:
        if row is None or row["id"] is None:
            raise InvalidApiKeyError
        known = _known(dict(row))
        if _is_first_use(known, key):
            await self._note_first_use(known, key)
            known = replace(known, is_secret_used=True)
        left: list[int] = [LIFETIME_MS, row["left_ms"]]
        if known.previous_hash is not None:
            left.append(row["previous_ms"])
        return known, min(left)

    async def _note_first_use(self, known: KnownKey, key: PresentedKey) -> None:
        """Have it known that the newest secret is out there: no rotation replaces it from now on.

        Raises:
            InvalidApiKeyError: it was replaced a moment ago.
        """
        found = await self._database.fetchrow(
            FIRST_USE, known.principal.api_key_id, key.secret_hash
        )
        if found is None or not found["is_current"]:
            raise InvalidApiKeyError

    async def _read_and_fill(self, key: PresentedKey, entry: str, *, asked_at_ms: int) -> KnownKey:
        row = await self._fetch(key)
        if row is None or not row["is_known"]:
            # Others are not kept: one that rests with its holder is good again when the holder is.
            await self._fill(entry, NOBODYS, version=0, dies_at_ms=asked_at_ms + LIFETIME_MS)
            raise InvalidApiKeyError
        known, good_for_ms = await self._understand(row, key)
        await self._fill(
            entry,
            _spell(known),
            version=known.principal.version,
            dies_at_ms=asked_at_ms + good_for_ms,
        )
        return known

    async def _fill(self, entry: str, content: str, *, version: int, dies_at_ms: int) -> None:
        # PostgreSQL has answered already; should Redis fail now, the next request fills the entry.
        with contextlib.suppress(RedisUnavailableError):
            args: list[str | int] = [content, version, dies_at_ms, int(content != NOBODYS)]
            await self._redis.evaluate(FILL, keys=[entry], args=args)

    def _parse(self, entry: bytes) -> KnownKey:
        """Read an entry; the same bytes always mean the same, so their reading is kept."""
        known = self._parsed.get(entry)
        if known is None:
            version, rate, holder, secret, previous, body = entry.decode().split("|", 6)[1:]
            fields = json.loads(body)
            fields |= {
                "version": int(version),
                "holder": holder,
                "requests_per_minute": int(rate) or None,
            }
            known = KnownKey(
                principal=_principal(fields),
                secret_hash=bytes.fromhex(secret),
                is_secret_used=fields["is_used"],
                previous_hash=bytes.fromhex(previous) or None,
            )
            if len(self._parsed) >= MAX_PARSED:
                self._parsed.clear()
            self._parsed[entry] = known
        return known


def _is_elsewhere(principal: Principal) -> bool:
    """Tell whether a key is presented from where it may not be: the edge refuses it, so no use."""
    limits, call = principal.key_limits, find_call()
    if limits is None or limits.networks is None or call is None:
        return False
    return not limits.allows_address(call.address)


def _is_first_use(known: KnownKey, key: PresentedKey) -> bool:
    is_unused = not known.is_secret_used and known.is_current(key)
    return is_unused and not _is_elsewhere(known.principal)


def _known(row: Mapping[str, Any]) -> KnownKey:
    is_service = row["account_id"] is None
    holder = row["service_account_id"] if is_service else row["account_id"]
    rights = row["permissions"] if is_service else [*row["permissions"], *SELF_PERMISSIONS]
    fields = {
        "kind": "service_account" if is_service else "account",
        "holder": holder.hex,
        "tenant": row["tenant_id"].hex,
        "username": row["username"],
        "permissions": sorted(meet(row["scopes"], rights)),
        "key": row["id"].hex,
        "networks": row["allowed_networks"],
        "models": row["allowed_models"],
        "requests_per_minute": row["requests_per_minute"],
        "version": row["auth_version"],
    }
    return KnownKey(
        principal=_principal(fields),
        secret_hash=row["secret_hash"],
        is_secret_used=row["is_secret_used"],
        previous_hash=row["previous_hash"],
    )


def _principal(fields: Mapping[str, Any]) -> Principal:
    networks, models = fields["networks"], fields["models"]
    limits = KeyLimits(
        networks=None if networks is None else tuple(map(ip_network, networks)),
        models=None if models is None else frozenset(models),
        requests_per_minute=fields["requests_per_minute"],
    )
    return Principal(
        kind=fields["kind"],
        account_id=AccountId(UUID(fields["holder"])),
        tenant_id=TenantId(UUID(fields["tenant"])),
        username=fields["username"],
        permissions=frozenset(fields["permissions"]),
        version=fields["version"],
        api_key_id=ApiKeyId(UUID(fields["key"])),
        key_limits=None if limits == KeyLimits() else limits,
    )


def _spell(known: KnownKey) -> str:
    principal, limits = known.principal, known.principal.key_limits or KeyLimits()
    networks, models = limits.networks, limits.models
    body = json.dumps(
        {
            "kind": principal.kind,
            "tenant": principal.tenant_id.hex,
            "username": principal.username,
            "permissions": sorted(principal.permissions),
            "key": principal.api_key_id.hex if principal.api_key_id else None,
            "networks": None if networks is None else [str(network) for network in networks],
            "models": None if models is None else sorted(models),
            "is_used": known.is_secret_used,
        },
        separators=(",", ":"),
    )
    head: list[object] = [
        "v" if networks is None else "b",
        principal.version,
        limits.requests_per_minute or 0,
        principal.account_id.hex,
        known.secret_hash.hex(),
        (known.previous_hash or b"").hex(),
    ]
    return "|".join([*map(str, head), body])


class CredentialAuthenticator:
    """Tells keys from session tokens by how they begin, and has each checked by its own."""

    def __init__(self, *, sessions: Authenticator, keys: Authenticator) -> None:
        self._sessions = sessions
        self._keys = keys

    def authenticate(self, credential: str) -> Coroutine[Any, Any, Principal]:
        # Not a coroutine itself: every request would pay for one more.
        if credential.startswith(KEY_PREFIX):
            return self._keys.authenticate(credential)
        return self._sessions.authenticate(credential)
