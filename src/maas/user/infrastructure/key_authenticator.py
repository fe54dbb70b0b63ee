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
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

from maas.shared.application.ports import Authenticator, InvalidApiKeyError
from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.shared.domain.principal import KeyLimits, Principal, meet
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate, RedisUnavailableError
from maas.user.domain.key_text import KEY_PREFIX, PresentedKey, read_key
from maas.user.infrastructure.key_uses import KeyUses
from maas.user.infrastructure.sessions import (
    CHECK,
    FALLBACK_READS_AT_ONCE,
    FILL,
    MAX_PARSED,
    SETTLING_SECONDS,
    VALID_ENTRY_LIFETIME,
    key_entry,
)
from maas.user.public import SELF_PERMISSIONS

KEY_QUERY: Final = "SELECT * FROM api_key_principal($1)"
FIRST_USE: Final = "SELECT api_key_first_use($1, $2) AS is_current"
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

    def __init__(self, *, redis: RedisGate, database: Database, uses: KeyUses) -> None:
        self._redis = redis
        self._database = database
        self._uses = uses
        self._bulkhead = asyncio.Semaphore(FALLBACK_READS_AT_ONCE)
        self._parsed: dict[bytes, KnownKey] = {}

    async def authenticate(self, credential: str) -> Principal:
        key = read_key(credential)
        if key is None:
            raise InvalidApiKeyError
        known = await self._look_up(key)
        if not (known.is_current(key) or known.is_previous(key)):
            raise InvalidApiKeyError
        self._uses.note(known.principal.api_key_id)
        return known.principal

    async def _look_up(self, key: PresentedKey) -> KnownKey:
        entry = key_entry(key.public_id)
        try:
            answer = await self._redis.evaluate(CHECK, keys=[entry], args=[])
        except RedisUnavailableError:
            return (await self._read(key))[0]
        if isinstance(answer, int):
            return await self._read_and_fill(key, entry, asked_at_ms=answer)
        known = self._parse(answer)
        is_settled = self._redis.server_age_seconds >= SETTLING_SECONDS
        is_first_use = not known.is_secret_used and known.is_current(key)
        if is_first_use or not is_settled:
            return (await self._read(key))[0]
        return known

    async def _read(self, key: PresentedKey) -> tuple[KnownKey, int]:
        """Ask PostgreSQL, a few at a time; tell for how many ms at most its answer is good."""
        async with self._bulkhead:
            row = await self._database.fetchrow(KEY_QUERY, key.public_id)
        if row is None:
            raise InvalidApiKeyError
        known = _known(dict(row))
        if known.is_current(key) and not known.is_secret_used:
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
        known, good_for_ms = await self._read(key)
        # PostgreSQL has answered already; should Redis fail now, the next request fills the entry.
        with contextlib.suppress(RedisUnavailableError):
            args: list[str | int] = [
                _spell(known),
                known.principal.version,
                asked_at_ms + good_for_ms,
            ]
            await self._redis.evaluate(FILL, keys=[entry], args=args)
        return known

    def _parse(self, entry: bytes) -> KnownKey:
        """Read an entry; the same bytes always mean the same, so their reading is kept."""
        known = self._parsed.get(entry)
        if known is None:
            _, version, body = entry.split(b"|", 2)
            fields = json.loads(body)
            previous = fields["previous"]
            known = KnownKey(
                principal=_principal({**fields, "version": int(version)}),
                secret_hash=bytes.fromhex(fields["secret"]),
                is_secret_used=fields["is_used"],
                previous_hash=None if previous is None else bytes.fromhex(previous),
            )
            if len(self._parsed) >= MAX_PARSED:
                self._parsed.clear()
            self._parsed[entry] = known
        return known


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
            "holder": principal.account_id.hex,
            "tenant": principal.tenant_id.hex,
            "username": principal.username,
            "permissions": sorted(principal.permissions),
            "key": principal.api_key_id.hex if principal.api_key_id else None,
            "networks": None if networks is None else [str(network) for network in networks],
            "models": None if models is None else sorted(models),
            "requests_per_minute": limits.requests_per_minute,
            "secret": known.secret_hash.hex(),
            "is_used": known.is_secret_used,
            "previous": None if known.previous_hash is None else known.previous_hash.hex(),
        },
        separators=(",", ":"),
    )
    return f"v|{principal.version}|{body}"


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
