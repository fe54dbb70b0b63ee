"""The registry's rows: every field kept, one name each, nothing for strangers."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from maas.model.application.models import NewModel
from maas.model.application.queries import ModelDetails, VersionDetails
from maas.model.application.search import RegistryFilter
from maas.model.application.versions import NewVersion
from maas.model.domain.blob import Blob, Digest, Part
from maas.model.domain.file import FilePath
from maas.model.domain.model import Model, ModelNameTakenError, ModelNotFoundError
from maas.model.domain.text import (
    Description,
    Label,
    ModelCard,
    ModelName,
    Reason,
    SourceUrl,
    Tag,
    VersionName,
)
from maas.model.domain.version import ModelVersion, VersionTakenError
from maas.model.infrastructure.search import PostgresRegistrySearch
from maas.model.public import ModelId, VersionId
from maas.shared.domain.ids import new_id
from maas.shared.domain.page import PageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from tests.integration.model.conftest import Registry, acting_as, make_principal

pytestmark = pytest.mark.integration

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)


def make_model(principal: Principal, name: str = "org/name:tag") -> Model:
    return Model(
        id=ModelId(new_id()),
        tenant_id=principal.tenant_id,
        name=ModelName(name),
        description=Description("一行\n两行"),
        framework="safetensors",
        task=Label("text-generation"),
        licence=Label("Apache-2.0"),
        card=ModelCard("# Card\n\nOf a model."),
        visibility="private",
        owner_id=principal.account_id,
        tags={Tag("chat"), Tag("客户")},
        metadata={"text": "a", "whole": 2**62, "part": 0.1, "yes": True, "one": 1},
        created_by=principal.account_id,
        created_at=NOON,
        updated_at=NOON,
        revision=7,
    )


def make_version(principal: Principal, model: Model) -> ModelVersion:
    return ModelVersion(
        id=VersionId(new_id()),
        tenant_id=principal.tenant_id,
        model_id=model.id,
        name=VersionName("1.0.0"),
        status="uploading",
        status_reason=Reason("because"),
        description=Description("first"),
        source_kind="imported-from",
        source_url=SourceUrl("https://example.com/a"),
        metrics={"accuracy": 0.91, "loss": 2.0},
        metadata={"epochs": 3},
        created_by=principal.account_id,
        created_at=NOON,
        updated_at=NOON,
        revision=3,
    )


def make_blob(content: int = 1) -> Blob:
    part = Part(key=f"parts/x/{content}", size=5, sha256=Digest(bytes([content]) * 32))
    return Blob(sha256=Digest(bytes([content]) * 32), size=5, parts=(part,))


async def save(registry: Registry, principal: Principal, *things: Model) -> None:
    async with acting_as(principal), registry.make_unit_of_work() as uow:
        for thing in things:
            uow.models.add(thing)
        await uow.commit()


def fields_of(thing: object) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(thing).items()
        if not name.startswith("_sa_") and name != "files"
    }


class TestRoundTrip:
    async def test_a_model_keeps_every_field(
        self, registry: Registry, principal: Principal
    ) -> None:
        model = make_model(principal)
        await save(registry, principal, model)

        async with acting_as(principal), registry.make_unit_of_work() as uow:
            loaded = await uow.models.get(model.id)

        assert loaded is not model
        assert fields_of(loaded) == fields_of(model)
        shown = await registry.queries.get_model(principal, model.id)
        assert shown == ModelDetails.of(model)

    async def test_a_version_keeps_every_field_and_file(
        self, registry: Registry, principal: Principal
    ) -> None:
        model = make_model(principal)
        version = make_version(principal, model)
        await save(registry, principal, model)
        async with acting_as(principal), registry.make_unit_of_work() as uow:
            await uow.blobs.keep(make_blob(), at=NOON)
            version.put_file(
                FilePath("a/b"),
                make_blob(),
                media_type="text/plain",
                by=principal.account_id,
                at=NOON,
            )
            uow.versions.add(version)
            await uow.commit()

        async with acting_as(principal), registry.make_unit_of_work() as uow:
            loaded = await uow.versions.get(model.id, version.name)

        assert loaded is not version
        assert fields_of(loaded) == fields_of(version)
        (path,) = loaded.files
        assert path == FilePath("a/b")
        assert fields_of(loaded.files[path]) == fields_of(version.files[path])
        shown = await registry.queries.get_version(principal, model.id, version.name)
        assert shown == VersionDetails.of(version)
        stored = await registry.queries.get_file(principal, model.id, version.name, path)
        assert stored.blob == make_blob()

    async def test_deleting_a_version_deletes_its_files_and_no_blob(
        self,
        registry: Registry,
        principal: Principal,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        model = make_model(principal)
        version = make_version(principal, model)
        await save(registry, principal, model)
        async with acting_as(principal), registry.make_unit_of_work() as uow:
            await uow.blobs.keep(make_blob(), at=NOON)
            version.put_file(
                FilePath("a"), make_blob(), media_type="a/b", by=principal.account_id, at=NOON
            )
            uow.versions.add(version)
            await uow.commit()

        async with acting_as(principal):
            await registry.versions.delete(model.id, version.name, check=lambda _: None)

        assert await superuser.fetchval("SELECT count(*) FROM model_versions") == 0
        assert await superuser.fetchval("SELECT count(*) FROM version_files") == 0
        assert await superuser.fetchval("SELECT count(*) FROM blobs") == 1


class TestNames:
    NEW = NewModel(
        name=ModelName("n"), framework="other", description=None, task=None, licence=None
    )

    async def register(self, registry: Registry, principal: Principal) -> ModelDetails:
        async with acting_as(principal):
            return await registry.models.register(principal, self.NEW)

    async def test_one_of_many_at_once_gets_the_name(
        self, registry: Registry, principal: Principal
    ) -> None:
        results = await asyncio.gather(
            *(self.register(registry, principal) for _ in range(5)), return_exceptions=True
        )

        assert [type(result) for result in results].count(ModelDetails) == 1
        assert [type(result) for result in results].count(ModelNameTakenError) == 4

    async def test_two_tenants_may_have_the_same_name(self, registry: Registry) -> None:
        await self.register(registry, make_principal())

        await self.register(registry, make_principal())

    async def test_a_lost_race_for_a_name_in_a_change_is_said_so(
        self, registry: Registry, principal: Principal
    ) -> None:
        one, two = make_model(principal, "one"), make_model(principal, "two")
        await save(registry, principal, one, two)

        async with acting_as(principal), registry.make_unit_of_work() as uow:
            model = await uow.models.get(two.id)
            model.revise(at=NOON, name=ModelName("one"))
            with pytest.raises(ModelNameTakenError):
                await uow.commit()

    async def test_one_of_many_versions_at_once_gets_the_name(
        self, registry: Registry, principal: Principal
    ) -> None:
        model = make_model(principal)
        await save(registry, principal, model)

        async def create() -> VersionDetails:
            async with acting_as(principal):
                return await registry.versions.create(
                    principal, model.id, NewVersion(name=VersionName("1"), description=None)
                )

        results = await asyncio.gather(*(create() for _ in range(5)), return_exceptions=True)

        assert [type(result) for result in results].count(VersionDetails) == 1
        assert [type(result) for result in results].count(VersionTakenError) == 4


class TestTenants:
    """With the application's own filter out of the way, the database still shows nothing."""

    TABLES = ("models", "model_versions", "version_files")

    @pytest.fixture
    async def model(self, registry: Registry, principal: Principal) -> Model:
        model = make_model(principal)
        version = make_version(principal, model)
        await save(registry, principal, model)
        async with acting_as(principal), registry.make_unit_of_work() as uow:
            await uow.blobs.keep(make_blob(), at=NOON)
            version.put_file(
                FilePath("a"), make_blob(), media_type="a/b", by=principal.account_id, at=NOON
            )
            uow.versions.add(version)
            await uow.commit()
        return model

    @pytest.mark.usefixtures("model")
    @pytest.mark.parametrize("table", TABLES)
    async def test_a_stranger_sees_no_row(
        self, registry: Registry, principal: Principal, table: str
    ) -> None:
        async with registry.database.tenant(make_principal().tenant_id) as connection:
            foreign = await connection.fetchval(f"SELECT count(*) FROM {table}")
        async with registry.database.tenant(principal.tenant_id) as connection:
            own = await connection.fetchval(f"SELECT count(*) FROM {table}")

        assert (own, foreign) == (1, 0)

    @pytest.mark.usefixtures("model")
    async def test_a_stranger_changes_and_deletes_no_row(self, registry: Registry) -> None:
        async with acting_as(make_principal()), registry.make_unit_of_work() as uow:
            changed = await uow.session.execute(text("UPDATE models SET name = 'mine'"))
            deleted = await uow.session.execute(text("DELETE FROM version_files"))
            seen = (await uow.session.scalars(select(Model))).all()

        assert changed.rowcount == deleted.rowcount == 0  # type: ignore[attr-defined]  # of a cursor
        assert seen == []

    async def test_nobody_writes_into_another_tenant(self, registry: Registry) -> None:
        with pytest.raises(DBAPIError, match="row-level security"):
            await save(registry, make_principal(), make_model(make_principal()))

    @pytest.mark.usefixtures("model")
    async def test_without_a_tenant_there_is_an_error_and_not_all_rows(
        self, database: Database
    ) -> None:
        with pytest.raises(asyncpg.PostgresError):
            await database.fetchrow("SELECT * FROM models")

    async def test_a_deleted_model_hides_its_versions(
        self, registry: Registry, model: Model, principal: Principal
    ) -> None:
        async with acting_as(principal):
            await registry.models.delete(model.id, check=lambda _: None)

        with pytest.raises(ModelNotFoundError):
            await registry.queries.get_version(principal, model.id, VersionName("1.0.0"))


