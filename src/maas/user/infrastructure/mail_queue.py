"""The outbox of mails, read as `maas_system`: the API can write to it and cannot read it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from email import message_from_bytes
from email.policy import default as default_policy
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.application.mails import LINKS_AN_HOUR, Addressee, WaitingMail
from maas.user.domain.links import LinkHash, LinkPurpose
from maas.user.domain.throttle import MEMORY

UNDELIVERED_KEPT: Final = timedelta(days=30)

# Put off by one minute, then two, four ... up to an hour.
_TAKE: Final = """
UPDATE outgoing_mails
SET attempts = attempts + 1,
    due_at = $1::timestamptz + least(interval '1 minute' * (2 ^ attempts), interval '1 hour')
WHERE id = (
    SELECT id FROM outgoing_mails WHERE due_at <= $1 ORDER BY due_at LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING id, kind, recipient, reference, created_at
"""
_GIVE_UP: Final = """
WITH gone AS (
    DELETE FROM outgoing_mails WHERE id = $1
    RETURNING id, kind, recipient, attempts, created_at
)
INSERT INTO undelivered_mails (id, kind, recipient, attempts, reason, created_at, failed_at)
SELECT id, kind, recipient, attempts, $2, created_at, $3::timestamptz FROM gone
"""
_FIND: Final = "SELECT id, username, email, status FROM accounts WHERE lower(email) = lower($1)"
_KEEP: Final = """
INSERT INTO link_tokens (token_hash, purpose, account_id, email, created_at, expires_at)
SELECT $1, $2, $3, $4, $5::timestamptz, $6
WHERE (SELECT count(*) FROM link_tokens
       WHERE account_id = $3 AND purpose = $2
         AND created_at > $5::timestamptz - interval '1 hour') < $7
RETURNING 1
"""
_INVITE: Final = """
UPDATE invitations i SET mailed_token_hash = $2 FROM tenants t
WHERE i.id = $1 AND t.id = i.tenant_id AND t.status = 'active'
    AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND i.expires_at > $3
RETURNING t.name
"""


_FORGET: Final = (
    "DELETE FROM outgoing_mails WHERE lower(recipient) = ANY($1)",
    "DELETE FROM undelivered_mails WHERE lower(recipient) = ANY($1)",
    "DELETE FROM link_tokens WHERE lower(email) = ANY($1)",
    """
    UPDATE invitations SET email = id::text || '@erased.invalid',
        revoked_at = CASE WHEN accepted_at IS NULL
            THEN coalesce(revoked_at, clock_timestamp()) ELSE revoked_at END
    WHERE lower(email) = ANY($1)
    """,
)


class PostgresMailQueue:
    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def take(self, *, at: datetime) -> WaitingMail | None:
        row = await self._connection.fetchrow(_TAKE, at)
        return None if row is None else WaitingMail(**row)

    async def finish(self, mail: WaitingMail) -> None:
        await self._connection.execute("DELETE FROM outgoing_mails WHERE id = $1", mail.id)

    async def give_up(self, mail: WaitingMail, *, reason: str, at: datetime) -> None:
        await self._connection.execute(_GIVE_UP, mail.id, reason.replace("\x00", ""), at)

    async def find_addressee(self, email: str) -> Addressee | None:
        row = await self._connection.fetchrow(_FIND, email)
        if row is None:
            return None
        return Addressee(
            account_id=AccountId(row["id"]),
            username=row["username"],
            email=row["email"],
            status=row["status"],
        )

    async def keep_link(
        self,
        token_hash: LinkHash,
        purpose: LinkPurpose,
        addressee: Addressee,
        *,
        at: datetime,
        lifetime: timedelta,
    ) -> bool:
        kept = await self._connection.fetchval(
            _KEEP,
            token_hash,
            purpose,
            addressee.account_id,
            addressee.email,
            at,
            at + lifetime,
            LINKS_AN_HOUR,
        )
        return kept is not None

    async def drop_link(self, token_hash: LinkHash) -> None:
        await self._connection.execute("DELETE FROM link_tokens WHERE token_hash = $1", token_hash)

    async def renew_invitation(
        self, invitation_id: UUID, token_hash: LinkHash, *, at: datetime
    ) -> str | None:
        tenant: str | None = await self._connection.fetchval(_INVITE, invitation_id, token_hash, at)
        return tenant


@asynccontextmanager
async def open_mail_queue(settings: DatabaseSettings) -> AsyncIterator[PostgresMailQueue]:
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        yield PostgresMailQueue(connection)
    finally:
        await connection.close()


async def forget_addresses(settings: DatabaseSettings, emails: Sequence[str]) -> None:
    """Forget who is gone: what was to be mailed to them, could not be, and their invitations.

    An invitation stays as the tenant's own record, with nobody's address.
    """
    wanted = [email.lower() for email in emails]
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        async with connection.transaction():
            for statement in _FORGET:
                await connection.execute(statement, wanted)
    finally:
        await connection.close()


def delete_written_mails(folder: Path, emails: Sequence[str]) -> int:
    """Delete the mails in the folder that are addressed to somebody who is gone."""
    wanted, deleted = {email.lower() for email in emails}, 0
    for path in folder.glob("*.eml"):
        try:
            message = message_from_bytes(path.read_bytes(), policy=default_policy)
            recipients = {address.addr_spec.lower() for address in message["To"].addresses}
        except (OSError, ValueError, AttributeError, LookupError):
            # Gone meanwhile, or no mail of ours.
            continue
        if recipients & wanted:
            path.unlink(missing_ok=True)
            deleted += 1
    return deleted


async def purge_sign_in(settings: DatabaseSettings, *, clock: Clock) -> int:
    """Delete links and mails that are too old and counters nobody needs; return how many."""
    now = clock.now()
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        links = await connection.execute("DELETE FROM link_tokens WHERE expires_at < $1", now)
        counters = await connection.execute(
            "DELETE FROM login_throttles WHERE touched_at < $1", now - MEMORY
        )
        mails = await connection.execute(
            "DELETE FROM undelivered_mails WHERE failed_at < $1", now - UNDELIVERED_KEPT
        )
    finally:
        await connection.close()
    return sum(int(done.rpartition(" ")[2]) for done in (links, counters, mails))
