"""Several writers of one model or version: the second sees what the first one did, and none dies.

A test that needs a certain order holds a lock itself, and looks until the other one waits for it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import pytest

from maas.model.application.aliases import AliasService
from maas.model.application.versions import NewVersion
from maas.model.domain.alias import AliasName, AliasNotFoundError
from maas.model.domain.blob import Digest
from maas.model.domain.facts import Facts
from maas.model.domain.metadata import Metadata, Metrics
from maas.model.domain.model import MAX_TAGS, Model, ModelNotFoundError, TooManyTagsError
from maas.model.domain.text import Label, Tag, VersionName
from maas.model.domain.version import ModelVersion
from maas.model.infrastructure.repositories import SqlModelUnitOfWork
from maas.shared.domain.errors import MaasError
from maas.shared.domain.principal import Principal
from tests.integration.model.conftest import Registry, acting_as
from tests.integration.model.test_persistence import NOON, make_model, make_version, save

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
First: TypeAlias = Callable[[SqlModelUnitOfWork], Awaitable[None]]
Then: TypeAlias = Coroutine[Any, Any, object]

WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'maas_app' AND wait_event_type = 'Lock'
"""


def anything(_: object) -> None:
    """Want nothing of what is there."""


@pytest.fixture
def aliases(registry: Registry) -> AliasService:
    return AliasService(unit_of_work=registry.make_unit_of_work)


@pytest.fixture
async def model(registry: Registry, principal: Principal) -> Model:
    model = make_model(principal)
    await save(registry, principal, model)
    return model


@pytest.fixture
async def version(registry: Registry, principal: Principal, model: Model) -> ModelVersion:
    return await add_version(registry, principal, model, "1.0.0")


async def add_version(
    registry: Registry, principal: Principal, model: Model, name: str
) -> ModelVersion:
    version = make_version(principal, model)
    version.name, version.status = VersionName(name), "ready"
    version.checksum = Digest(bytes(32))
    async with acting_as(principal), registry.make_unit_of_work() as uow:
        uow.versions.add(version)
        await uow.commit()
    return version


@dataclass(frozen=True)
class Turns:
    """Two writers, of whom the second waits in the database until the first has committed."""

    registry: Registry
    principal: Principal
    superuser: Superuser

    async def take(self, first: First, then: Then) -> None:
        is_done, may_commit = asyncio.Event(), asyncio.Event()

        async def write_first() -> None:
            async with acting_as(self.principal), self.registry.make_unit_of_work() as uow:
                await first(uow)
                is_done.set()
                await may_commit.wait()
                await uow.commit()

        async def write_then() -> None:
            async with acting_as(self.principal):
                await then

        writing_first = asyncio.create_task(write_first())
        await is_done.wait()
        writing_then = asyncio.create_task(write_then())
        while not await self.superuser.fetchval(WAITING):
            assert not writing_then.done()
            await asyncio.sleep(0.01)
        may_commit.set()
        await writing_first
        await writing_then


@pytest.fixture
def turns(registry: Registry, principal: Principal, superuser: Superuser) -> Turns:
    return Turns(registry, principal, superuser)


@pytest.mark.timeout(20)
class TestTheSecondSeesTheFirst:
    async def test_metadata_of_a_model_is_what_the_last_one_said(
        self, registry: Registry, principal: Principal, model: Model, turns: Turns
    ) -> None:
        async def say_one(uow: SqlModelUnitOfWork) -> None:
            found = await uow.models.get(model.id)
            found.revise(at=NOON, metadata=Metadata({"first": 1}))

        say_two = registry.models.revise(
            principal, model.id, check=anything, metadata=Metadata({"second": 2})
        )
        await turns.take(say_one, say_two)

        shown = await registry.queries.get_model(principal, model.id)
        assert shown.metadata == {"second": 2}

    async def test_metrics_and_metadata_of_a_version_are_what_the_last_one_said(
        self,
        registry: Registry,
        principal: Principal,
        model: Model,
        version: ModelVersion,
        turns: Turns,
    ) -> None:
        async def say_one(uow: SqlModelUnitOfWork) -> None:
            found = await uow.versions.get(model.id, version.name)
            found.revise(at=NOON, metrics=Metrics({"first": 1}), metadata=Metadata({"first": 1}))

        say_two = registry.versions.revise(
            model.id,
            version.name,
            check=anything,
            metrics=Metrics({"second": 2}),
            metadata=Metadata({"second": 2}),
        )
        await turns.take(say_one, say_two)

        shown = await registry.queries.get_version(principal, model.id, version.name)
        assert (shown.metrics, shown.metadata) == ({"second": 2.0}, {"second": 2})

    async def test_facts_of_a_version_are_those_kept_last(
        self, registry: Registry, model: Model, version: ModelVersion, turns: Turns
    ) -> None:
        facts = Facts(format="gguf", parameters=7)
        seen = []

        async def keep(uow: SqlModelUnitOfWork) -> None:
            await uow.versions.get(model.id, version.name)
            await uow.facts.put_version(version.id, facts)

        async def look() -> None:
            async with registry.make_unit_of_work() as uow:
                seen.append((await uow.versions.get(model.id, version.name)).facts)

        await turns.take(keep, look())

        assert seen == [facts]

    async def test_the_same_tag_twice_is_one_and_no_error(
        self, registry: Registry, principal: Principal, model: Model, turns: Turns
    ) -> None:
        async def tag(uow: SqlModelUnitOfWork) -> None:
            (await uow.models.get(model.id)).tag(Tag("same"), at=NOON)

        await turns.take(tag, registry.models.tag(model.id, Tag("same"), check=anything))

        shown = await registry.queries.get_model(principal, model.id)
        assert "same" in shown.tags

    async def test_no_more_tags_than_there_may_be(
        self, registry: Registry, model: Model, turns: Turns
    ) -> None:
        async def fill(uow: SqlModelUnitOfWork) -> None:
            found = await uow.models.get(model.id)
            for number in range(MAX_TAGS - len(found.tags)):
                found.tag(Tag(f"t{number}"), at=NOON)

        with pytest.raises(TooManyTagsError):
            await turns.take(fill, registry.models.tag(model.id, Tag("more"), check=anything))

    async def test_a_version_whose_model_goes_meanwhile_is_not_found(
        self,
        registry: Registry,
        model: Model,
        version: ModelVersion,
        turns: Turns,
    ) -> None:
        async def delete_model(uow: SqlModelUnitOfWork) -> None:
            (await uow.models.get(model.id)).delete(at=NOON)
            await uow.versions.get(model.id, version.name)

        with pytest.raises(ModelNotFoundError):
            await turns.take(
                delete_model,
                registry.versions.revise(
                    model.id, version.name, check=anything, metadata=Metadata({})
                ),
            )


