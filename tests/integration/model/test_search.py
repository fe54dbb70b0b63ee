"""Searches of the registry: what is found is what fits, whichever way it was found."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from maas.model.application.search import Order, RegistryFilter
from maas.model.infrastructure.search import CANDIDATES, PostgresRegistrySearch
from maas.shared.domain.ids import new_id
from maas.shared.domain.page import PageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from tests.integration.model.conftest import make_principal
from tests.integration.model.searching import (
    ALL_MODELS,
    INSERT_MODEL,
    INSERT_VERSION,
    OF_VERSIONS,
    Row,
    fill,
    fits,
    in_order,
    is_seen,
    questions,
    read_all,
    without_manage,
)

pytestmark = pytest.mark.integration

# Whatever the triggers did must be what a row made anew would have.
STRAY = """
    SELECT s.version_id FROM version_search s FULL JOIN (
        SELECT v.*, m.created_at AS model_created_at, m.deleted_at IS NULL AS is_live,
            m.name AS model_name, m.framework, m.task, m.licence, m.visibility, m.owner_id,
            f.architecture, f.quantisation, f.dtype, f.parameters, f.context_length,
            ARRAY(SELECT tag FROM model_tags t WHERE t.model_id = m.id ORDER BY 1) AS tags,
            ARRAY(SELECT a.name FROM model_aliases a
                  WHERE a.version_id = v.id ORDER BY 1) AS aliases
        FROM model_versions v JOIN models m ON m.id = v.model_id
        LEFT JOIN version_facts f ON f.version_id = v.id
    ) w ON w.id = s.version_id
    WHERE (s.tenant_id, s.model_id, s.created_at, s.model_created_at, s.is_live, s.model_name,
           s.framework, s.task, s.licence, s.visibility, s.owner_id, s.version, s.status, s.size,
           s.architecture, s.quantisation, s.dtype, s.parameters, s.context_length,
           ARRAY(SELECT unnest(s.tags) ORDER BY 1), ARRAY(SELECT unnest(s.aliases) ORDER BY 1))
        IS DISTINCT FROM
          (w.tenant_id, w.model_id, w.created_at, w.model_created_at, w.is_live, w.model_name,
           w.framework, w.task, w.licence, w.visibility, w.owner_id, w.name, w.status, w.size,
           w.architecture, w.quantisation, w.dtype, w.parameters, w.context_length,
           w.tags, w.aliases)
