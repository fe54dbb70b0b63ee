"""Who reads a model: the queries' own condition, and row-level security behind it."""

from dataclasses import replace

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from maas.model.application.versions import NewVersion
from maas.model.domain.file import FilePath
from maas.model.domain.metadata import Metadata, Metrics
from maas.model.domain.model import (
    GrantToSelfError,
    Model,
    ModelNameTakenError,
    ModelNotFoundError,
    NotModelOwnerError,
    OwnerNotMemberError,
)
from maas.model.domain.source import Source, SourceNotFoundError
from maas.model.domain.text import Tag, VersionName
from maas.model.domain.version import VersionNotFoundError
from maas.model.public import Visibility
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.domain.page import PageRequest, TextPageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from tests.integration.model.conftest import Registry, acting_as, make_principal
from tests.integration.model.test_persistence import (
    NOON,
    make_blob,
    make_model,
    make_version,
    save,
)

pytestmark = pytest.mark.integration

TABLES = (
    "models",
    "model_tags",
    "model_metadata",
    "model_versions",
    "version_files",
    "version_metadata",
    "version_metrics",
    "version_transitions",
)
NEVER_UPDATED = {"model_tags", "version_transitions"}
# As migration 0019 fills it for the versions that were there.
CHECKSUM = r"""
    SELECT encode(sha256(string_agg(
        convert_to(path, 'UTF8') || '\x00'::bytea
        || convert_to(encode(sha256, 'hex') || E'\n', 'UTF8'),
        ''::bytea ORDER BY path COLLATE "C")), 'hex')
    FROM version_files WHERE version_id = $1
"""
VERSION = VersionName("1.0.0")
PATH = FilePath("a")


def check(_: int) -> None:
    """Expect nothing."""


@pytest.fixture
def stranger() -> Principal:
    return make_principal()


@pytest.fixture
def colleague(principal: Principal) -> Principal:
    """Somebody else of the owner's tenant, who does not manage models."""
    return replace(
        make_principal(principal.tenant_id),
        permissions=frozenset({"model:read", "model:write", "model:delete"}),
    )


async def make_shared(registry: Registry, owner: Principal, visibility: Visibility) -> Model:
    """Make a model with a row in each of the registry's tables."""
    model = make_model(owner)
    model.visibility = visibility
    version = make_version(owner, model)
    version.status = "pending"
    await save(registry, owner, model)
    async with acting_as(owner), registry.make_unit_of_work() as uow:
        await uow.blobs.keep(make_blob(), at=NOON)
        version.put_file(PATH, make_blob(), media_type="a/b", by=owner.account_id, at=NOON)
        uow.versions.add(version)
        await uow.commit()
    return model


async def reads(registry: Registry, reader: Principal, model: Model) -> bool:
    """Ask for all there is of the model; all of it is read, or nothing."""
    queries, page = registry.queries, PageRequest()
    answers = []
    for ask in (
        lambda: queries.get_model(reader, model.id),
        lambda: queries.list_versions(reader, model.id, page),
        lambda: queries.get_version(reader, model.id, VERSION),
        lambda: queries.list_transitions(reader, model.id, VERSION, page),
        lambda: queries.list_files(reader, model.id, VERSION, TextPageRequest()),
        lambda: queries.get_file(reader, model.id, VERSION, PATH),
    ):
        try:
            await ask()
        except ModelNotFoundError:
            answers.append(False)
        else:
            answers.append(True)
    assert len(set(answers)) == 1, answers
    return answers[0]


async def rows_seen(database: Database, tenant_id: TenantId) -> set[int]:
    """Count what the database shows a tenant of each table, with no condition of ours."""
    async with database.tenant(tenant_id) as connection:
        return {
            await connection.fetchval(f"SELECT least(count(*), 1) FROM {table}") for table in TABLES
        }