@pytest.mark.timeout(30)
class TestNobodyDies:
    """A deadlock would be the database's error; whatever is refused is refused by a rule."""

    async def test_pointing_does_not_wait_for_who_holds_the_model(
        self,
        registry: Registry,
        aliases: AliasService,
        principal: Principal,
        model: Model,
        version: ModelVersion,
    ) -> None:
        """It adds a row that refers to the model, of which no key changes."""
        async with acting_as(principal), registry.make_unit_of_work() as uow:
            await uow.models.get(model.id)
            pointing = asyncio.create_task(
                self.point(aliases, principal, model, version, "new"), context=Context()
            )
            await asyncio.wait_for(pointing, timeout=5)

    async def test_pointing_and_deleting_an_alias_that_is_not_there_yet(
        self, aliases: AliasService, principal: Principal, model: Model, version: ModelVersion
    ) -> None:
        for turn in range(3):
            name = f"new-{turn}"
            calls = [self.point(aliases, principal, model, version, name) for _ in range(3)]
            calls += [self.unpoint(aliases, principal, model, name) for _ in range(3)]
            random.shuffle(calls)

            done = await asyncio.gather(*calls, return_exceptions=True)

            assert all(each is None or isinstance(each, AliasNotFoundError) for each in done)

    async def test_all_that_is_done_to_a_model_and_its_versions_at_once(
        self, registry: Registry, aliases: AliasService, principal: Principal, model: Model
    ) -> None:
        versions = [await add_version(registry, principal, model, name) for name in "123"]

        async def act(call: Then) -> None:
            async with acting_as(principal):
                await call

        for turn in range(2):
            calls = [
                self.point(aliases, principal, model, versions[place % 3], name)
                for place, name in enumerate(("p", "q", "p", f"new-{turn}"), start=turn)
            ]
            calls += [self.unpoint(aliases, principal, model, name) for name in "pq"]
            changes: list[Then] = [
                registry.models.tag(model.id, Tag(f"t{turn % 2}"), check=anything),
                registry.models.tag(model.id, Tag("x"), check=anything),
                registry.models.untag(model.id, Tag("x"), check=anything),
                registry.models.revise(
                    principal, model.id, check=anything, task=Label(f"task-{turn}")
                ),
                registry.models.delete(model.id, check=anything),
                registry.models.restore(model.id, check=anything),
                registry.versions.create(
                    principal, model.id, NewVersion(name=VersionName(f"n{turn}"), description=None)
                ),
                registry.versions.delete(model.id, VersionName(f"n{turn - 1}"), check=anything),
            ]
            changes += [
                registry.versions.move(
                    principal, model.id, version.name, status, reason=None, check=anything
                )
                for version in versions
                for status in ("deprecated", "ready")
            ]
            calls += [act(change) for change in changes]
            random.shuffle(calls)

            done = await asyncio.gather(*calls, return_exceptions=True)

            assert [each for each in done if not isinstance(each, MaasError | None)] == []
            async with acting_as(principal):
                await registry.models.restore(model.id, check=anything)

    async def point(
        self,
        aliases: AliasService,
        principal: Principal,
        model: Model,
        version: ModelVersion,
        name: str,
    ) -> None:
        async with acting_as(principal):
            await aliases.point(
                principal, model.id, AliasName(name), version.name, reason=None, check=anything
            )

    async def unpoint(
        self, aliases: AliasService, principal: Principal, model: Model, name: str
    ) -> None:
        async with acting_as(principal):
            await aliases.delete(principal, model.id, AliasName(name), check=anything)
