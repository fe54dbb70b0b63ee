"""Searches of the registry: keyset pages in the order of making, as `maas_app`.

What many rows have is found soonest among the first rows of the list; what few have, through an
index. Which of the two it is, nobody knows before; so both are tried in turn, each up to a number
of rows that grows, and a search costs about as much as the better way. How far the next look goes
is told by how long the last one took. After some time the page is given as it is, with a cursor
where the search stopped; and facets count what was found by then.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from maas.model.infrastructure.search_conditions import is_about_versions
from maas.model.infrastructure.search_lists import SearchedList
from maas.model.infrastructure.search_models import ModelList
from maas.model.infrastructure.search_versions import VersionList
from maas.model.public import ModelId
from maas.shared.domain.page import Page, PageRequest, Position
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database, PooledConnection

T = TypeVar("T")

FIRST_REACH: Final = 1_000
GROWTH: Final = 8
CANDIDATES: Final = 4
"""So many times as many are picked as looked through: about what costs the same."""

RARE: Final = 50
"""What fewer rows have than one in so many may be few altogether."""

PATIENCE: Final = timedelta(milliseconds=300)
"""How long a page of what no index answers is looked for, before it is given as it is."""

MOST_PICKED: Final = 32_000

FACETED: Final = 2_000
"""So many of the newest that are found are counted by their values."""

FACET_PATIENCE: Final = timedelta(milliseconds=50)
"""How long all of them are looked for, before those found so far are counted."""

FACET_MOST_PICKED: Final = 8_000
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
_ALL_MODELS: Final = "models"
_FACETS_OF_MODELS: Final = """
    SELECT facet, value, count(*) AS count FROM (
        SELECT f.facet, f.value FROM models m CROSS JOIN LATERAL (VALUES
            ('framework', m.framework), ('task', m.task), ('licence', m.licence)) f(facet, value)
        WHERE m.id = ANY ($1::uuid[]) AND f.value IS NOT NULL
        UNION ALL
        SELECT 'tag', t.tag FROM model_tags t WHERE t.model_id = ANY ($1::uuid[])) found
    GROUP BY facet, value
"""
_OF_VERSION: Final = """
    CROSS JOIN LATERAL (VALUES ('status', s.status), ('architecture', s.architecture),
        ('quantisation', s.quantisation)) f(facet, value)
"""
_FACETS_OF_VERSIONS: Final = f"""
    SELECT f.facet, f.value, count(*) AS count FROM version_search s {_OF_VERSION}
    WHERE s.version_id = ANY ($1::uuid[]) AND f.value IS NOT NULL GROUP BY f.facet, f.value
"""  # noqa: S608  likewise
# What is said of a model stands in the rows of its versions, too.
_FACETS_OF_BOTH: Final = f"""
    WITH s AS MATERIALIZED (SELECT * FROM version_search WHERE version_id = ANY ($1::uuid[])),
        m AS MATERIALIZED (SELECT DISTINCT ON (model_id) * FROM s)
    SELECT facet, value, count(*) AS count FROM (
        SELECT f.facet, f.value FROM s {_OF_VERSION}
        UNION ALL
        SELECT f.facet, f.value FROM m CROSS JOIN LATERAL (VALUES ('{_ALL_MODELS}', ''),
            ('framework', m.framework), ('task', m.task), ('licence', m.licence)) f(facet, value)
        UNION ALL
        SELECT 'tag', unnest(m.tags) FROM m) found
    WHERE value IS NOT NULL GROUP BY facet, value