class TestReading:
    @pytest.mark.parametrize(
        ("visibility", "others"),
        [
            ("private", {"colleagues": False, "strangers": False}),
            ("tenant", {"colleagues": True, "strangers": False}),
            ("public", {"colleagues": True, "strangers": True}),
        ],
    )
    async def test_goes_by_visibility(
        self,
        registry: Registry,
        principal: Principal,
        colleague: Principal,
        visibility: Visibility,
        others: dict[str, bool],
    ) -> None:
        stranger = make_principal()
        model = await make_shared(registry, principal, visibility)
        manager = replace(colleague, permissions=frozenset({"*:*"}))

        assert await reads(registry, principal, model)
        assert await reads(registry, manager, model)
        assert await reads(registry, colleague, model) is others["colleagues"]
        assert await reads(registry, stranger, model) is others["strangers"]
        assert await rows_seen(registry.database, stranger.tenant_id) == {int(others["strangers"])}

    async def test_a_grant_lasts_until_it_is_revoked(
        self, registry: Registry, principal: Principal, stranger: Principal
    ) -> None:
        model = await make_shared(registry, principal, "tenant")
        third = make_principal()

        async with acting_as(principal):
            _, first = await registry.models.grant(principal, model.id, stranger.tenant_id)
            _, again = await registry.models.grant(principal, model.id, stranger.tenant_id)
        granted = await reads(registry, stranger, model)
        shown = await registry.queries.list_grants(
            principal, model.id, PageRequest(include_total=True)
        )
        assert await rows_seen(registry.database, stranger.tenant_id) == {1}
        assert await rows_seen(registry.database, third.tenant_id) == {0}
        async with acting_as(principal):
            await registry.models.revoke(principal, model.id, stranger.tenant_id)

        assert (first, again, granted) == (True, False, True)
        assert [grant.tenant_id for grant in shown.items] == [stranger.tenant_id]
        assert shown.total == 1
        assert not await reads(registry, third, model)
        assert not await reads(registry, stranger, model)
        assert await rows_seen(registry.database, stranger.tenant_id) == {0}

    @pytest.mark.parametrize("hide", ["make it private", "delete it"])
    async def test_a_grant_rests_while_the_model_is_hidden(
        self, registry: Registry, principal: Principal, stranger: Principal, hide: str
    ) -> None:
        model = await make_shared(registry, principal, "tenant")
        async with acting_as(principal):
            await registry.models.grant(principal, model.id, stranger.tenant_id)
        async with acting_as(principal):
            if hide == "delete it":
                await registry.models.delete(model.id, check=check)
            else:
                await registry.models.revise(principal, model.id, check=check, visibility="private")

        assert not await reads(registry, stranger, model)
        assert await rows_seen(registry.database, stranger.tenant_id) == {0}

    async def test_whom_else_it_is_granted_to_is_not_told(
        self, registry: Registry, principal: Principal, stranger: Principal
    ) -> None:
        model = await make_shared(registry, principal, "public")
        third = make_principal()
        async with acting_as(principal):
            await registry.models.grant(principal, model.id, third.tenant_id)

        with pytest.raises(ModelNotFoundError):
            await registry.queries.list_grants(stranger, model.id, PageRequest())
        async with registry.database.tenant(stranger.tenant_id) as connection:
            assert await connection.fetchval("SELECT count(*) FROM model_grants") == 0
        async with registry.database.tenant(third.tenant_id) as connection:
            assert await connection.fetchval("SELECT count(*) FROM model_grants") == 1

    async def test_a_row_of_ones_own_about_a_foreign_model_opens_nothing(
        self, registry: Registry, principal: Principal, stranger: Principal
    ) -> None:
        model = await make_shared(registry, principal, "tenant")
        async with acting_as(stranger), registry.make_unit_of_work() as uow:
            await uow.session.execute(
                text(
                    "INSERT INTO model_grants (model_id, grantee_id, tenant_id, created_by,"
                    " created_at) VALUES (:model, :me, :me, :me, now())"
                ),
                {"model": model.id, "me": stranger.tenant_id},
            )
            await uow.session.execute(
                text(
                    "INSERT INTO model_tags (model_id, tag, tenant_id)"
                    " VALUES (:model, 'planted', :me)"
                ),
                {"model": model.id, "me": stranger.tenant_id},
            )
            await uow.commit()

        assert not await reads(registry, stranger, model)
        async with registry.database.tenant(stranger.tenant_id) as connection:
            assert await connection.fetchval("SELECT count(*) FROM models") == 0
        shown = await registry.queries.get_model(principal, model.id)
        assert "planted" not in shown.tags


