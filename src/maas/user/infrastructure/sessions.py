"""The session check of every request: one Redis round trip, PostgreSQL when Redis cannot tell.

Redis holds, per session, either `v|<version>|<principal>` for at most five seconds, or the
tombstone `x|<version>` for as long as an access token may live, or the mark `s|<version>` that what
was read before that version is stale, for a little longer than a reader may take. An older version
never replaces a newer one, so neither a late reader nor a process that was cut off can bring a
revoked session back. Nor can a Redis restarted on an old file: an entry of before its start is not
believed for as long as it may live. Nothing is remembered in the process.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from redis.asyncio import Redis

from maas.shared.application.ports import InvalidTokenError
from maas.shared.domain.ids import AccountId, SessionId, TenantId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.rate_limits import TAKE, RateLimits, arguments_of
from maas.shared.infrastructure.redis import (
    KEY_PREFIX,
    RedisGate,
    RedisUnavailableError,
    Script,
)
from maas.user.application.ports import AccessClaims, TokenIssuer
from maas.user.public import SELF_PERMISSIONS

VALID_ENTRY_LIFETIME: Final = timedelta(seconds=5)
SETTLING_SECONDS: Final = VALID_ENTRY_LIFETIME.total_seconds() + 1
"""What a server holds that has been up for less may be of before, and lack what came after."""

TOMBSTONE_MARGIN: Final = timedelta(minutes=2)
FALLBACK_READS_AT_ONCE: Final = 10
MAX_PARSED: Final = 8192

# A miss brings the server's time, so that what is filled in later dies five seconds after it was
# looked for, however slow the reader and whatever its clock says. A stale mark is a miss, too.
# After the entry comes what the limits say, if there is a bucket and the session is not revoked.
CHECK: Final = Script(
    TAKE
    + """
local entry = redis.call('GET', KEYS[1])
local mark = entry and string.sub(entry, 1, 1)
if mark == 'x' then return {entry} end
local now, answer = microseconds(), {}
if KEYS[2] then
  answer = take({{KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2])}}, now, 1) or {}
end
if not entry or mark == 's' then entry = math.floor(now / 1000) end
table.insert(answer, 1, entry)
return answer
"""
)

# ARGV: entry, its version, when it dies (ms since the epoch, by the server's clock), and 0 if it is
# not worth a sync of the disk.
FILL: Final = Script("""
local old = redis.call('GET', KEYS[1])
if old then
  local version = tonumber(string.match(old, '^%a|(%d+)'))
  if version and version >= tonumber(ARGV[2]) and string.sub(old, 1, 1) == 'x' then return 0 end
  if version and version > tonumber(ARGV[2]) then return 0 end
