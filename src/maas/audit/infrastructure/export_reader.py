"""Pages of an export, each read in a transaction of its own, as `maas_app`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from maas.audit.application.export import ExportedEvent, ExportPage
from maas.audit.application.proofs import CheckpointDetails
from maas.audit.domain.event import spell_instant
from maas.audit.infrastructure.checkpoints import COLUMNS, read_row
from maas.audit.infrastructure.evidence import PostgresEvidence
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database

_KEYS: Final = "SELECT * FROM audit_signing_keys ORDER BY first_seq, key_id"
_CHAIN: Final = """
    SELECT seq, recorded_at, leaf, row_hash FROM audit_chain
    WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3
"""
_EVENTS: Final = """
    SELECT l.seq, l.payload, l.duration_ms, p.event_id AS known, p.actor_name, p.email,
        host(p.address) AS address, p.user_agent, p.salt
    FROM audit_log AS l LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
    WHERE l.tenant_id = $1 AND l.seq > $2 AND l.seq <= $3
"""
_CHECKPOINTS: Final = f"""
    SELECT {", ".join(COLUMNS)} FROM audit_checkpoints
    WHERE n > $1 AND seq_from <= $2 ORDER BY n LIMIT $3
"""  # noqa: S608  fixed words, no input

_PERSONAL: Final = ("actor_name", "email", "address", "user_agent")


class PostgresExportReader:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._evidence = PostgresEvidence(database)

    async def keys(self) -> Sequence[Mapping[str, Any]]:
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_KEYS)
        return [
            {
                "key_id": row["key_id"],
                "public_key": row["public_key"].hex(),
                "first_seq": row["first_seq"],
                "created_at": spell_instant(row["created_at"]),
            }
            for row in rows
        ]

    async def head(self) -> CheckpointDetails:
        return await self._evidence.get_head()

    async def page(
        self, tenant_id: TenantId, *, after: int, upto: int, after_n: int, limit: int
    ) -> ExportPage:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(_CHAIN, after, upto, limit)
            last = rows[-1]["seq"] if rows else upto
            events = await connection.fetch(_EVENTS, tenant_id, after, last)
            # No checkpoint is empty, so no more of them begin among these rows.
            signed = await connection.fetch(_CHECKPOINTS, after_n, last, limit)
        return ExportPage(
            rows=[tuple(row) for row in rows],
            events={row["seq"]: _event(row) for row in events},
            checkpoints=[
                CheckpointDetails(signed=read_row(row), hash=row["hash"], public_key=b"")
                for row in signed
            ],
        )


def _event(row: Any) -> ExportedEvent:
    personal = None
    if row["known"] is not None:
        personal = {name: row[name] for name in _PERSONAL if row[name] is not None}
        personal["salt"] = row["salt"].hex()
    return ExportedEvent(payload=row["payload"], duration_ms=row["duration_ms"], personal=personal)
