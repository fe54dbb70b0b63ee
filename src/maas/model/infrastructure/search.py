"""Searches of the registry: keyset pages in the order of making, as `maas_app`.

What many rows have is found soonest among the first rows of the list; what few have, through an
index. Which of the two it is, nobody knows before; so both are tried in turn, each up to a number
of rows that grows, and a search costs about as much as the better way. After some time the page is
given as it is, with a cursor where the search stopped.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar, cast, get_args

import asyncpg

from maas.model.application.queries import ModelSummary
from maas.model.application.search import (
    Facet,
    FacetCount,
    Facets,
    FoundModel,
    FoundVersion,
    Order,
    RegistryFilter,
)
from maas.model.infrastructure.queries import (
    SUMMARY_COLUMNS,
    VERSION_COLUMNS,
    summary_of,
    version_of,
)
from maas.model.infrastructure.search_lists import (
    CANDIDATES,
    Listed,
    ModelList,
    VersionList,
)
from maas.model.public import ModelId
from maas.shared.domain.page import Page, PageRequest, Position
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database, PooledConnection

T = TypeVar("T")

FIRST_REACH: Final = 1_000
GROWTH: Final = 8
QUICK_SECONDS: Final = 0.03
"""A look that took longer is not followed by a longer one."""

PATIENCE: Final = timedelta(milliseconds=300)
"""How long a page of what no index answers is looked for, before it is given as it is."""

FACETED: Final = 2_000
"""So many of the newest that are found are counted by their values."""

FACET_VALUES: Final = 50
COUNTED: Final = 40_000
"""Up to so many are counted through an index."""

# Plans are made for the values at hand, and rows looked up one by one: there are few of them.
_PLAN: Final = """
    SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL jit = off
"""
_SHOW_MODELS: Final = f"SELECT {SUMMARY_COLUMNS} FROM models m WHERE m.id = ANY ($1::uuid[])"  # noqa: S608  no input in it
_SHOW_VERSIONS: Final = f"""
    SELECT {VERSION_COLUMNS}, m.name AS found_name, m.framework AS found_framework,
        m.task AS found_task, m.licence AS found_licence, m.visibility AS found_visibility,
        ARRAY(SELECT a.name FROM model_aliases a WHERE a.version_id = v.id ORDER BY 1) AS found_by
    FROM model_versions v JOIN models m ON m.id = v.model_id WHERE v.id = ANY ($1::uuid[])
"""  # noqa: S608  likewise
_FOUND: Final = ("name", "framework", "task", "licence", "visibility")
_FACETS_OF_MODELS: Final = """
    SELECT facet, value, count(*) AS count FROM (
        SELECT f.facet, f.value FROM models m CROSS JOIN LATERAL (VALUES
            ('framework', m.framework), ('task', m.task), ('licence', m.licence)) f(facet, value)
        WHERE m.id = ANY ($1::uuid[]) AND f.value IS NOT NULL
        UNION ALL
        SELECT 'tag', t.tag FROM model_tags t WHERE t.model_id = ANY ($1::uuid[])) found
    GROUP BY facet, value
"""
_FACETS_OF_VERSIONS: Final = """
    SELECT f.facet, f.value, count(*) AS count
    FROM version_search s CROSS JOIN LATERAL (VALUES ('status', s.status),
        ('architecture', s.architecture), ('quantisation', s.quantisation)) f(facet, value)
    WHERE s.version_id = ANY ($1::uuid[]) AND f.value IS NOT NULL GROUP BY f.facet, f.value
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """Ids in the order of the list, one more than asked for if there are more.

    `stopped` is where the search gave up, if it did.
    """

    rows: list[Position]
    stopped: Position | None = None


