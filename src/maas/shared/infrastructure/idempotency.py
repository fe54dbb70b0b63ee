"""Kept answers: a repeated Idempotency-Key brings the first one back, from the same transaction."""

import hashlib
import os
from datetime import timedelta

import asyncpg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import (
    Column,
    DateTime,
    Index,
    LargeBinary,
    Row,
    SmallInteger,
    Table,
    Text,
    Uuid,
    bindparam,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from maas.shared.domain.call import Call
from maas.shared.domain.clock import Clock
from maas.shared.domain.idempotency import (
    Answer,
    IdempotencyClaim,
    IdempotencyInProgressError,
    IdempotencyKeyReusedError,
    KeptAnswerUnreadableError,
    ReplayedAnswer,
)
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import (
    TENANT_SETTING,
    mapper_registry,
    system_arguments,
)
from maas.shared.infrastructure.settings import DatabaseSettings

LIFETIME = timedelta(hours=24)
RETRY_AFTER = timedelta(seconds=1)
NONCE_BYTES = 12
KEY_BYTES = 32

idempotency_keys = Table(
    "idempotency_keys",
    mapper_registry.metadata,
    Column("tenant_id", Uuid, primary_key=True),
    Column("principal_id", Uuid, primary_key=True),
    Column("key_hash", LargeBinary, primary_key=True),
    Column("route", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column(
        "created_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("clock_timestamp()"),
    ),
    Index(None, "created_at"),
)

_LOCK = text(
    f"""SELECT pg_try_advisory_xact_lock(:lock) AS is_ours,
               nullif(current_setting('{TENANT_SETTING}', true), '')::uuid AS tenant_id"""
)
# A statement of its own: its snapshot must be younger than the lock.
_FIND = text(
    """SELECT route, request_hash, status, headers, sealed, created_at FROM idempotency_keys
       WHERE tenant_id = :tenant_id AND principal_id = :principal_id AND key_hash = :key_hash"""
).columns(headers=JSONB, created_at=DateTime(timezone=True))
_FORGET = text(
    """DELETE FROM idempotency_keys
       WHERE tenant_id = :tenant_id AND principal_id = :principal_id AND key_hash = :key_hash"""
)
# The row belongs to the tenant the transaction began in, wherever the use case went from there.
_KEEP = text(
    f"""INSERT INTO idempotency_keys
          (tenant_id, principal_id, key_hash, route, request_hash, status, headers, sealed,
           created_at)
        SELECT set_config('{TENANT_SETTING}', :tenant_id, true)::uuid, :principal_id, :key_hash,
               :route, :request_hash, :status, :headers, :sealed, :created_at"""
).bindparams(
    bindparam("headers", type_=JSONB), bindparam("created_at", type_=DateTime(timezone=True))
)


class NoResultError(RuntimeError):
    """A route marked `@idempotent` committed without a result to render: a bug."""


class PostgresIdempotency:
    """Keeps answers for a day beside the changes they tell of, sealed under the caller's own key.

    A reader of the table alone learns no answer: the sealing key comes from the server's secret and
    the Idempotency-Key, of which only a hash is stored.
    """

    def __init__(self, secret_key: str, *, clock: Clock) -> None:
        self._secret = secret_key.encode()
        self._clock = clock

    async def begin(self, session: AsyncSession, call: Call) -> None:
        """Take the call's key for this transaction, if it has one.

        Raises:
            ReplayedAnswer: it was used for the same request; carries the answer.
            IdempotencyKeyReusedError: it was used for another request.
            IdempotencyInProgressError: another transaction holds it.
            KeptAnswerUnreadableError: the server's secret was changed since.
        """
        claim = call.idempotency
        if claim is None or claim.is_kept or call.principal is None:
            return
        claim.principal_id = call.principal.credential_id
        lock = _lock_number(f"{claim.principal_id}|{claim.key}")
        held = (await session.execute(_LOCK, {"lock": lock})).one()
        if not held.is_ours:
            raise IdempotencyInProgressError(
                "Wait for its answer, then repeat the request with the same key.",
                retry_after=RETRY_AFTER,
            )
        if held.tenant_id is None:
            return
        claim.tenant_id = TenantId(held.tenant_id)
        row = (await session.execute(_FIND, _identity(claim))).one_or_none()
        if row is None:
            return
        claim.replaces_expired = row.created_at <= self._clock.now() - LIFETIME
        if not claim.replaces_expired:
            raise ReplayedAnswer(self._answer_in(row, claim))

    async def finish(self, session: AsyncSession, call: Call, result: object) -> None:
        """Keep the answer to `result` under the call's key, if it has one.

        Raises:
            NoResultError: the route promised to render a result and got none.
        """
        claim = call.idempotency
        if claim is None or claim.is_kept or claim.tenant_id is None:
            return
        if result is None:
            message = f"{claim.route}: pass what the route renders to commit(result)"
            raise NoResultError(message)
        answer = claim.render(result)
        if claim.replaces_expired:
            await session.execute(_FORGET, _identity(claim))
        await session.execute(
            _KEEP,
            {
                **_identity(claim),
                "tenant_id": str(claim.tenant_id),
                "route": claim.route,
                "request_hash": claim.request_hash,
                "status": answer.status,
                "headers": dict(answer.headers),
                "sealed": self._seal(claim, answer.body),
                "created_at": self._clock.now(),
            },
        )

        @event.listens_for(session.sync_session, "after_commit", once=True)
        def note_kept(_session: Session) -> None:
            claim.is_kept = True

    def _answer_in(self, row: Row[tuple[object, ...]], claim: IdempotencyClaim) -> Answer:
        if row.route != claim.route or row.request_hash != claim.request_hash:
            raise IdempotencyKeyReusedError("Make a new key for a new request.")
        return Answer(status=row.status, headers=row.headers, body=self._unseal(claim, row.sealed))

    def _seal(self, claim: IdempotencyClaim, body: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self._key_for(claim)).encrypt(nonce, body, _context_of(claim))

    def _unseal(self, claim: IdempotencyClaim, sealed: bytes) -> bytes:
        nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return AESGCM(self._key_for(claim)).decrypt(nonce, ciphertext, _context_of(claim))
        except InvalidTag:
            # The server's secret was changed since.
            raise KeptAnswerUnreadableError(
                "The first request succeeded; look for what it made before you repeat it."
            ) from None

    def _key_for(self, claim: IdempotencyClaim) -> bytes:
        derivation = HKDF(
            algorithm=SHA256(), length=KEY_BYTES, salt=claim.key.encode(), info=b"maas idempotency"
        )
        return derivation.derive(self._secret)


async def purge_expired(settings: DatabaseSettings, *, clock: Clock) -> int:
    """Delete answers older than a day, of all tenants, as `maas_system`; return how many."""
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        done = await connection.execute(
            "DELETE FROM idempotency_keys WHERE created_at < $1", clock.now() - LIFETIME
        )
    finally:
        await connection.close()
    return int(done.rpartition(" ")[2])


def _identity(claim: IdempotencyClaim) -> dict[str, object]:
    return {
        "tenant_id": claim.tenant_id,
        "principal_id": claim.principal_id,
        "key_hash": hashlib.sha256(claim.key.encode()).digest(),
    }


def _context_of(claim: IdempotencyClaim) -> bytes:
    return f"{claim.tenant_id}|{claim.principal_id}|{claim.route}".encode()


def _lock_number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
