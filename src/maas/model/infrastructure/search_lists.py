"""What the lists that are searched have in common, and the two ways through each.

`look_through` reads the next rows of the list and keeps what fits; `pick` takes what an index has
of one of the things that are wanted, if that is not too much, and keeps what fits the rest.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import asyncpg

from maas.model.application.search import Order, RegistryFilter
from maas.model.infrastructure.search_conditions import (
    DIRECTIONS,
    FEW_POWERS,
    Arguments,
    Range,
    beyond,
    joined,
    ranges_of,
)
from maas.shared.domain.page import Position
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import PooledConnection

# One statement tells whether there are too many, and else gives those that fit, in order. Each is
# looked up by its id, which `OFFSET` holds to: wherever few rows are expected to fit, PostgreSQL
# would go through all of those instead, and through the candidates for each.
_PICK: Final = """
    WITH c AS MATERIALIZED ({source}), few AS (SELECT count(*) <= {most} AS are_few FROM c)
    SELECT few.are_few, found.id, found.at FROM few LEFT JOIN LATERAL (
        SELECT k.id, k.at FROM ({keys}) k CROSS JOIN LATERAL (
            SELECT FROM {table} WHERE {row}.{row_id} = k.id AND {conditions} OFFSET 0) fitting
        WHERE few.are_few
        ORDER BY k.at {direction}, k.id {direction} LIMIT {limit}) found ON true
"""
_OWN_KEYS: Final = "SELECT c.id, c.at FROM c"


@dataclass(frozen=True, slots=True)
class LookedThrough:
    """What fits of the rows that were read, and where they ended, if the list goes on."""

    rows: list[Position]
    edge: Position | None


@dataclass(frozen=True, slots=True)
class Source:
    """A query for candidates, at most one more than `most`, with its arguments."""

    query: str
    arguments: Arguments
    keys: str = _OWN_KEYS


class SearchedList(ABC):
    """A table in an order, and conditions on its rows."""

    table: ClassVar[str]
    row: ClassVar[str]
    row_id: ClassVar[str]
    farthest = 64_000
    """One look goes no further: it would hold a connection for too long."""

    def __init__(self, caller: Principal, wanted: RegistryFilter, order: Order) -> None:
        self._caller = caller
        self._wanted = wanted
        self._order = order
        self._direction = DIRECTIONS[order]
        self._ranges: Sequence[Range] | None = None

    @abstractmethod
    def _base(self, arguments: Arguments) -> list[str]:
        """Spell which rows the list has."""

    @abstractmethod
    def _fits(self, arguments: Arguments) -> list[str]:
        """Spell which of them are wanted."""

    @abstractmethod
    def _sources(
        self, after: Position | None, most: int, ranges: Sequence[Range]
    ) -> Sequence[Source]:
        """Tell where candidates can be had.

        First come those that end as soon as there are too many: words are looked up to the last.
        """

    @property
    def leads(self) -> Sequence[str | None]:
        """What each look through the list may keep to, by turns; `None` is all of the list."""
        return (None,)

    def _sorted(self, row: str) -> str:
        return f"ORDER BY {row}.created_at {self._direction}, {row}.{self.row_id} {self._direction}"

    def _rows(
        self, after: Position | None, reach: int, arguments: Arguments, lead: str | None = None
    ) -> str:
        """Read so many rows of the list, from where the last page ended."""
        leading = getattr(self._wanted, lead) if lead is not None else None
        conditions = [
            *self._base(arguments),
            *([] if lead is None else [f"{self.row}.{lead} = {arguments.put(leading)}"]),
            *beyond(self.row, self.row_id, after, self._order, arguments),
        ]
        return (
            f"SELECT {self.row}.* FROM {self.table} WHERE {joined(conditions)}"  # noqa: S608  fixed words, no input
            f" {self._sorted(self.row)} LIMIT {reach}"
        )

    async def look_through(
        self,
        connection: PooledConnection,
        after: Position | None,
        reach: int,
        limit: int,
        lead: str | None,
    ) -> LookedThrough:
        arguments = Arguments()
        rows = self._rows(after, reach, arguments, lead)
        key = f"{self.row}.created_at AS at, {self.row}.{self.row_id} AS id"
        query = (
            f"SELECT {key} FROM ({rows}) {self.row} WHERE {joined(self._fits(arguments))}"  # noqa: S608  likewise
            f" {self._sorted(self.row)} LIMIT {limit}"
        )
        found = positions(await connection.fetch(query, *arguments.values))
        if len(found) == limit:
            return LookedThrough(found, found[-1])
        arguments = Arguments()
        edge = await connection.fetchrow(
            f"SELECT {key} FROM ({self._rows(after, reach, arguments, lead)}) {self.row}"  # noqa: S608  likewise
            f" {self._sorted(self.row)} OFFSET {reach - 1} LIMIT 1",
            *arguments.values,
        )
        return LookedThrough(found, None if edge is None else Position(edge["at"], edge["id"]))

    async def pick(
        self, connection: PooledConnection, after: Position | None, most: int, limit: int
    ) -> list[Position] | None:
        """Give the first that fit, or nothing at all where an index has more than `most`."""
        for source in self._sources(after, most, await self._known_ranges(connection)):
            arguments = source.arguments
            conditions = [
                *self._base(arguments),
                *self._fits(arguments),
                *beyond(self.row, self.row_id, after, self._order, arguments),
            ]
            query = _PICK.format(
                source=source.query, most=most, keys=source.keys, table=self.table, row=self.row,
                row_id=self.row_id, conditions=joined(conditions), direction=self._direction,
                limit=limit,
            )  # fmt: skip
            rows = await connection.fetch(query, *arguments.values)
            if rows[0]["are_few"]:
                return positions([row for row in rows if row["id"] is not None])
        return None

    async def _known_ranges(self, connection: PooledConnection) -> Sequence[Range]:
        """Cut what is wide at the least and the most that any version has, so words can spell it.

        Both are at the ends of an index.
        """
        if self._ranges is None:
            self._ranges = [
                await self._cut(connection, each) if len(each.powers) > FEW_POWERS else each
                for each in ranges_of(self._wanted)
            ]
        return self._ranges

    async def _cut(self, connection: PooledConnection, each: Range) -> Range:
        ends = await connection.fetchrow(
            f"SELECT min(s.{each.column}) AS least, max(s.{each.column}) AS most"  # noqa: S608  likewise
            " FROM version_search s WHERE s.tenant_id = $1 AND s.is_live",
            self._caller.tenant_id,
        )
        return each if ends is None else each.cut(ends["least"], ends["most"])

    async def count(self, connection: PooledConnection) -> int:
        arguments = Arguments()
        conditions = [*self._base(arguments), *self._fits(arguments)]
        total: int = await connection.fetchval(
            f"SELECT count(*) FROM {self.table} WHERE {joined(conditions)}",  # noqa: S608  likewise
            *arguments.values,
        )
        return total


def positions(rows: Sequence[asyncpg.Record]) -> list[Position]:
    return [Position(at=row["at"], id=row["id"]) for row in rows]