class TestWriting:
    async def test_a_reader_of_another_tenant_changes_nothing(
        self, registry: Registry, principal: Principal, stranger: Principal
    ) -> None:
        model = await make_shared(registry, principal, "public")

        async with acting_as(stranger):
            for act in (
                registry.models.revise(stranger, model.id, check=check, framework="onnx"),
                registry.models.tag(model.id, Tag("mine"), check=check),
                registry.models.delete(model.id, check=check),
                registry.models.grant(stranger, model.id, stranger.tenant_id),
                registry.versions.create(
                    stranger, model.id, NewVersion(name=VersionName("2"), description=None)
                ),
                registry.versions.delete(model.id, VERSION, check=check),
            ):
                with pytest.raises(ModelNotFoundError):
                    await act

    async def test_the_database_lets_nobody_change_what_they_only_read(
        self, registry: Registry, principal: Principal, stranger: Principal
    ) -> None:
        await make_shared(registry, principal, "public")
        seen = await rows_seen(registry.database, stranger.tenant_id)

        for table in TABLES:
            statement = text(f"UPDATE {table} SET tenant_id = :me")
            async with acting_as(stranger), registry.make_unit_of_work() as uow:
                if table in NEVER_UPDATED:
                    with pytest.raises(DBAPIError, match="permission denied"):
                        await uow.session.execute(statement, {"me": stranger.tenant_id})
                else:
                    changed = await uow.session.execute(statement, {"me": stranger.tenant_id})
                    assert changed.rowcount == 0  # type: ignore[attr-defined]  # of a cursor

        assert seen == {1}

    async def test_a_private_model_is_not_there_for_colleagues(
        self, registry: Registry, principal: Principal, colleague: Principal
    ) -> None:
        model = await make_shared(registry, principal, "private")

        async with acting_as(colleague):
            with pytest.raises(ModelNotFoundError):
                await registry.models.tag(model.id, Tag("mine"), check=check)
            with pytest.raises(ModelNotFoundError):
                await registry.versions.delete(model.id, VERSION, check=check)
        listed = await registry.queries.list_versions(principal, model.id, PageRequest())
        assert [version.version for version in listed.items] == ["1.0.0"]

    async def test_who_sees_it_is_the_owners_to_say(
        self, registry: Registry, principal: Principal, colleague: Principal
    ) -> None:
        model = await make_shared(registry, principal, "tenant")

        async with acting_as(colleague):
            await registry.models.revise(colleague, model.id, check=check, framework="onnx")
            with pytest.raises(NotModelOwnerError):
                await registry.models.revise(colleague, model.id, check=check, visibility="public")
            with pytest.raises(NotModelOwnerError):
                await registry.models.grant(colleague, model.id, TenantId(new_id()))
        async with acting_as(principal):
            with pytest.raises(GrantToSelfError):
                await registry.models.grant(principal, model.id, principal.tenant_id)
            await registry.models.revise(
                principal, model.id, check=check, owner_id=colleague.account_id
            )
        async with acting_as(colleague):
            await registry.models.revise(colleague, model.id, check=check, visibility="public")

        assert (await registry.queries.get_model(principal, model.id)).visibility == "public"


class TestHandedOver:
    async def test_an_owner_who_has_left_keeps_nothing_from_being_changed(
        self, registry: Registry, principal: Principal, colleague: Principal
    ) -> None:
        model = await make_shared(registry, principal, "tenant")
        registry.members.left |= {principal.account_id, colleague.account_id}

        async with acting_as(principal):
            with pytest.raises(OwnerNotMemberError):
                await registry.models.revise(
                    principal, model.id, check=check, owner_id=colleague.account_id
                )
            kept = await registry.models.revise(
                principal, model.id, check=check, owner_id=principal.account_id, framework="onnx"
            )

        assert (kept.owner_id, kept.framework) == (principal.account_id, "onnx")