"""  # noqa: S608  likewise


@dataclass(frozen=True, slots=True)
class _Found:
    """Ids in the order of the list, one more than asked for if there are more.

    `stopped` is where the search gave up, if it did.
    """

    rows: list[Position]
    stopped: Position | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """How far a search goes at first, and when it ends; an index gives it `most_picked` at most."""

    first_reach: int
    patience: float
    most_picked: int

    def halved(self) -> "_Pace":
        return replace(self, patience=self.patience / 2)


class PostgresRegistrySearch:
    """Reads as `maas_app`: the filter by tenant is doubled by row-level security."""

    def __init__(
        self,
        database: Database,
        *,
        first_reach: int = FIRST_REACH,
        patience: timedelta = PATIENCE,
        facet_patience: timedelta = FACET_PATIENCE,
    ) -> None:
        self._database = database
        self._pace = _Pace(
            first_reach=first_reach,
            patience=patience.total_seconds(),
            most_picked=MOST_PICKED,
        )
        self._facet_pace = replace(
            self._pace,
            patience=facet_patience.total_seconds(),
            most_picked=FACET_MOST_PICKED,
        )

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
                found = await _find(connection, listed, page.after, page.limit + 1, self._pace)
                rows = await connection.fetch(_SHOW_MODELS, _ids(found.rows[: page.limit]))
                by_id = {row["id"]: summary_of(row) for row in rows}
            total = await _count(connection, listed) if page.include_total else None
        return _page(found, by_id, page, total)

    async def find_versions(
        self, caller: Principal, wanted: RegistryFilter, page: PageRequest, order: Order
    ) -> Page[FoundVersion]:
        listed = VersionList(caller, wanted, order)
        async with self._database.tenant(caller.tenant_id) as connection:
            found = await _find(connection, listed, page.after, page.limit + 1, self._pace)
            rows = await connection.fetch(_SHOW_VERSIONS, _ids(found.rows[: page.limit]))
            total = await _count(connection, listed) if page.include_total else None
        return _page(found, {row["id"]: _version(row) for row in rows}, page, total)

    async def count_facets(self, caller: Principal, wanted: RegistryFilter) -> Facets:
        # Whoever wants versions wants their models. Only a text is looked for elsewhere in models.
        are_of_versions = is_about_versions(wanted) and wanted.search is None
        pace = self._facet_pace if are_of_versions else self._facet_pace.halved()
        async with self._database.tenant(caller.tenant_id) as connection:
            versions = VersionList(caller, wanted, "newest")
            of_versions = await _find(connection, versions, None, FACETED + 1, pace)
            version_ids = _ids(of_versions.rows[:FACETED])
            if are_of_versions:
                of_models = of_versions
                rows = await connection.fetch(_FACETS_OF_BOTH, version_ids)
                models = sum(row["count"] for row in rows if row["facet"] == _ALL_MODELS)
            else:
                listed = ModelList(caller, wanted, "newest")
                of_models = await _find(connection, listed, None, FACETED + 1, pace)
                model_ids = _ids(of_models.rows[:FACETED])
                models = len(model_ids)
                rows = [
                    *await connection.fetch(_FACETS_OF_MODELS, model_ids),
                    *await connection.fetch(_FACETS_OF_VERSIONS, version_ids),
                ]
        return Facets(
            models=models,
            are_models_complete=_is_complete(of_models),
            versions=len(version_ids),
            are_versions_complete=_is_complete(of_versions),
            counts=_counts([row for row in rows if row["facet"] != _ALL_MODELS]),
        )


async def _find(
    connection: PooledConnection,
    listed: SearchedList,
    after: Position | None,
    limit: int,
    pace: _Pace,
) -> _Found:
    await connection.execute(_PLAN)
    rows, reach, most, began = list[Position](), pace.first_reach, 0, time.monotonic()
    while True:
        asked, wanting = time.monotonic(), limit - len(rows)
        for lead in listed.leads:
            # Whatever it keeps to, a look finds all that fits as far as it goes.
            found = await listed.look_through(connection, after, reach, limit - len(rows), lead)
            rows += found.rows
            if len(rows) >= limit or found.edge is None:
                return _Found(rows)
            after = found.edge
        seconds, got = time.monotonic() - asked, wanting - (limit - len(rows))
        left = pace.patience - (time.monotonic() - began)
        # No index is asked where looks like this one soon find enough, or where it had too many.
        is_rare = RARE * got < reach and (limit - len(rows)) * seconds > got * left
        if is_rare and most < pace.most_picked:
            most = min(max(CANDIDATES * pace.first_reach, GROWTH * most), pace.most_picked)
            picked = await listed.pick(connection, after, most, limit - len(rows))
            if picked is not None:
                return _Found(rows + picked)
            left = pace.patience - (time.monotonic() - began)
        if left <= 0:
            return _Found(rows, stopped=after)
        growth = min(GROWTH, left / seconds)
        reach = max(pace.first_reach, min(int(reach * growth), listed.farthest))


async def _count(connection: PooledConnection, listed: SearchedList) -> int:
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
