"""The lists that are searched, of models and of versions, and the two ways through each.

`look_through` reads the next rows of the list and keeps what fits; `pick` takes what an index has
of one of the things that are wanted, if that is not too much, and keeps what fits the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

import asyncpg
from typing_extensions import override

from maas.model.application.search import Order, RegistryFilter
from maas.model.infrastructure.search_conditions import (
    DIRECTIONS,
    EARLIEST,
    LATEST,
    Arguments,
    Range,
    beyond,
    is_about_versions,
    joined,
    ranges_of,
    said_of_model,
    said_of_version,
    seen_by,
    times_beyond,
    words_of,
)
from maas.shared.domain.page import Position
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import PooledConnection

CANDIDATES: Final = 4
"""So many times as many are picked as looked through: about what costs the same."""

# One statement tells whether there are too many, and else gives those that fit, in order.
_PICK: Final = """
    WITH c AS MATERIALIZED ({source}), few AS (SELECT count(*) <= {most} AS are_few FROM c)
    SELECT few.are_few, found.id, found.at FROM few LEFT JOIN LATERAL (
        SELECT k.id, k.at FROM ({keys}) k JOIN {table} ON {row}.{row_id} = k.id
        WHERE few.are_few AND {conditions}
        ORDER BY k.at {direction}, k.id {direction} LIMIT {limit}) found ON true
"""
# These have an index each, in the order of the list.
_LEADS: Final = ("architecture", "quantisation", "status", "framework")
_OWN_KEYS: Final = "SELECT c.id, c.at FROM c"
_KEYS_OF_MODELS: Final = "SELECT DISTINCT c.model_id AS id, c.model_at AS at FROM c"


@dataclass(frozen=True, slots=True)
class LookedThrough:
    """What fits of the rows that were read, and where they ended, if the list goes on."""

    rows: list[Position]
    edge: Position | None


class Listed(Protocol):
    farthest: int
    """One look goes no further: it would hold a connection for too long."""

    @property
    def leads(self) -> Sequence[str | None]:
        """What each look through the list may keep to, by turns; `None` is all of the list."""
        ...

    async def look_through(
        self,
        connection: PooledConnection,
        after: Position | None,
        reach: int,
        limit: int,
        lead: str | None,
    ) -> LookedThrough: ...

    async def pick(
        self, connection: PooledConnection, after: Position | None, most: int, limit: int
    ) -> list[Position] | None:
        """Give the first that fit, or nothing at all where an index has more than `most`."""
        ...

    async def count(self, connection: PooledConnection) -> int: ...


@dataclass(frozen=True, slots=True)
class _Source:
    """A query for candidates, at most one more than `most`, with its arguments."""

    query: str
    arguments: Arguments
    keys: str = _OWN_KEYS


class _List:
    """What both lists have in common: a table in an order, and conditions on its rows."""

    table: str
    row: str
    row_id: str
    farthest = 64_000

    def __init__(self, caller: Principal, wanted: RegistryFilter, order: Order) -> None:
        self._caller = caller
        self._wanted = wanted
        self._order = order
        self._direction = DIRECTIONS[order]

    def _base(self, arguments: Arguments) -> list[str]:
        """Spell which rows the list has."""
        raise NotImplementedError

    def _fits(self, arguments: Arguments) -> list[str]:
        """Spell which of them are wanted."""
        raise NotImplementedError

    def _sources(self, after: Position | None, most: int) -> Sequence[_Source]:
        """Tell where candidates can be had, the likely best first."""
        raise NotImplementedError

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

    @property
    def leads(self) -> Sequence[str | None]:
        return (None,)

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
        found = _positions(await connection.fetch(query, *arguments.values))
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
        for source in self._sources(after, most):
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
                return _positions([row for row in rows if row["id"] is not None])
        return None

    async def count(self, connection: PooledConnection) -> int:
        arguments = Arguments()
        conditions = [*self._base(arguments), *self._fits(arguments)]
        total: int = await connection.fetchval(
            f"SELECT count(*) FROM {self.table} WHERE {joined(conditions)}",  # noqa: S608  likewise
            *arguments.values,
        )
        return total

    def _versions_by_words(self, times: tuple[datetime, datetime], most: int) -> list[_Source]:
        wanted, arguments = self._wanted, Arguments()
        words = words_of(wanted, with_versions=True)
        if words is None and wanted.search is None:
            return []
        values = (words, wanted.search, *times, most)
        places = ", ".join(map(arguments.put, values))
        return [_Source(f"SELECT * FROM registry_versions({places})", arguments)]  # noqa: S608  likewise

    def _versions_by_range(self, each: Range, most: int) -> _Source:
        arguments = Arguments()
        conditions = [
            f"s.tenant_id = {arguments.put(self._caller.tenant_id)}",
            "s.is_live",
            *each.within("s", arguments),
        ]
        return _Source(
            "SELECT s.version_id AS id, s.created_at AS at, s.model_id,"  # noqa: S608  likewise
            f" s.model_created_at AS model_at FROM version_search s WHERE {joined(conditions)}"
            f" LIMIT {most + 1}",
            arguments,
        )


class VersionList(_List):
    """The versions of the tenant's models that are not deleted."""

    table, row, row_id = "version_search s", "s", "version_id"

    @property
    @override
    def leads(self) -> Sequence[str | None]:
        return [name for name in _LEADS if getattr(self._wanted, name) is not None] or (None,)

    @override
    def _base(self, arguments: Arguments) -> list[str]:
        return [f"s.tenant_id = {arguments.put(self._caller.tenant_id)}", "s.is_live"]

    @override
    def _fits(self, arguments: Arguments) -> list[str]:
        return [
            *seen_by(self._caller, "s", arguments),
            *said_of_model(self._wanted, "s", arguments),
            *said_of_version(self._wanted, arguments),
        ]

    @override
    def _sources(self, after: Position | None, most: int) -> Sequence[_Source]:
        return self.sources(most, times_beyond(after, self._order))

    def sources(self, most: int, times: tuple[datetime, datetime]) -> list[_Source]:
        return [
            *self._versions_by_words(times, most),
            *(self._versions_by_range(each, most) for each in ranges_of(self._wanted)),
        ]


