"""The upkeep of what is sealed, as `maas_system`: handing over to a new key, and finding faults.

Every step is one transaction that changes a value only if it is still the one that was read, so
that whoever is killed when loses nothing, and two at once do no more than one.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeAlias
from uuid import UUID

import asyncpg
import structlog

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.sealing import Place, Sealer, SecretUnreadableError
from maas.shared.infrastructure.settings import DatabaseSettings

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

RUN_SECONDS: Final = 20.0
SLICE: Final = 500

_KEY_ID: Final = "substring({column} FROM 3 FOR 8)"
# Constants of this code alone stand in these: there is no input in them.
_OLDER: Final = f"""
    SELECT {{row}} AS row, tenant_id, {{column}} AS sealed FROM {{table}}
    WHERE {_KEY_ID} = ANY($1) AND ($2::uuid IS NULL OR {{row}} > $2)
    ORDER BY {{row}} LIMIT $3
"""  # noqa: S608  no input in it
_ALL: Final = """
    SELECT {row} AS row, tenant_id, {column} AS sealed FROM {table}
    WHERE {column} IS NOT NULL AND ($1::uuid IS NULL OR {row} > $1) ORDER BY {row} LIMIT $2
"""
# Who has a row locked is not waited for: it is found again by the next run.
_HAND_OVER: Final = """
    WITH free AS (
        SELECT {row} FROM {table} WHERE {row} = ANY($1) ORDER BY {row} FOR UPDATE SKIP LOCKED
    )
    UPDATE {table} AS t SET {column} = w.new
    FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS w(row, old, new)
    WHERE t.{row} = w.row AND t.{column} = w.old AND w.row IN (SELECT {row} FROM free)
"""
_COUNT: Final = f"""
    SELECT {_KEY_ID} AS key_id, count(*) AS values FROM {{table}}
    WHERE {{column}} IS NOT NULL GROUP BY 1
"""  # noqa: S608  no input in it
_KNOWN: Final = "SELECT row_id FROM sealing_faults WHERE place = $1"
_NOTE: Final = """
    INSERT INTO sealing_faults (place, row_id, tenant_id, noted_at)
    SELECT $1, row, tenant_id, $4 FROM unnest($2::uuid[], $3::uuid[]) AS f(row, tenant_id)
    ON CONFLICT DO NOTHING RETURNING row_id, tenant_id
"""
_FORGET: Final = "DELETE FROM sealing_faults WHERE place = $1 AND row_id = ANY($2)"
_FORGET_GONE: Final = """
    DELETE FROM sealing_faults f WHERE place = $1 AND NOT EXISTS (
        SELECT FROM {table} WHERE {row} = f.row_id AND {column} IS NOT NULL)
"""
# Held until the connection is closed.
_ALONE: Final = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
# Waits for every writer of something sealed, and lets the next come only after the commit.
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('maas.sealing', 0))"
_RETIRE: Final = """
    INSERT INTO sealing_retired_keys (key_id, retired_at) VALUES ($1, $2) ON CONFLICT DO NOTHING