class TestSearch:
    @pytest.fixture
    async def names(self, registry: Registry, principal: Principal) -> None:
        described = {
            "acme/Support-Bot": "Answers questions",
            "acme/translate": "把中文翻译成英文",
            "one_hundred": "100% of a_b \\ c",
            "onehundred": "nothing special",
        }
        for name, description in described.items():
            model = make_model(principal, name)
            model.description = Description(description)
            await save(registry, principal, model)

    @pytest.mark.parametrize(
        ("q", "expected"),
        [
            ("support", {"acme/Support-Bot"}),
            ("QUESTIONS", {"acme/Support-Bot"}),
            ("翻译", {"acme/translate"}),
            ("中", {"acme/translate"}),
            ("100%", {"one_hundred"}),
            ("0% o", {"one_hundred"}),
            ("e_h", {"one_hundred"}),
            ("\\", {"one_hundred"}),
            ("%", {"one_hundred"}),
            ("_", {"one_hundred"}),
            ("acme/", {"acme/Support-Bot", "acme/translate"}),
            ("nowhere", set()),
        ],
    )
    @pytest.mark.usefixtures("names")
    async def test_a_part_is_found_as_it_is_written(
        self, registry: Registry, principal: Principal, q: str, expected: set[str]
    ) -> None:
        found = await PostgresRegistrySearch(registry.database).find_models(
            principal, RegistryFilter(search=q), PageRequest(include_total=True), "newest"
        )

        assert {model.name for model in found.items} == expected
        assert found.total == len(expected)