class ModelList(_List):
    """The tenant's models: those that are not deleted, or those that are; or what others share."""

    table, row, row_id = "models m", "m", "id"

    def __init__(self, caller: Principal, wanted: RegistryFilter, order: Order) -> None:
        super().__init__(caller, wanted, order)
        if is_about_versions(wanted):
            # Of each model all versions may have to be looked at.
            self.farthest = 1_000

    @property
    @override
    def leads(self) -> Sequence[str | None]:
        wanted = self._wanted
        # Names are unique, and indexed, among a tenant's own that are not deleted.
        is_at_once = wanted.name is not None and not (wanted.is_shared or wanted.is_deleted)
        return ("name",) if is_at_once else (None,)

    @property
    def is_whole(self) -> bool:
        """Whether everything in the list is wanted."""
        return not self._fits(Arguments())

    async def show(
        self, connection: PooledConnection, columns: str, after: Position | None, limit: int
    ) -> list[asyncpg.Record]:
        """Read the first rows of the whole list at once."""
        arguments = Arguments()
        rows = self._rows(after, limit, arguments)
        query = f"SELECT {columns} FROM ({rows}) m {self._sorted('m')}"  # noqa: S608  likewise
        return list(await connection.fetch(query, *arguments.values))

    @override
    def _base(self, arguments: Arguments) -> list[str]:
        tenant = arguments.put(self._caller.tenant_id)
        if self._wanted.is_shared:
            granted = (
                "EXISTS (SELECT FROM model_grants g WHERE g.model_id = m.id"
                f" AND g.tenant_id = m.tenant_id AND g.grantee_id = {tenant})"
            )
            visible = f"(m.visibility = 'public' OR m.visibility = 'tenant' AND {granted})"
            return [f"m.tenant_id <> {tenant}", "m.deleted_at IS NULL", visible]
        state = "IS NOT NULL" if self._wanted.is_deleted else "IS NULL"
        seen = seen_by(self._caller, "m", arguments)
        return [f"m.tenant_id = {tenant}", f"m.deleted_at {state}", *seen]

    @override
    def _rows(
        self, after: Position | None, reach: int, arguments: Arguments, lead: str | None = None
    ) -> str:
        if not self._wanted.is_shared:
            return super()._rows(after, reach, arguments, lead)
        tenant = arguments.put(self._caller.tenant_id)
        last = joined(["m.deleted_at IS NULL", *beyond("m", "id", after, self._order, arguments)])
        ordered = f"{self._sorted('m')} LIMIT {reach}"
        # Those granted are few, and the public ones have an index of their own.
        return (
            "SELECT m.* FROM ("  # noqa: S608  likewise
            f"(SELECT m.* FROM models m WHERE m.visibility = 'public' AND {last}"
            f" AND m.tenant_id <> {tenant} {ordered}) UNION ALL (SELECT m.* FROM model_grants g"
            " JOIN models m ON m.id = g.model_id AND m.tenant_id = g.tenant_id"
            f" WHERE g.grantee_id = {tenant} AND m.visibility = 'tenant' AND {last} {ordered})"
            f") m {ordered}"
        )

    @override
    def _fits(self, arguments: Arguments) -> list[str]:
        texts = said_of_model(self._wanted, "m", arguments)
        if is_about_versions(self._wanted):
            of_version = joined(said_of_version(self._wanted, arguments))
            texts.append(
                "EXISTS (SELECT FROM version_search s WHERE s.model_id = m.id"
                f" AND s.tenant_id = m.tenant_id AND {of_version})"
            )
        return texts

    @override
    def _sources(self, after: Position | None, most: int) -> Sequence[_Source]:
        wanted = self._wanted
        if wanted.is_shared or wanted.is_deleted:
            return []
        sources = []
        if is_about_versions(wanted):
            # A text may be in a description, which versions are not found by.
            by_version = VersionList(self._caller, replace(wanted, search=None), self._order)
            sources += [
                _Source(source.query, source.arguments, _KEYS_OF_MODELS)
                for source in by_version.sources(most, (EARLIEST, LATEST))
            ]
        arguments = Arguments()
        words = words_of(wanted, with_versions=False)
        if words is not None or wanted.search is not None:
            values = (words, wanted.search, *times_beyond(after, self._order), most)
            places = ", ".join(map(arguments.put, values))
            sources.append(_Source(f"SELECT * FROM registry_models({places})", arguments))  # noqa: S608  likewise
        return [*sources, *(self._by_tag(tag, most) for tag in wanted.tags)]

    def _by_tag(self, tag: str, most: int) -> _Source:
        arguments = Arguments()
        tenant, named = arguments.put(self._caller.tenant_id), arguments.put(tag)
        return _Source(
            "SELECT t.model_id AS id, m.created_at AS at FROM model_tags t"  # noqa: S608  likewise
            f" JOIN models m ON m.id = t.model_id WHERE t.tenant_id = {tenant}"
            f" AND t.tag = {named} LIMIT {most + 1}",
            arguments,
        )


def _positions(rows: Sequence[asyncpg.Record]) -> list[Position]:
    return [Position(at=row["at"], id=row["id"]) for row in rows]