"""
_RETIRED: Final = "SELECT key_id FROM sealing_retired_keys"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedColumn:
    """A column of sealed values, in a table with a UUID as its key and a `tenant_id`."""

    table: str
    column: str
    row: str = "id"
    former: str | None = None
    """The column that the release before this one sealed its values for; both run side by side."""

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"

    def place(self, row: UUID, tenant_id: UUID) -> Place:
        return Place(table=self.table, row=row, column=self.column, tenant=tenant_id)

    def places(self, row: UUID, tenant_id: UUID) -> list[Place]:
        """Tell where a value may have been sealed, its own place first."""
        place = self.place(row, tenant_id)
        return [place] if self.former is None else [place, replace(place, column=self.former)]

    def spell(self, statement: str) -> str:
        return statement.format(table=self.table, column=self.column, row=self.row)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingFault:
    """A kept secret that does not open."""

    column: SealedColumn
    row_id: UUID
    tenant_id: TenantId


class FaultTeller(Protocol):
    async def __call__(self, connection: Connection, faults: Sequence[SealingFault]) -> None:
        """Tell of faults that were not known, in the transaction that notes them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """How many values are sealed under a key, and whether any may still be."""

    counts: Mapping[str, int]
    is_retired: bool

    @property
    def total(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingUpkeep:
    connection: Connection
    sealer: Sealer
    columns: Sequence[SealedColumn]
    clock: Clock
    run_seconds: float = RUN_SECONDS
    slice_rows: int = SLICE

    async def rewrap(self) -> bool:
        """Hand what is sealed under older keys over to the current one; tell if more is left.

        What does not open stays as it is, and while somebody else is at it nothing is done.
        """
        if not await self.connection.fetchval(_ALONE, "maas.sealing.rewrap"):
            return False
        begun = time.monotonic()
        for column in self.columns:
            after: UUID | None = None
            while True:
                # Asked for each time: the ring may be changed meanwhile.
                older = self.sealer.older_keys()
                statement = column.spell(_OLDER)
                rows = await self.connection.fetch(statement, older, after, self.slice_rows)
                if not rows:
                    break
                await self._hand_over(column, rows)
                after = rows[-1]["row"]
                if time.monotonic() - begun > self.run_seconds:
                    return True
        return False

    async def _hand_over(self, column: SealedColumn, rows: Sequence[asyncpg.Record]) -> None:
        changes = []
        for row in rows:
            sealed = self._rewrapped(column, row)
            if sealed is not None:
                changes.append((row["row"], row["sealed"], sealed))
        if not changes:
            return
        done = await self.connection.execute(column.spell(_HAND_OVER), *zip(*changes, strict=True))
        log.info("secrets_rewrapped", column=column.name, count=int(done.rpartition(" ")[2]))

    def _rewrapped(self, column: SealedColumn, row: asyncpg.Record) -> bytes | None:
        place, *former = column.places(row["row"], row["tenant_id"])
        with suppress(SecretUnreadableError):
            return self.sealer.rewrap(row["sealed"], place)
        with suppress(SecretUnreadableError):
            return self.sealer.seal(self.sealer.open_at(row["sealed"], former), place)
        return None

    async def check(
        self, tell: FaultTeller, *, column: str | None = None, after: UUID | None = None
    ) -> tuple[str, UUID] | None:
        """Try to open everything, and tell once of each value that does not.

        From a column and row on; where it stopped, if time was up before the end. While somebody
        else is at it nothing is done.
        """
        if not await self.connection.fetchval(_ALONE, "maas.sealing.check"):
            return None
        begun = time.monotonic()
        names = [each.name for each in self.columns]
        if column not in names:
            column, after = names[0], None
        start = names.index(column)
        for each in self.columns[start:]:
            while True:
                rows = await self.connection.fetch(each.spell(_ALL), after, self.slice_rows)
                await self._note(each, rows, tell)
                if len(rows) < self.slice_rows:
                    break
                after = rows[-1]["row"]
                if time.monotonic() - begun > self.run_seconds:
                    return each.name, rows[-1]["row"]
            after = None
            await self.connection.execute(each.spell(_FORGET_GONE), each.name)
        return None

    async def _note(
        self, column: SealedColumn, rows: Sequence[asyncpg.Record], tell: FaultTeller
    ) -> None:
        bad = [row for row in rows if not self._opens(column, row)]
        known = {row["row_id"] for row in await self.connection.fetch(_KNOWN, column.name)}
        healed = known & {row["row"] for row in rows} - {row["row"] for row in bad}
        if healed:
            await self.connection.execute(_FORGET, column.name, list(healed))
        fresh = [row for row in bad if row["row"] not in known]
        if not fresh:
            return
        ids, tenants = zip(*((row["row"], row["tenant_id"]) for row in fresh), strict=True)
        async with self.connection.transaction():
            noted = await self.connection.fetch(_NOTE, column.name, ids, tenants, self.clock.now())
            faults = [
                SealingFault(
                    column=column, row_id=row["row_id"], tenant_id=TenantId(row["tenant_id"])
                )
                for row in noted
            ]
            await tell(self.connection, faults)
        log.error("secrets_unreadable", column=column.name, count=len(faults))

    def _opens(self, column: SealedColumn, row: asyncpg.Record) -> bool:
        try:
            self.sealer.open_at(row["sealed"], column.places(row["row"], row["tenant_id"]))
        except SecretUnreadableError:
            return False
        return True

    async def uses(self) -> Mapping[bytes, KeyUse]:
        """Count the values under each key, of all tenants, by column."""
        counts: dict[bytes, Counter[str]] = {}
        for column in self.columns:
            for row in await self.connection.fetch(column.spell(_COUNT)):
                counts.setdefault(row["key_id"], Counter())[column.name] += row["values"]
        retired = {row["key_id"] for row in await self.connection.fetch(_RETIRED)}
        return {
            key_id: KeyUse(counts=counts.get(key_id, Counter()), is_retired=key_id in retired)
            for key_id in counts.keys() | retired
        }

    async def retire(self, key_id: bytes) -> Sequence[bool]:
        """Let nothing be sealed under a key any more, from the transaction's commit on.

        It is called in a transaction, which is to be rolled back if anything is left: the answer
        is, for each value that still is under the key, whether it opens.
        """
        await self.connection.execute(_LOCK)
        left = [
            self._opens(column, row)
            for column in self.columns
            for row in await self.connection.fetch(column.spell(_OLDER), [key_id], None, None)
        ]
        await self.connection.execute(_RETIRE, key_id, self.clock.now())
        return left


@asynccontextmanager
async def open_sealing_upkeep(
    settings: DatabaseSettings, sealer: Sealer, columns: Sequence[SealedColumn], *, clock: Clock
) -> AsyncIterator[SealingUpkeep]:
    """Connect for one run."""
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        yield SealingUpkeep(connection=connection, sealer=sealer, columns=columns, clock=clock)
    finally:
        await connection.close()