class TestKept:
    async def test_tags_and_entries_are_written_as_they_change(
        self, registry: Registry, principal: Principal
    ) -> None:
        model = await make_shared(registry, principal, "tenant")
        metadata = Metadata({"one": True, "new": "x", "part": 0.1})

        async with acting_as(principal):
            await registry.models.tag(model.id, Tag("new"), check=check)
            await registry.models.untag(model.id, Tag("chat"), check=check)
            revised = await registry.models.revise(
                principal, model.id, check=check, metadata=metadata
            )
            described = await registry.versions.revise(
                model.id,
                VERSION,
                check=check,
                metrics=Metrics({"accuracy": 1, "f1": 1e-300}),
                metadata=Metadata({}),
            )

        shown = await registry.queries.get_model(principal, model.id)
        assert shown == revised
        assert (shown.tags, shown.metadata) == (["new", "客户"], metadata.entries)
        assert [type(shown.metadata[key]) for key in ("one", "part")] == [bool, float]
        version = await registry.queries.get_version(principal, model.id, VERSION)
        assert version == described
        assert (version.metrics, version.metadata) == ({"accuracy": 1.0, "f1": 1e-300}, {})

    async def test_transitions_are_listed_newest_first_and_cannot_be_changed(
        self,
        registry: Registry,
        principal: Principal,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        model = await make_shared(registry, principal, "tenant")
        async with acting_as(principal):
            for status in ("ready", "deprecated", "ready"):
                await registry.versions.move(
                    principal,
                    model.id,
                    VERSION,
                    status,
                    reason=None,
                    check=check,
                )

        queries = registry.queries
        first = await queries.list_transitions(
            principal, model.id, VERSION, PageRequest(limit=3, include_total=True)
        )
        rest = await queries.list_transitions(
            principal, model.id, VERSION, PageRequest(limit=3, after=first.next)
        )
        past = [(step.from_status, step.to_status) for step in (*first.items, *rest.items)]
        assert past == [
            ("deprecated", "ready"),
            ("ready", "deprecated"),
            ("uploading", "ready"),
            ("pending", "uploading"),
        ]
        assert (first.total, rest.next) == (4, None)
        for privilege in ("UPDATE", "DELETE", "TRUNCATE"):
            assert not await superuser.fetchval(
                "SELECT has_table_privilege('maas_app', 'version_transitions', $1)", privilege
            )

    async def test_the_checksum_can_be_computed_from_the_rows(
        self,
        registry: Registry,
        principal: Principal,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        model = await make_shared(registry, principal, "tenant")
        async with acting_as(principal), registry.make_unit_of_work() as uow:
            version = await uow.versions.get(model.id, VERSION)
            for path in ("a-", "Z/数", "b"):
                version.put_file(
                    FilePath(path),
                    make_blob(),
                    media_type="a/b",
                    by=principal.account_id,
                    at=NOON,
                )
            version.move_to("ready", reason=None, by=principal.account_id, at=NOON)
            await uow.commit()

        computed = await superuser.fetchval(CHECKSUM, version.id)
        shown = await registry.queries.get_version(principal, model.id, VERSION)
        assert str(shown.checksum) == computed
        assert (shown.file_count, shown.size) == (4, 20)

    async def test_what_a_version_is_made_from_must_be_readable(
        self, registry: Registry, principal: Principal, stranger: Principal
    ) -> None:
        base = await make_shared(registry, principal, "tenant")
        own = make_model(stranger)
        await save(registry, stranger, own)
        new = NewVersion(
            name=VersionName("tuned"),
            description=None,
            source=Source(kind="fine-tuned-from", model_id=base.id, version=VERSION),
        )

        async with acting_as(stranger):
            with pytest.raises(SourceNotFoundError):
                await registry.versions.create(stranger, own.id, new)
        async with acting_as(principal):
            await registry.models.grant(principal, base.id, stranger.tenant_id)
        async with acting_as(stranger):
            made = await registry.versions.create(stranger, own.id, new)

        shown = await registry.queries.get_version(stranger, own.id, new.name)
        assert shown == made
        assert (shown.source.model_id, shown.source.version) == (base.id, "1.0.0")


class TestRestore:
    async def test_brings_everything_back(self, registry: Registry, principal: Principal) -> None:
        model = await make_shared(registry, principal, "tenant")
        async with acting_as(principal):
            await registry.models.delete(model.id, check=check)
        hidden = await reads(registry, principal, model)

        async with acting_as(principal):
            restored = await registry.models.restore(model.id, check=check)

        assert not hidden
        assert await reads(registry, principal, model)
        assert restored == await registry.queries.get_model(principal, model.id)

    async def test_waits_for_its_name(self, registry: Registry, principal: Principal) -> None:
        model = await make_shared(registry, principal, "tenant")
        async with acting_as(principal):
            await registry.models.delete(model.id, check=check)
        await save(registry, principal, make_model(principal))

        async with acting_as(principal):
            with pytest.raises(ModelNameTakenError):
                await registry.models.restore(model.id, check=check)

    async def test_is_not_for_strangers(
        self, registry: Registry, principal: Principal, stranger: Principal
    ) -> None:
        model = await make_shared(registry, principal, "public")
        async with acting_as(principal):
            await registry.models.delete(model.id, check=check)

        async with acting_as(stranger):
            with pytest.raises(ModelNotFoundError):
                await registry.models.restore(model.id, check=check)


async def test_what_is_missing_is_told_apart(registry: Registry, principal: Principal) -> None:
    model = await make_shared(registry, principal, "tenant")

    with pytest.raises(VersionNotFoundError):
        await registry.queries.list_files(
            principal, model.id, VersionName("other"), TextPageRequest()
        )
    with pytest.raises(VersionNotFoundError):
        await registry.queries.list_transitions(
            principal, model.id, VersionName("other"), PageRequest()
        )
