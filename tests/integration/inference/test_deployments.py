"""Deployments in the database: every field kept, whose rows are whose, and races for a name."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TypeAlias

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from maas.inference.application import deployments as use_cases
from maas.inference.application.deployment_queries import DeploymentFilter
from maas.inference.application.deployments import NewTarget
from maas.inference.domain.deployment import (
    Deployment,
    DeploymentName,
    DeploymentNameTakenError,
    DeploymentNotFoundError,
    DeploymentText,
    TooManyDeploymentsError,
)
from maas.inference.domain.route import TargetLimits
from maas.inference.infrastructure.deployment_queries import LIST_DEPLOYMENTS
from maas.inference.infrastructure.routes import FIND_NAME
from maas.inference.public import DeploymentId
from maas.model.public import ModelId, ProviderModelId, VersionReference
from maas.shared.domain.errors import PreconditionFailedError
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.domain.page import PageRequest
from maas.shared.domain.pricing import Price, Prices
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from maas.shared.interface.etags import Match, etag_of
from tests.integration.inference.serving import Serving, anything, as_operator
from tests.integration.model.conftest import acting_as, make_principal
from tests.unit.inference.test_deployment import LATER, make_deployment, make_target

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

TABLES = ("deployments", "deployment_targets", "deployment_grants")
NOTHING = dict.fromkeys(TABLES, 0)


@pytest.fixture
def serving(database: Database) -> Serving:
    return Serving(database=database)


@pytest.fixture
def ada() -> Principal:
    return make_principal()


@pytest.fixture
def olga() -> Principal:
    """Somebody of another tenant."""
    return make_principal()


async def seen(serving: Serving, tenant_id: TenantId) -> dict[str, int]:
    """Count what the database shows a tenant, with no condition of ours."""
    async with serving.database.tenant(tenant_id) as connection:
        return {
            table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES
        }


def fields_of(deployment: Deployment) -> dict[str, object]:
    return {name: value for name, value in vars(deployment).items() if not name.startswith("_sa_")}


async def test_every_field_is_kept(serving: Serving, ada: Principal) -> None:
    prices = Prices(
        currency="EUR",
        input=Price(Decimal("0.000000000001")),
        output=Price(Decimal(999_999_999)),
        cached=Price(Decimal("0.5")),
        reasoning=Price(Decimal(3)),
        request=Decimal("0.01"),
    )
    limits = TargetLimits(
        max_concurrent=8,
        max_queued=9,
        queue_for=timedelta(seconds=1),
        connect=timedelta(seconds=2),
        first_byte=timedelta(seconds=3),
        idle=timedelta(seconds=4),
        total=timedelta(seconds=5),
    )
    model_id = ModelId(new_id())
    made = make_deployment(
        tenant_id=ada.tenant_id,
        name=DeploymentName("acme/助手:7b"),
        description=DeploymentText("一行\n两行"),
        status="disabled",
        visibility="public",
        currency="EUR",
        max_body_bytes=2**25,
        max_output_tokens=2,
        max_choices=3,
        cache_seconds=4,
        capture_days=5,
        updated_at=LATER,
        revision=7,
        targets=(
            make_target(ProviderModelId(new_id()), priority=3, weight=4, limits=limits),
            make_target(
                VersionReference(model_id=model_id, alias="production"),
                status="disabled",
                price=prices,
            ),
            make_target(
                VersionReference(model_id=model_id, version="1.0"),
                price=replace(prices, cached=None, reasoning=None, request=None),
            ),
        ),
    )
    async with acting_as(ada), serving.make_unit_of_work() as uow:
        await uow.deployments.add(made)
        await uow.commit()

    async with acting_as(ada), serving.make_unit_of_work() as uow:
        loaded = await uow.deployments.get(made.id)

    assert loaded is not made
    assert fields_of(loaded) == fields_of(made)


class TestWhoseTheyAre:
    async def test_a_stranger_sees_no_row(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        made = await serving.deploy_new(ada, "bot")

        listed = await serving.queries.list_deployments(olga, DeploymentFilter(), PageRequest())

        assert await seen(serving, olga.tenant_id) == NOTHING
        assert listed.items == []
        with pytest.raises(DeploymentNotFoundError):
            await serving.queries.get_deployment(olga, made.id)
        with pytest.raises(DeploymentNotFoundError):
            await serving.queries.list_grants(olga, made.id, PageRequest())

    @pytest.mark.parametrize("how", ["granted", "public"])
    async def test_who_may_call_it_sees_its_row_and_no_target(
        self, serving: Serving, ada: Principal, olga: Principal, how: str
    ) -> None:
        made = await serving.deploy_new(ada, "bot")
        if how == "granted":
            await serving.grant(ada, made, olga)
        else:
            await serving.revise(as_operator(ada), made, visibility="public")
        third = make_principal()

        shown = await serving.queries.get_deployment(olga, made.id)
        own = await serving.queries.get_deployment(ada, made.id)
        listed = await serving.queries.list_deployments(olga, DeploymentFilter(), PageRequest())

        is_granted = how == "granted"
        assert await seen(serving, olga.tenant_id) == {
            "deployments": 1,
            "deployment_targets": 0,
            "deployment_grants": int(is_granted),
        }
        assert (await seen(serving, third.tenant_id))["deployments"] == int(not is_granted)
        assert own.targets
        assert shown == replace(own, targets=None, created_by=None)
        assert listed.items == [shown]
        with pytest.raises(DeploymentNotFoundError):
            await serving.queries.list_grants(olga, made.id, PageRequest())

    @pytest.mark.parametrize("end", ["revoke it", "delete it"])
    async def test_a_grant_ends_at_once(
        self, serving: Serving, ada: Principal, olga: Principal, end: str
    ) -> None:
        made = await serving.deploy_new(ada, "bot")
        await serving.grant(ada, made, olga)
        async with acting_as(ada):
            if end == "revoke it":
                await serving.deployments.revoke(made.id, olga.tenant_id)
            else:
                await serving.deployments.delete(made.id, check=anything)

        assert (await seen(serving, olga.tenant_id))["deployments"] == 0
        with pytest.raises(DeploymentNotFoundError):
            await serving.queries.get_deployment(olga, made.id)

    async def test_who_may_call_it_changes_nothing(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        made = await serving.deploy_new(as_operator(ada), "bot", visibility="public")
        await serving.grant(ada, made, olga)
        service, operator = serving.deployments, as_operator(olga)

        acts = (
            lambda: service.revise(operator, made.id, check=anything, status="disabled"),
            lambda: service.delete(made.id, check=anything),
            lambda: service.grant(operator, made.id, make_principal().tenant_id),
            lambda: service.revoke(made.id, olga.tenant_id),
        )
        for act in acts:
            async with acting_as(operator):
                with pytest.raises(DeploymentNotFoundError):
                    await act()

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE deployment_targets SET weight = 1000 WHERE tenant_id <> :mine RETURNING id",
            "UPDATE deployments SET name = 'gpt-4o' WHERE tenant_id <> :mine RETURNING id",
            "DELETE FROM deployment_grants WHERE tenant_id <> :mine RETURNING tenant_id",
        ],
    )
    async def test_the_database_shows_no_foreign_row_to_change(
        self, serving: Serving, ada: Principal, olga: Principal, statement: str
    ) -> None:
        made = await serving.deploy_new(ada, "bot")
        await serving.grant(ada, made, olga)
        async with acting_as(olga), serving.make_unit_of_work() as uow:
            changed = await uow.session.execute(text(statement), {"mine": olga.tenant_id})
            assert changed.all() == []

    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO deployment_grants VALUES (:deployment, :mine, :mine, :mine, now())",
            "INSERT INTO deployment_grants VALUES (:deployment, :mine, :theirs, :mine, now())",
            """
            INSERT INTO deployments
            SELECT :planted, :theirs, 'planted', NULL, status, visibility, NULL, NULL, NULL, NULL,
                NULL, NULL, created_by, created_at, updated_at, NULL, 1
            FROM deployments WHERE id = :deployment AND tenant_id <> :mine
            """,
        ],
    )
    async def test_the_database_refuses_rows_about_a_foreign_deployment(
        self, serving: Serving, ada: Principal, olga: Principal, statement: str
    ) -> None:
        made = await serving.deploy_new(as_operator(ada), "bot", visibility="public")
        values = {
            "deployment": made.id,
            "mine": olga.tenant_id,
            "theirs": ada.tenant_id,
            "planted": new_id(),
        }
        async with acting_as(olga), serving.make_unit_of_work() as uow:
            with pytest.raises(DBAPIError, match=r"row-level security|foreign key"):
                await uow.session.execute(text(statement), values)


class TestRaces:
    async def test_one_of_a_hundred_gets_a_name(self, serving: Serving, ada: Principal) -> None:
        model_id = await serving.add_model(ada, await serving.connect(ada))

        made = await asyncio.gather(
            *(serving.deploy(ada, "bot", model_id) for _ in range(100)), return_exceptions=True
        )

        refused = [each for each in made if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [DeploymentNameTakenError] * 99
        listed = await serving.queries.list_deployments(
            ada, DeploymentFilter(), PageRequest(include_total=True)
        )
        assert listed.total == 1

    async def test_one_of_two_is_renamed_to_it_while_one_is_made(
        self, serving: Serving, ada: Principal
    ) -> None:
        made = [await serving.deploy_new(ada, name) for name in ("a", "b")]
        model_id = await serving.add_model(ada, await serving.connect(ada))

        ends = await asyncio.gather(
            *(serving.revise(ada, each, name=DeploymentName("wanted")) for each in made),
            serving.deploy(ada, "wanted", model_id),
            return_exceptions=True,
        )

        refused = [each for each in ends if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [DeploymentNameTakenError] * 2

    async def test_a_deleted_ones_name_is_free(self, serving: Serving, ada: Principal) -> None:
        made = await serving.deploy_new(ada, "bot")
        await serving.delete(ada, made)
        again = await serving.deploy(ada, "bot", *(each.to for each in made.targets or ()))

        assert again.id != made.id

    async def test_a_tenant_never_has_one_too_many(
        self, serving: Serving, ada: Principal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(use_cases, "MAX_DEPLOYMENTS", 2)
        model_id = await serving.add_model(ada, await serving.connect(ada))

        made = await asyncio.gather(
            *(serving.deploy(ada, f"n{number}", model_id) for number in range(5)),
            return_exceptions=True,
        )

        refused = [each for each in made if isinstance(each, BaseException)]
        assert [type(each) for each in refused] == [TooManyDeploymentsError] * 3

    async def test_of_two_changes_by_one_revision_one_is_made(
        self, serving: Serving, ada: Principal
    ) -> None:
        made = await serving.deploy_new(ada, "bot")
        others = [await serving.add_model(ada, await serving.connect(ada, n)) for n in ("x", "y")]
        only = Match(frozenset({etag_of(made.revision)})).check

        async def change(to: ProviderModelId) -> None:
            async with acting_as(ada):
                await serving.deployments.revise(
                    ada, made.id, check=only, targets=[NewTarget(to=to)]
                )

        ends = await asyncio.gather(*map(change, others), return_exceptions=True)
        kept = await serving.queries.get_deployment(ada, made.id)

        assert [type(end) for end in ends if end is not None] == [PreconditionFailedError]
        (target,) = kept.targets or ()
        assert target.to == others[ends.index(None)]


class TestLists:
    async def test_pages_follow_one_another_over_own_granted_and_public(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        wanted = [(await serving.deploy_new(ada, name)).id for name in ("a", "b")]
        granted = await serving.deploy_new(olga, "c")
        await serving.grant(olga, granted, ada)
        both = await serving.deploy_new(as_operator(olga), "d", visibility="public")
        await serving.grant(olga, both, ada)
        wanted += [granted.id, both.id]

        found: list[DeploymentId] = []
        page = PageRequest(limit=1, include_total=True)
        for _ in range(10):
            read = await serving.queries.list_deployments(ada, DeploymentFilter(), page)
            found += [each.id for each in read.items]
            assert read.total == 4
            if read.next is None:
                break
            page = replace(page, after=read.next)
        by_name = await serving.queries.list_deployments(
            ada, DeploymentFilter(name="b", status="active"), PageRequest()
        )

        assert found == wanted[::-1]
        assert [each.name for each in by_name.items] == ["b"]

    @pytest.mark.parametrize("query", ["the list", "a name"])
    async def test_strangers_deployments_are_not_looked_at(
        self, serving: Serving, superuser: Superuser, ada: Principal, query: str
    ) -> None:
        await serving.deploy_new(ada, "bot")
        await superuser.execute(
            "INSERT INTO deployments (id, tenant_id, name, status, visibility, created_by, "
            "created_at, updated_at, revision) SELECT gen_random_uuid(), gen_random_uuid(), "
            "'bot', status, visibility, created_by, created_at, updated_at, revision "
            "FROM deployments, generate_series(1, 20000)"
        )
        await superuser.execute("ANALYZE deployments")
        sql, values = (
            (LIST_DEPLOYMENTS, (ada.tenant_id, None, None, None, None, 51))
            if query == "the list"
            else (FIND_NAME, (ada.tenant_id, "bot"))
        )

        async with serving.database.tenant(ada.tenant_id) as connection:
            plan = await connection.fetch(f"EXPLAIN (ANALYZE, TIMING off) {sql}", *values)

        told = "\n".join(row[0] for row in plan)
        assert "Seq Scan on deployments" not in told, told
