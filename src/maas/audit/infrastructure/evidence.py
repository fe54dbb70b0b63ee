"""Checkpoints and proofs, read through the indexes of their tables."""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from maas.audit.application.proofs import (
    CheckpointDetails,
    DamagedTrailError,
    NoCheckpointError,
    not_in_the_log,
)
from maas.audit.domain.merkle import inclusion_path
from maas.audit.domain.proof import Proof
from maas.audit.infrastructure.absence import explain_absence
from maas.audit.infrastructure.checkpoints import COLUMNS, read_row
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, Position
from maas.shared.infrastructure.database import Database

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"

_SIGNED: Final = ", ".join(f"c.{column}" for column in COLUMNS)
_HEAD: Final = f"""
    SELECT {_SIGNED}, k.public_key
    FROM audit_checkpoints AS c JOIN audit_signing_keys AS k USING (key_id)
    ORDER BY c.n DESC LIMIT 1
"""  # noqa: S608  fixed words, no input
# Checkpoints lie end to end, so that those that touch a stretch are a range of `seq_to`.
_LIST: Final = f"""
    SELECT {_SIGNED}, k.public_key
    FROM audit_checkpoints AS c JOIN audit_signing_keys AS k USING (key_id)
    WHERE c.seq_to >= $1 AND c.seq_from <= $2 AND c.n < $3
    ORDER BY c.seq_to DESC LIMIT $4
"""  # noqa: S608  fixed words, no input
_COUNT: Final = "SELECT count(*) FROM audit_checkpoints WHERE seq_to >= $1 AND seq_from <= $2"
_EVENT: Final = """
    SELECT l.seq, l.recorded_at, l.payload, h.leaf, h.row_hash
    FROM audit_log AS l JOIN audit_chain AS h USING (seq)
    WHERE l.event_id = $1 AND ($2::uuid IS NULL OR l.tenant_id = $2)
"""
_COVERING: Final = f"""
    SELECT {_SIGNED}, k.public_key
    FROM audit_checkpoints AS c JOIN audit_signing_keys AS k USING (key_id)
    WHERE c.seq_to >= $1 ORDER BY c.seq_to LIMIT 1
"""  # noqa: S608  fixed words, no input
_LEAVES: Final = "SELECT leaf FROM audit_chain WHERE seq >= $1 AND seq <= $2 ORDER BY seq"
_LAST: Final = 2**63 - 1


class PostgresEvidence:
    """Reads as `maas_app`; what is signed belongs to no tenant and tells nothing of any."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_head(self) -> CheckpointDetails:
        row = await self._database.fetchrow(_HEAD)
        if row is None:
            raise NoCheckpointError
        return _details(row)

    async def list_checkpoints(
        self, *, from_seq: int | None, to_seq: int | None, page: PageRequest
    ) -> Page[CheckpointDetails]:
        stretch = (from_seq or 0, _LAST if to_seq is None else to_seq)
        before = _LAST if page.after is None else page.after.id.int
        async with self._database.acquire() as connection:
            total = None
            if page.include_total:
                total = await connection.fetchval(_COUNT, *stretch)
            rows = await connection.fetch(_LIST, *stretch, min(before, _LAST), page.limit + 1)
        return _page(rows, page=page, total=total)

    async def prove(self, event_id: UUID, *, tenant_id: TenantId) -> Proof:
        async with self._database.tenant(tenant_id) as connection:
            return await read_proof(connection, event_id, tenant_id=tenant_id)


async def read_proof(
    connection: Connection, event_id: UUID, *, tenant_id: TenantId | None
) -> Proof:
    """Prove that an event is in the log: a tenant's, or without one anybody's.

    Raises:
        AuditEventNotFoundError: it is not, not yet, not any more, or no checkpoint covers it.
        DamagedTrailError: rows of the chain are missing that its checkpoint covers.
    """
    event = await connection.fetchrow(_EVENT, event_id, tenant_id)
    if event is None:
        raise await explain_absence(connection, event_id)
    covering = await connection.fetchrow(_COVERING, event["seq"])
    if covering is None or covering["seq_from"] > event["seq"]:
        raise not_in_the_log()
    first, last = covering["seq_from"], covering["seq_to"]
    leaves = [row["leaf"] for row in await connection.fetch(_LEAVES, first, last)]
    if len(leaves) != last - first + 1:
        raise DamagedTrailError
    return Proof(
        event_id=str(event_id),
        seq=event["seq"],
        recorded_at=event["recorded_at"],
        payload=event["payload"],
        leaf=event["leaf"],
        row_hash=event["row_hash"],
        path=inclusion_path(leaves, event["seq"] - first),
        checkpoint=read_row(covering),
        public_key=covering["public_key"],
    )


def _details(row: Any) -> CheckpointDetails:
    return CheckpointDetails(signed=read_row(row), hash=row["hash"], public_key=row["public_key"])


def _page(
    rows: Sequence[asyncpg.Record], *, page: PageRequest, total: int | None
) -> Page[CheckpointDetails]:
    items = [_details(row) for row in rows[: page.limit]]
    position = None
    if len(rows) > page.limit:
        last = items[-1].signed.checkpoint
        position = Position(at=last.recorded_at, id=UUID(int=last.n))
    return Page(items=items, next=position, total=total)