end
local now = redis.call('TIME')
if now[1] * 1000 + math.floor(now[2] / 1000) >= tonumber(ARGV[3]) then return 0 end
if ARGV[4] == '0' then redis.set_repl(redis.REPL_NONE) end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[3])
return 1
""")

PRINCIPAL_QUERY: Final = "SELECT * FROM session_principal($1)"


def session_key(session_id: SessionId) -> str:
    return f"{KEY_PREFIX}session:{session_id.hex}"


def key_entry(public_id: str) -> str:
    return f"{KEY_PREFIX}api-key:{public_id}"


class SessionAuthenticator:
    """Checks access tokens against live sessions (the `Authenticator` port)."""

    def __init__(
        self,
        *,
        tokens: TokenIssuer,
        redis: RedisGate,
        database: Database,
        limits: RateLimits | None = None,
    ) -> None:
        self._tokens = tokens
        self._limits = limits
        self._redis = redis
        self._database = database
        self._bulkhead = asyncio.Semaphore(FALLBACK_READS_AT_ONCE)
        self._parsed: dict[bytes, Principal] = {}

    async def authenticate(self, credential: str) -> Principal:
        claims = self._tokens.read_access(credential)
        if claims is None:
            raise InvalidTokenError
        key = session_key(claims.session_id)
        answer = await self._check(key, claims)
        if answer is None:
            return await self._read(claims)
        if isinstance(answer, int):
            return await self._read_and_fill(claims, key, asked_at_ms=answer)
        principal = self._parse(answer)
        is_settled = self._redis.server_age_seconds >= SETTLING_SECONDS
        if principal.version < claims.version or not is_settled:
            # The entry may be of before a change: somebody filled it in late, or Redis came back
            # with an old one.
            return await self._read(claims)
        return _of_token(principal, claims)

    async def _check(self, key: str, claims: AccessClaims) -> bytes | int | None:
        """Look a session up and count the request, in one round trip.

        Tells the entry; or that there is none, by when that was on the server's clock; or nothing,
        without Redis.
        """
        limits = self._limits
        buckets = [] if limits is None else limits.buckets_of_account(claims.account_id)
        keys = [key, *[bucket.key for bucket in buckets]]
        try:
            answer = await self._redis.evaluate(CHECK, keys=keys, args=arguments_of(*buckets))
        except RedisUnavailableError:
            if limits is not None:
                limits.note_here(buckets)
            return None
        found: bytes | int = answer[0]
        if isinstance(found, bytes) and found.startswith(b"x"):
            raise InvalidTokenError
        if limits is not None:
            limits.note(buckets, answer[1:])
        return found

    async def _read(self, claims: AccessClaims) -> Principal:
        """Ask PostgreSQL, a few at a time, so that a dead Redis does not drown it."""
        async with self._bulkhead:
            row = await self._database.fetchrow(PRINCIPAL_QUERY, claims.session_id)
        if row is None:
            raise InvalidTokenError
        principal = Principal(
            kind="account",
            account_id=AccountId(row["account_id"]),
            tenant_id=TenantId(row["tenant_id"]),
            username=row["username"],
            permissions=frozenset(row["permissions"]) | SELF_PERMISSIONS,
            version=row["version"],
            session_id=claims.session_id,
        )
        return _of_token(principal, claims)

    async def _read_and_fill(
        self, claims: AccessClaims, key: str, *, asked_at_ms: int
    ) -> Principal:
        principal = await self._read(claims)
        dies_at = asked_at_ms + round(VALID_ENTRY_LIFETIME / timedelta(milliseconds=1))
        # PostgreSQL has answered already; should Redis fail now, the next request fills the entry.
        with contextlib.suppress(RedisUnavailableError):
            entry: list[str | int] = [_spell(principal), principal.version, dies_at]
            await self._redis.evaluate(FILL, keys=[key], args=entry)
        return principal

    def _parse(self, entry: bytes) -> Principal:
        """Read an entry; the same bytes always mean the same, so their reading is kept."""
        principal = self._parsed.get(entry)
        if principal is None:
            _, version, body = entry.split(b"|", 2)
            fields = json.loads(body)
            principal = Principal(
                kind="account",
                account_id=AccountId(UUID(fields["account"])),
                tenant_id=TenantId(UUID(fields["tenant"])),
                username=fields["username"],
                permissions=frozenset(fields["permissions"]),
                version=int(version),
                session_id=SessionId(UUID(fields["session"])),
            )
            if len(self._parsed) >= MAX_PARSED:
                self._parsed.clear()
            self._parsed[entry] = principal
        return principal


class RedisSessionCache:
    """Writes the tombstones (the `SessionCache` port)."""

    def __init__(self, redis: RedisGate, *, access_lifetime: timedelta) -> None:
        self._redis = redis
        self._lifetime_ms = round((access_lifetime + TOMBSTONE_MARGIN) / timedelta(milliseconds=1))

    async def revoke(self, session_id: SessionId, *, version: int) -> None:
        await self.revoke_all({session_id: version})

    async def revoke_all(self, versions: Mapping[SessionId, int]) -> None:
        if not versions:
            return

        async def bury(client: Redis) -> None:
            pipeline = client.pipeline(transaction=False)
            for session_id, version in versions.items():
                key, tombstone = session_key(session_id), f"x|{version}"
                pipeline.set(key, tombstone, px=self._lifetime_ms)  # type: ignore[unused-awaitable]  # queued
            await pipeline.execute()

        try:
            await self._redis.call(bury)
        except RedisUnavailableError:
            # Entries that still say "valid" die within this time, and PostgreSQL says no already.
            await asyncio.sleep(VALID_ENTRY_LIFETIME.total_seconds())


def _of_token(principal: Principal, claims: AccessClaims) -> Principal:
    if principal.tenant_id != claims.tenant_id or principal.account_id != claims.account_id:
        raise InvalidTokenError
    return principal


def _spell(principal: Principal) -> str:
    body = json.dumps(
        {
            "account": principal.account_id.hex,
            "tenant": principal.tenant_id.hex,
            "username": principal.username,
            "permissions": sorted(principal.permissions),
            "session": principal.session_id.hex if principal.session_id else None,
        },
        separators=(",", ":"),
    )
    return f"v|{principal.version}|{body}"
