"""Aliases on the real database: a hundred moves at once, and every moment told afterwards."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from maas.model.application.aliases import AliasMoveDetails, AliasService
from maas.model.domain.alias import (
    AliasName,
    AliasNotFoundError,
    AliasNotThenError,
    TooManyAliasesError,
    VersionAliasedError,
    VersionNotReadyError,
)
from maas.model.domain.model import Model, ModelNotFoundError
from maas.model.domain.text import Tag, VersionName
from maas.model.infrastructure.alias_queries import PostgresAliasQueries
from maas.shared.domain.page import PageRequest, TextPageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from tests.integration.model.conftest import Registry, acting_as, make_principal
from tests.integration.model.test_persistence import make_model, make_version, save

pytestmark = pytest.mark.integration

MOVES = 100
VERSIONS = [str(number) for number in range(10)]
TICK = timedelta(microseconds=1)
PRODUCTION = AliasName("production")


def anything(_: object) -> None:
    """Want nothing of what is there."""


@pytest.fixture
def aliases(registry: Registry) -> AliasService:
    return AliasService(unit_of_work=registry.make_unit_of_work)


@pytest.fixture
def queries(registry: Registry) -> PostgresAliasQueries:
    return PostgresAliasQueries(registry.database)


@pytest.fixture
async def model(registry: Registry, principal: Principal) -> Model:
    model = make_model(principal)
    versions = [make_version(principal, model) for _ in VERSIONS]
    for version, name in zip(versions, VERSIONS, strict=True):
        version.name, version.status = VersionName(name), "ready"
    await save(registry, principal, model)
    async with acting_as(principal), registry.make_unit_of_work() as uow:
        for version in versions:
            uow.versions.add(version)
        await uow.commit()
    return model


async def point(aliases: AliasService, principal: Principal, model: Model, version: str) -> None:
    async with acting_as(principal):
        await aliases.point(
            principal, model.id, PRODUCTION, VersionName(version), reason=None, check=anything
        )


async def all_moves(
    queries: PostgresAliasQueries, principal: Principal, model: Model
) -> list[AliasMoveDetails]:
    """Read the whole history, oldest first, in pages of thirty."""
    moves: list[AliasMoveDetails] = []
    page = PageRequest(limit=30, include_total=True)
    while True:
        found = await queries.list_moves(principal, model.id, PRODUCTION, page)
        moves += found.items
        if found.next is None:
            assert found.total == len(moves)
            return moves[::-1]
        page = PageRequest(limit=30, after=found.next, include_total=True)


def follow_one_another(moves: Sequence[AliasMoveDetails]) -> bool:
    pairs = list(itertools.pairwise(moves))
    return (
        [move.sequence for move in moves] == list(range(1, len(moves) + 1))
        and all(one.at < two.at and one.version == two.previous_version for one, two in pairs)
        and all(move.version != move.previous_version for move in moves)
    )


class TestManyAtOnce:
    @pytest.mark.timeout(60)
    async def test_every_moment_has_one_answer(
        self,
        aliases: AliasService,
        queries: PostgresAliasQueries,
        principal: Principal,
        model: Model,
    ) -> None:
        wanted = [VERSIONS[number % len(VERSIONS)] for number in range(MOVES)]
        before = SystemClock().now()

        # As many as wait for one of the few connections, and none so long that it gives up.
        slots = asyncio.Semaphore(25)

        async def move(version: str) -> None:
            async with slots:
                await point(aliases, principal, model, version)

        await asyncio.gather(*(move(version) for version in wanted))

        moves = await all_moves(queries, principal, model)
        assert follow_one_another(moves)
        # What found the alias where it was to point was no move.
        assert len(VERSIONS) <= len(moves) <= MOVES
        assert {move.version for move in moves} == set(VERSIONS)
        assert moves[0].previous_version is None
        assert moves[0].at > before - timedelta(seconds=1)
        now = await queries.get_alias(principal, model.id, PRODUCTION)
        assert (now.version, now.sequence) == (moves[-1].version, len(moves))
        moments = [(move.at, move) for move in moves]
        moments += [(two.at - TICK, one) for one, two in itertools.pairwise(moves)]
        for at, then in moments[:: len(moments) // 20]:
            assert await queries.get_move_at(principal, model.id, PRODUCTION, at) == then
        with pytest.raises(AliasNotThenError):
            await queries.get_move_at(principal, model.id, PRODUCTION, moves[0].at - TICK)


class TestTooMany:
    async def test_of_many_at_once_no_more_than_allowed_are_added(
        self,
        aliases: AliasService,
        queries: PostgresAliasQueries,
        principal: Principal,
        model: Model,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("maas.model.application.aliases.MAX_ALIASES", 3)

        async def add(number: int) -> None:
            name, version = AliasName(f"a{number}"), VersionName(VERSIONS[number])
            async with acting_as(principal):
                await aliases.point(principal, model.id, name, version, reason=None, check=anything)

        done = await asyncio.gather(*map(add, range(8)), return_exceptions=True)

        assert sum(error is None for error in done) == 3
        assert sum(isinstance(error, TooManyAliasesError) for error in done) == 5
        listed = await queries.list_aliases(principal, model.id, TextPageRequest())
        assert len(listed.items) == 3
        # One that points somewhere moves on, and one that goes makes room.
        name = AliasName(listed.items[0].alias)
        async with acting_as(principal):
            await aliases.point(
                principal, model.id, name, VersionName("9"), reason=None, check=anything
            )
            await aliases.delete(principal, model.id, name, check=anything)
        await point(aliases, principal, model, "9")

    async def test_a_model_can_be_changed_however_many_it_has(
        self,
        registry: Registry,
        principal: Principal,
        model: Model,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        await superuser.execute(
            """
            UPDATE version_search SET aliases = ARRAY(
                SELECT lpad(number::text, 64, 'x') FROM generate_series(1, 20000) number)
            WHERE version = '1'
            """
        )

        async with acting_as(principal):
            await registry.models.tag(model.id, Tag("of-many"), check=anything)

        row = await superuser.fetchrow("SELECT tags FROM version_search WHERE version = '1'")
        assert row is not None
        assert "of-many" in row["tags"]


class TestDeleted:
    async def test_its_history_stays_and_goes_on(
        self,
        aliases: AliasService,
        queries: PostgresAliasQueries,
        principal: Principal,
        model: Model,
    ) -> None:
        await point(aliases, principal, model, "1")
        async with acting_as(principal):
            await aliases.delete(principal, model.id, PRODUCTION, check=anything)
        with pytest.raises(AliasNotFoundError):
            await queries.get_alias(principal, model.id, PRODUCTION)
        listed = await queries.list_aliases(principal, model.id, TextPageRequest())
        await point(aliases, principal, model, "2")

        moves = await all_moves(queries, principal, model)

        assert listed.items == []
        assert [move.version for move in moves] == ["1", None, "2"]
        assert [move.previous_version for move in moves] == [None, "1", None]

    async def test_one_that_never_was_has_no_history(
        self, aliases: AliasService, queries: PostgresAliasQueries, principal: Principal,
        model: Model,
    ) -> None:  # fmt: skip
        async with acting_as(principal):
            with pytest.raises(AliasNotFoundError):
                await aliases.delete(principal, model.id, PRODUCTION, check=anything)

        with pytest.raises(AliasNotFoundError):
            await queries.list_moves(principal, model.id, PRODUCTION, PageRequest())
        with pytest.raises(AliasNotFoundError):
            await queries.get_move_at(principal, model.id, PRODUCTION, SystemClock().now())


class TestVersions:
    async def test_one_that_is_pointed_at_is_not_archived(
        self, registry: Registry, aliases: AliasService, principal: Principal, model: Model
    ) -> None:
        await point(aliases, principal, model, "1")

        async def move(status: str) -> None:
            async with acting_as(principal):
                await registry.versions.move(
                    principal,
                    model.id,
                    VersionName("1"),
                    status,  # type: ignore[arg-type]  # one of them
                    reason=None,
                    check=anything,
                )

        await move("deprecated")
        with pytest.raises(VersionAliasedError, match="production"):
            await move("archived")
        await point(aliases, principal, model, "2")
        await move("archived")
        with pytest.raises(VersionNotReadyError):
            await point(aliases, principal, model, "1")

    async def test_of_archiving_and_pointing_at_once_one_wins(
        self, registry: Registry, aliases: AliasService, principal: Principal, model: Model
    ) -> None:
        async def archive(version: str) -> None:
            async with acting_as(principal):
                await registry.versions.move(
                    principal, model.id, VersionName(version), "archived", reason=None,
                    check=anything,
                )  # fmt: skip

        for version in VERSIONS[:5]:
            async with acting_as(principal):
                await registry.versions.move(
                    principal, model.id, VersionName(version), "deprecated", reason=None,
                    check=anything,
                )  # fmt: skip
            archived, pointed = await asyncio.gather(
                archive(version), point(aliases, principal, model, version), return_exceptions=True
            )

            assert (archived is None) != (pointed is None)

    async def test_the_database_keeps_one_that_is_pointed_at(
        self,
        aliases: AliasService,
        principal: Principal,
        model: Model,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        await point(aliases, principal, model, "1")

        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await superuser.execute("DELETE FROM model_versions WHERE name = '1'")


class TestTenants:
    TABLES = ("model_aliases", "model_alias_moves")

    @pytest.mark.parametrize("table", TABLES)
    async def test_a_stranger_sees_no_row(
        self,
        registry: Registry,
        aliases: AliasService,
        principal: Principal,
        model: Model,
        table: str,
    ) -> None:
        await point(aliases, principal, model, "1")

        async with registry.database.tenant(make_principal().tenant_id) as connection:
            foreign = await connection.fetchval(f"SELECT count(*) FROM {table}")
        async with registry.database.tenant(principal.tenant_id) as connection:
            own = await connection.fetchval(f"SELECT count(*) FROM {table}")

        assert (own, foreign) == (1, 0)

    async def test_a_stranger_finds_no_model(
        self, aliases: AliasService, queries: PostgresAliasQueries, model: Model
    ) -> None:
        stranger = make_principal()

        with pytest.raises(ModelNotFoundError):
            await point(aliases, stranger, model, "1")
        with pytest.raises(ModelNotFoundError):
            await queries.list_aliases(stranger, model.id, TextPageRequest())

    @pytest.mark.parametrize(
        "change", ["UPDATE model_alias_moves SET sequence = 9", "DELETE FROM model_alias_moves"]
    )
    async def test_nobody_who_serves_changes_what_happened(
        self, registry: Registry, principal: Principal, change: str
    ) -> None:
        async with acting_as(principal), registry.make_unit_of_work() as uow:
            with pytest.raises(DBAPIError, match="permission denied"):
                await uow.session.execute(text(change))