class PostgresRegistrySearch:
    """Reads as `maas_app`: the filter by tenant is doubled by row-level security."""

    def __init__(
        self,
        database: Database,
        *,
        first_reach: int = FIRST_REACH,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._database = database
        self._first_reach = first_reach
        self._patience = patience.total_seconds()

    async def find_models(
        self, caller: Principal, wanted: RegistryFilter, page: PageRequest, order: Order
    ) -> Page[ModelSummary]:
        listed = ModelList(caller, wanted, order)
        async with self._database.tenant(caller.tenant_id) as connection:
            if listed.is_whole:
                # The most frequent of all, in one statement.
                rows = await listed.show(connection, SUMMARY_COLUMNS, page.after, page.limit + 1)
                found = _Found([Position(row["created_at"], row["id"]) for row in rows])
                by_id = {row["id"]: summary_of(row) for row in rows}
            else:
                found = await self._find(connection, listed, page.after, page.limit + 1)
                rows = await connection.fetch(_SHOW_MODELS, _ids(found.rows[: page.limit]))
                by_id = {row["id"]: summary_of(row) for row in rows}
            total = await _count(connection, listed) if page.include_total else None
        return _page(found, by_id, page, total)

    async def find_versions(
        self, caller: Principal, wanted: RegistryFilter, page: PageRequest, order: Order
    ) -> Page[FoundVersion]:
        listed = VersionList(caller, wanted, order)
        async with self._database.tenant(caller.tenant_id) as connection:
            found = await self._find(connection, listed, page.after, page.limit + 1)
            rows = await connection.fetch(_SHOW_VERSIONS, _ids(found.rows[: page.limit]))
            total = await _count(connection, listed) if page.include_total else None
        return _page(found, {row["id"]: _version(row) for row in rows}, page, total)

    async def count_facets(self, caller: Principal, wanted: RegistryFilter) -> Facets:
        models = ModelList(caller, wanted, "newest")
        versions = VersionList(caller, wanted, "newest")
        async with self._database.tenant(caller.tenant_id) as connection:
            of_models = await self._find(connection, models, None, FACETED + 1)
            of_versions = await self._find(connection, versions, None, FACETED + 1)
            rows = [
                *await connection.fetch(_FACETS_OF_MODELS, _ids(of_models.rows[:FACETED])),
                *await connection.fetch(_FACETS_OF_VERSIONS, _ids(of_versions.rows[:FACETED])),
            ]
        return Facets(
            models=min(len(of_models.rows), FACETED),
            are_models_complete=_is_complete(of_models),
            versions=min(len(of_versions.rows), FACETED),
            are_versions_complete=_is_complete(of_versions),
            counts=_counts(rows),
        )

    async def _find(
        self, connection: PooledConnection, listed: Listed, after: Position | None, limit: int
    ) -> _Found:
        await connection.execute(_PLAN)
        rows, reach, began = list[Position](), self._first_reach, time.monotonic()
        while True:
            asked = time.monotonic()
            for lead in listed.leads:
                # Whatever it keeps to, a look finds all that fits as far as it goes.
                found = await listed.look_through(connection, after, reach, limit - len(rows), lead)
                rows += found.rows
                if len(rows) >= limit or found.edge is None:
                    return _Found(rows)
                after = found.edge
            is_quick = time.monotonic() - asked < QUICK_SECONDS
            picked = await listed.pick(connection, after, CANDIDATES * reach, limit - len(rows))
            if picked is not None:
                return _Found(rows + picked)
            if time.monotonic() - began > self._patience:
                return _Found(rows, stopped=after)
            if is_quick:
                reach = min(GROWTH * reach, max(reach, listed.farthest))


async def _count(connection: PooledConnection, listed: Listed) -> int:
    await connection.execute(_PLAN)
    picked = await listed.pick(connection, None, COUNTED, COUNTED)
    return await listed.count(connection) if picked is None else len(picked)


def _ids(rows: Sequence[Position]) -> list[object]:
    return [row.id for row in rows]


def _is_complete(found: _Found) -> bool:
    return found.stopped is None and len(found.rows) <= FACETED


def _page(
    found: _Found, by_id: Mapping[object, T], page: PageRequest, total: int | None
) -> Page[T]:
    """Show what is still there, and say where to go on."""
    shown = found.rows[: page.limit]
    more = shown[-1] if len(found.rows) > page.limit else found.stopped
    items = [by_id[row.id] for row in shown if row.id in by_id]
    return Page(items=items, next=more, total=total)


def _version(row: asyncpg.Record) -> FoundVersion:
    values = dict(row)
    of_model = {name: values.pop(f"found_{name}") for name in _FOUND}
    return FoundVersion(
        model=FoundModel(id=ModelId(row["model_id"]), **of_model),
        aliases=values.pop("found_by"),
        version=version_of(cast("asyncpg.Record", values)),
    )


def _counts(rows: Sequence[asyncpg.Record]) -> dict[Facet, list[FacetCount]]:
    counts: dict[Facet, list[FacetCount]] = {facet: [] for facet in get_args(Facet)}
    for row in sorted(rows, key=lambda row: (-row["count"], row["value"])):
        of_facet = counts[row["facet"]]
        if len(of_facet) < FACET_VALUES:
            of_facet.append(FacetCount(value=row["value"], count=row["count"]))
    return counts