"""


@pytest.fixture
def search(database: Database) -> PostgresRegistrySearch:
    """Search with so short a reach that both ways are gone, several times."""
    for_long = timedelta(minutes=1)
    return PostgresRegistrySearch(
        database, first_reach=5, patience=for_long, facet_patience=for_long
    )


class TestFound:
    @pytest.mark.timeout(120)
    async def test_is_what_fits_in_every_way(
        self,
        search: PostgresRegistrySearch,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        rows = await fill(superuser, principal)
        await fill(superuser, make_principal(), models=8)
        models = [dict(row) for row in await superuser.fetch(ALL_MODELS, principal.tenant_id)]
        callers = (principal, without_manage(principal))
        orders: tuple[Order, ...] = ("newest", "oldest")
        for number, wanted in enumerate(questions(principal)):
            caller, order = callers[number % 2], orders[number // 2 % 2]
            of_model = replace(wanted, **dict.fromkeys(OF_VERSIONS))  # type: ignore[arg-type]  # all may be none
            of_version = RegistryFilter(**{name: getattr(wanted, name) for name in OF_VERSIONS})

            found = await read_all(partial(search.find_versions, caller, wanted, order=order))
            with_models = await read_all(partial(search.find_models, caller, wanted, order=order))

            expected = in_order(
                [
                    (row["created_at"], row["id"])
                    for row in rows
                    if is_seen(row, caller) and fits(row, wanted, texts=("name", "version"))
                ],
                order,
            )
            assert [item.version.id for item in found] == expected, wanted
            having = {row["model_id"] for row in rows if fits(row, of_version, texts=())}
            expected_models = in_order(
                [
                    (row["created_at"], row["id"])
                    for row in models
                    if is_seen(row, caller)
                    and fits(row, of_model, texts=("name", "description"))
                    and (of_version == RegistryFilter() or row["id"] in having)
                ],
                order,
            )
            assert [item.id for item in with_models] == expected_models, wanted


class TestKept:
    CHANGES = (
        "UPDATE models SET name = name || 'x', task = 'new' WHERE framework = 'onnx'",
        "UPDATE models SET deleted_at = now() WHERE licence = 'MIT'",
        "UPDATE models SET deleted_at = NULL WHERE deleted_at IS NOT NULL AND framework = 'gguf'",
        "DELETE FROM model_tags WHERE tag = 'nightly'",
        "UPDATE model_versions SET status = 'archived', size = size + 1 WHERE status = 'ready'",
        "UPDATE version_facts SET architecture = 'qwen', parameters = 7 WHERE dtype = 'F16'",
        "DELETE FROM version_facts WHERE quantisation = 'F16'",
        """UPDATE model_aliases SET version_id = (SELECT v.id FROM model_versions v
            WHERE v.model_id = model_aliases.model_id ORDER BY v.id DESC LIMIT 1)""",
        "UPDATE model_aliases SET version_id = NULL WHERE name = 'a1'",
        """DELETE FROM model_versions v WHERE status = 'failed' AND NOT EXISTS
            (SELECT FROM model_aliases a WHERE a.version_id = v.id)""",
    )

    async def test_rows_follow_whatever_changes(
        self, superuser: "asyncpg.Connection[asyncpg.Record]", principal: Principal
    ) -> None:
        await fill(superuser, principal, models=30)

        for change in ("SELECT 1", *self.CHANGES):
            await superuser.execute(change)

            assert await superuser.fetch(STRAY) == [], change


class TestFacets:
    async def test_count_what_is_found(
        self,
        search: PostgresRegistrySearch,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        rows = await fill(superuser, principal, models=40)
        await fill(superuser, make_principal(), models=10)
        wanted = RegistryFilter(framework="gguf", status="ready")

        facets = await search.count_facets(principal, wanted)

        fitting = [
            row for row in rows
            if is_seen(row, principal) and fits(row, wanted, texts=())
        ]  # fmt: skip
        models = {row["model_id"]: row for row in fitting}
        assert (facets.versions, facets.models) == (len(fitting), len(models))
        assert (facets.are_versions_complete, facets.are_models_complete) == (True, True)
        assert _plain(facets.counts["framework"]) == {"gguf": len(models)}
        assert _plain(facets.counts["status"]) == {"ready": len(fitting)}
        assert _plain(facets.counts["architecture"]) == _counted(fitting, "architecture")
        assert _plain(facets.counts["licence"]) == _counted(models.values(), "licence")
        assert _plain(facets.counts["tag"]) == dict(
            Counter(tag for row in models.values() for tag in row["tags"])
        )

    async def test_count_no_more_than_there_is_time_for_and_say_so(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        await fill(superuser, principal, models=25)
        hasty = PostgresRegistrySearch(database, first_reach=2, facet_patience=timedelta(0))

        of_all = await hasty.count_facets(principal, RegistryFilter())
        of_versions = await hasty.count_facets(principal, RegistryFilter(min_size=0))

        assert (of_all.versions, of_all.models, of_versions.versions) == (2, 2, 2)
        assert of_versions.models == sum(_plain(of_versions.counts["framework"]).values()) > 0
        for facets in (of_all, of_versions):
            assert not facets.are_versions_complete
            assert not facets.are_models_complete
            assert sum(_plain(facets.counts["status"]).values()) == 2


class TestLists:
    async def test_deleted_and_shared_models_are_lists_of_their_own(
        self,
        search: PostgresRegistrySearch,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        neighbour = make_principal()
        own = await fill(superuser, principal, models=30)
        foreign = await fill(superuser, neighbour, models=30)
        deleted = {row["model_id"] for row in own if row["deleted_at"] is not None}
        granted = next(r for r in foreign if r["visibility"] == "tenant" and not r["deleted_at"])
        hidden = next(r for r in foreign if r["visibility"] == "private" and not r["deleted_at"])
        for row in (granted, hidden):
            await superuser.execute(
                "INSERT INTO model_grants (model_id, tenant_id, grantee_id, created_by, created_at)"
                " VALUES ($1, $2, $3, $3, now())",
                row["model_id"], neighbour.tenant_id, principal.tenant_id,
            )  # fmt: skip

        async def find(wanted: RegistryFilter) -> list[Any]:
            return await read_all(partial(search.find_models, principal, wanted, order="newest"))

        shared = {model.id for model in await find(RegistryFilter(is_shared=True))}
        assert deleted <= {model.id for model in await find(RegistryFilter(is_deleted=True))}
        assert all(
            model.deleted_at is not None for model in await find(RegistryFilter(is_deleted=True))
        )
        assert granted["model_id"] in shared
        assert hidden["model_id"] not in shared
        assert {row["model_id"] for row in foreign if row["model_id"] in shared} == {
            row["model_id"] for row in foreign
            if not row["deleted_at"]
            and (row["visibility"] == "public" or row["model_id"] == granted["model_id"])
        }  # fmt: skip

    async def test_names_of_others_are_found_among_what_they_share(
        self,
        search: PostgresRegistrySearch,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        neighbours = [make_principal() for _ in range(2)]
        name = f"llama-{neighbours[0].tenant_id}"
        for neighbour in neighbours:
            await fill(superuser, neighbour, models=8)
        rows = await superuser.fetch(
            "UPDATE models SET name = $2, visibility = 'public', deleted_at = NULL WHERE id IN"
            " (SELECT max(id::text)::uuid FROM models WHERE tenant_id = ANY ($1)"
            " GROUP BY tenant_id)"
            " RETURNING id",
            [neighbour.tenant_id for neighbour in neighbours],
            name,
        )

        async def find(wanted: RegistryFilter) -> list[Any]:
            return await read_all(partial(search.find_models, principal, wanted, order="newest"))

        shared = await find(RegistryFilter(is_shared=True, name=name))
        assert {model.id for model in shared} == {row["id"] for row in rows}
        assert len(shared) == len(neighbours)
        assert await find(RegistryFilter(name=name)) == []

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    async def test_a_name_is_found_without_a_look_at_others(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
        order: Order,
    ) -> None:
        await fill(superuser, principal, models=25)
        rows = await superuser.fetch(
            "UPDATE models SET visibility = 'tenant', deleted_at = NULL WHERE tenant_id = $1"
            " RETURNING name",
            principal.tenant_id,
        )
        names = [row["name"] for row in rows]
        hasty = PostgresRegistrySearch(database, first_reach=2, patience=timedelta(0))

        for name in (*names, "nowhere", names[0].upper(), names[0][:-1]):
            page = await hasty.find_models(
                principal, RegistryFilter(name=name), PageRequest(limit=2), order
            )

            assert [model.name for model in page.items] == [name] * (name in names)
            assert page.next is None

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    async def test_models_are_found_by_what_only_some_versions_have_without_a_look_at_others(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
        order: Order,
    ) -> None:
        rows = await fill(superuser, principal, models=25)
        models = in_order([(r["model_created_at"], r["model_id"]) for r in rows], order)
        far = set(models[len(models) // 2 :])
        archived = [
            (r["model_created_at"], r["model_id"])
            for r in rows
            if r["model_id"] in far and is_seen(r, principal)
        ]
        await superuser.execute(
            "UPDATE model_versions SET status = 'archived' WHERE model_id = ANY ($1)", far
        )
        hasty = PostgresRegistrySearch(database, first_reach=1, patience=timedelta(0))
        wanted = RegistryFilter(status="archived")

        page = await hasty.find_models(principal, wanted, PageRequest(limit=1), order)

        assert len(archived) > CANDIDATES
        assert [model.id for model in page.items] == in_order(archived, order)[:1]

    async def test_a_model_is_found_by_whichever_of_its_versions_fits(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        model, sizes = new_id(), range(1, 7)
        await superuser.execute(
            INSERT_MODEL, model, principal.tenant_id, f"many-{model}", "Answers", "gguf", None,
            None, "tenant", principal.account_id, None,
        )  # fmt: skip
        for size in sizes:
            await superuser.execute(
                INSERT_VERSION, new_id(), principal.tenant_id, model, str(size), size,
                principal.account_id,
            )  # fmt: skip
        hasty = PostgresRegistrySearch(database, first_reach=2, patience=timedelta(0))

        for text, size in product((None, "ANSWER", "many"), sizes):
            wanted = RegistryFilter(status="pending", min_size=size, max_size=size, search=text)
            page = await hasty.find_models(principal, wanted, PageRequest(), "newest")

            assert [found.id for found in page.items] == [model]

    async def test_a_text_of_a_description_is_looked_up_together_with_what_versions_have(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        neighbour, models = make_principal(), list[UUID]()
        for each in (principal, neighbour):
            rows = await fill(superuser, each, models=20)
            ready = [row for row in rows if row["status"] == "ready" and is_seen(row, each)]
            models.append(ready[0]["model_id"])
        await superuser.execute(
            "UPDATE models SET description = 'Sees what no other sees', visibility = 'tenant'"
            " WHERE id = ANY ($1)",
            models,
        )
        hasty = PostgresRegistrySearch(database, first_reach=1, patience=timedelta(0))
        wanted = RegistryFilter(search="WHAT NO", status="ready")
        described = (
            "SELECT id FROM registry_described($1, 'what no', '1970-01-01', '2200-01-01', 9)"
        )

        async with database.tenant(neighbour.tenant_id) as connection:
            of_neighbour = await connection.fetch(described, "!'x'")
            of_framework = await connection.fetch(described, "'framework=none'")
        page = await hasty.find_models(neighbour, wanted, PageRequest(), "newest")

        assert [row["id"] for row in of_neighbour] == models[1:]
        assert of_framework == []
        assert [found.id for found in page.items] == models[1:]

    async def test_what_takes_too_long_is_gone_on_with(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        rows = await fill(superuser, principal, models=25)
        hasty = PostgresRegistrySearch(database, first_reach=1, patience=timedelta(0))
        wanted = RegistryFilter(search="a")

        found: list[UUID] = []
        after, pages = None, 0
        while True:
            page = await hasty.find_versions(
                principal, wanted, PageRequest(limit=50, after=after), "newest"
            )
            found += [item.version.id for item in page.items]
            after, pages = page.next, pages + 1
            if after is None:
                break

        fitting = [
            row["id"] for row in rows
            if is_seen(row, principal) and fits(row, wanted, texts=("name", "version"))
        ]  # fmt: skip
        assert sorted(found) == sorted(fitting)
        assert pages > 2


class TestTenants:
    """What the owner's functions look up is the tenant's at hand, whoever asks for what."""

    FUNCTIONS = ("registry_models", "registry_versions")
    CALL = "SELECT id FROM {}({}, {}, '1970-01-01', '2200-01-01', 1000)"

    @pytest.mark.parametrize("function", FUNCTIONS)
    async def test_show_a_stranger_nothing(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
        function: str,
    ) -> None:
        await fill(superuser, principal, models=8)
        words = ("NULL", "'!''x'''", "'''framework=gguf'' | ''framework=onnx'' | !''x'''")
        calls = [self.CALL.format(function, *each) for each in product(words, ("NULL", "'a'"))]

        async with database.tenant(make_principal().tenant_id) as connection:
            foreign = [await connection.fetch(call) for call in calls]
        async with database.tenant(principal.tenant_id) as connection:
            own = [await connection.fetch(call) for call in calls]

        assert foreign == [[]] * len(calls)
        assert all(own)

    @pytest.mark.parametrize("function", FUNCTIONS)
    async def test_take_no_words_that_are_cut_off(
        self, database: Database, principal: Principal, function: str
    ) -> None:
        async with database.tenant(principal.tenant_id) as connection:
            with pytest.raises(asyncpg.PostgresSyntaxError):
                await connection.fetch(self.CALL.format(function, "'''x'' | '", "NULL"))

    @pytest.mark.parametrize("function", FUNCTIONS)
    async def test_want_a_tenant(self, database: Database, function: str) -> None:
        with pytest.raises(asyncpg.PostgresError):
            await database.fetchrow(self.CALL.format(function, "NULL", "NULL"))

    async def test_a_stranger_sees_no_row(
        self,
        database: Database,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        principal: Principal,
    ) -> None:
        await fill(superuser, principal, models=10)
        await superuser.execute("UPDATE models SET visibility = 'tenant'")

        async with database.tenant(make_principal().tenant_id) as connection:
            foreign = await connection.fetchval("SELECT count(*) FROM version_search")
        async with database.tenant(principal.tenant_id) as connection:
            own = await connection.fetchval("SELECT count(*) FROM version_search")

        assert foreign == 0
        assert own > 0


def _plain(counts: Sequence[Any]) -> dict[str, int]:
    return {count.value: count.count for count in counts}


def _counted(rows: Iterable[Row], name: str) -> dict[str, int]:
    return dict(Counter(row[name] for row in rows if row[name] is not None))
