"""The lists of models, as they are searched: by what is said of them, and of their versions."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

import asyncpg
from typing_extensions import override

from maas.model.application.search import Order, RegistryFilter
from maas.model.infrastructure.search_conditions import (
    EARLIEST,
    LATEST,
    Arguments,
    Range,
    beyond,
    is_about_versions,
    joined,
    models_beyond,
    said_of_model,
    said_of_version,
    seen_by,
    times_beyond,
    words_of,
)
from maas.model.infrastructure.search_lists import (
    LookedThrough,
    SearchedList,
    Source,
    positions,
)
from maas.model.infrastructure.search_versions import VersionList
from maas.shared.domain.page import Position
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import PooledConnection

# These have an index each of versions in the order of their models.
_LEADS: Final = ("architecture", "quantisation", "status")
_KEYS_OF_MODELS: Final = "SELECT DISTINCT c.model_id AS id, c.model_at AS at FROM c"


class ModelList(SearchedList):
    """The tenant's models: those that are not deleted, or those that are; or what others share."""

    table, row, row_id = "models m", "m", "id"

    def __init__(self, caller: Principal, wanted: RegistryFilter, order: Order) -> None:
        super().__init__(caller, wanted, order)
        if is_about_versions(wanted) and not self._leads_of_versions:
            # Of each model all versions may have to be looked at.
            self.farthest = 1_000

    @property
    def _is_own(self) -> bool:
        return not (self._wanted.is_shared or self._wanted.is_deleted)

    @property
    def _leads_of_versions(self) -> list[str]:
        said = [lead for lead in _LEADS if getattr(self._wanted, lead) is not None]
        return said if self._is_own else []

    @property
    @override
    def leads(self) -> Sequence[str | None]:
        # Names are unique, and indexed, among a tenant's own that are not deleted.
        if self._wanted.name is not None and self._is_own:
            return ("name",)
        return self._leads_of_versions or (None,)

    @override
    async def look_through(
        self,
        connection: PooledConnection,
        after: Position | None,
        reach: int,
        limit: int,
        lead: str | None,
    ) -> LookedThrough:
        if lead not in _LEADS:
            return await super().look_through(connection, after, reach, limit, lead)
        arguments = Arguments()
        rows = self._versions(after, reach, arguments, lead)
        models = (
            f"SELECT DISTINCT s.model_created_at AS at, s.model_id AS id FROM ({rows}) s"  # noqa: S608  fixed words, no input
            f" WHERE {joined(self._has_version(arguments))}"
        )
        query = (
            f"SELECT k.at, k.id FROM ({models}) k {self._having_text(arguments)}"  # noqa: S608  likewise
            f" ORDER BY k.at {self._direction}, k.id {self._direction} LIMIT {limit}"
        )
        found = positions(await connection.fetch(query, *arguments.values))
        if len(found) == limit:
            return LookedThrough(found, found[-1])
        edge = await self._last_model(connection, after, reach, lead)
        if edge is not None and edge not in found[-1:] and await self._fits_it(connection, edge):
            found.append(edge)
        return LookedThrough(found, edge)

    def _versions(self, after: Position | None, reach: int, arguments: Arguments, lead: str) -> str:
        """Read so many versions that have what leads, in the order of their models."""
        conditions = [
            f"s.tenant_id = {arguments.put(self._caller.tenant_id)}",
            "s.is_live",
            f"s.{lead} = {arguments.put(getattr(self._wanted, lead))}",
            *models_beyond(after, self._order, arguments),
        ]
        return (
            f"SELECT s.* FROM version_search s WHERE {joined(conditions)} ORDER BY"  # noqa: S608  likewise
            f" s.model_created_at {self._direction}, s.model_id {self._direction} LIMIT {reach}"
        )

    def _has_version(self, arguments: Arguments) -> list[str]:
        """Spell what is wanted but the text, of a version and the model it is of."""
        return [
            *seen_by(self._caller, "s", arguments),
            *said_of_model(replace(self._wanted, search=None), "s", arguments),
            *said_of_version(self._wanted, arguments),
        ]

    def _having_text(self, arguments: Arguments) -> str:
        """Look for the text in the models themselves: versions have no description."""
        if self._wanted.search is None:
            return ""
        text = said_of_model(RegistryFilter(search=self._wanted.search), "m", arguments)
        return f"JOIN models m ON m.id = k.id WHERE {joined(text)}"

    async def _last_model(
        self, connection: PooledConnection, after: Position | None, reach: int, lead: str
    ) -> Position | None:
        arguments = Arguments()
        rows = self._versions(after, reach, arguments, lead)
        row = await connection.fetchrow(
            f"SELECT s.model_created_at AS at, s.model_id AS id FROM ({rows}) s ORDER BY"  # noqa: S608  likewise
            f" s.model_created_at {self._direction}, s.model_id {self._direction}"
            f" OFFSET {reach - 1} LIMIT 1",
            *arguments.values,
        )
        return None if row is None else Position(row["at"], row["id"])

    async def _fits_it(self, connection: PooledConnection, edge: Position) -> bool:
        """Tell whether the model fits whose versions were not all read."""
        arguments = Arguments()
        conditions = [
            f"m.id = {arguments.put(edge.id)}", *self._base(arguments), *self._fits(arguments)
        ]  # fmt: skip
        row = await connection.fetchrow(
            f"SELECT FROM models m WHERE {joined(conditions)}",
            *arguments.values,
        )
        return row is not None

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
                " AND s.tenant_id = m.tenant_id AND s.model_created_at = m.created_at"
                f" AND {of_version})"
            )
        return texts

    @override
    def _sources(
        self, after: Position | None, most: int, ranges: Sequence[Range]
    ) -> Sequence[Source]:
        wanted = self._wanted
        if not self._is_own:
            return []
        sources = [self._by_tag(tag, most) for tag in wanted.tags]
        times = times_beyond(after, self._order)
        if is_about_versions(wanted):
            # A text may be in a description, which versions are not found by.
            by_version = VersionList(self._caller, replace(wanted, search=None), self._order)
            sources += [
                Source(source.query, source.arguments, _KEYS_OF_MODELS)
                for source in by_version.sources(most, (EARLIEST, LATEST), ranges)
            ]
            if wanted.search is not None:
                return [*sources, self._by_name_or_description(times, most, ranges)]
        arguments = Arguments()
        words = words_of(wanted)
        if words is not None or wanted.search is not None:
            places = ", ".join(map(arguments.put, (words, wanted.search, *times, most)))
            sources.append(Source(f"SELECT * FROM registry_models({places})", arguments))  # noqa: S608  likewise
        return sources

    def _by_name_or_description(
        self, times: tuple[datetime, datetime], most: int, ranges: Sequence[Range]
    ) -> Source:
        arguments, text = Arguments(), self._wanted.search
        named = (words_of(self._wanted, ranges), text, EARLIEST, LATEST, most)
        described = (words_of(self._wanted), text, *times, most)
        of_names, of_descriptions = (
            ", ".join(map(arguments.put, values)) for values in (named, described)
        )
        return Source(
            f"SELECT v.model_id, v.model_at FROM registry_versions({of_names}) v"  # noqa: S608  likewise
            f" UNION ALL SELECT d.id, d.at FROM registry_described({of_descriptions}) d",
            arguments,
            _KEYS_OF_MODELS,
        )

    def _by_tag(self, tag: str, most: int) -> Source:
        arguments = Arguments()
        tenant, named = arguments.put(self._caller.tenant_id), arguments.put(tag)
        return Source(
            "SELECT t.model_id AS id, m.created_at AS at FROM model_tags t"  # noqa: S608  likewise
            f" JOIN models m ON m.id = t.model_id WHERE t.tenant_id = {tenant}"
            f" AND t.tag = {named} LIMIT {most + 1}",
            arguments,
        )
