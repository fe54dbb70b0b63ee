"""Routes to versions of the registry: by name, by alias, and by whose rights."""

from dataclasses import replace
from decimal import Decimal
from typing import TypeAlias

import asyncpg
import pytest

from maas.inference.application.deployments import NewDeployment, NewTarget
from maas.inference.domain.deployment import DeploymentName, TargetMissingError
from maas.model.public import ModelId, VersionId, VersionReference, Visibility
from maas.shared.domain.ids import new_id
from maas.shared.domain.pricing import Price, Prices
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from tests.integration.inference.serving import Serving, as_operator
from tests.integration.inference.test_routes import why_not
from tests.integration.model.conftest import acting_as, make_principal

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PRICES = Prices(currency="EUR", input=Price(Decimal("0.05")), output=Price(Decimal("0.1")))


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


async def add_model(
    superuser: Superuser, owner: Principal, *, visibility: Visibility = "tenant"
) -> ModelId:
    model_id = ModelId(new_id())
    await superuser.execute(
        "INSERT INTO models (id, tenant_id, name, framework, created_by, created_at, updated_at, "
        "revision, visibility, owner_id) "
        "VALUES ($1, $2, $3, 'gguf', $4, now(), now(), 1, $5, $4)",
        model_id,
        owner.tenant_id,
        f"gemma-{model_id.hex[-8:]}",
        owner.account_id,
        visibility,
    )
    return model_id


async def add_version(
    superuser: Superuser,
    owner: Principal,
    model_id: ModelId,
    name: str = "1.0",
    *,
    status: str = "ready",
) -> VersionId:
    version_id = VersionId(new_id())
    await superuser.execute(
        "INSERT INTO model_versions (id, tenant_id, model_id, name, status, created_by, "
        "created_at, updated_at, revision, checksum) "
        "VALUES ($1, $2, $3, $4, $5, $6, now(), now(), 1, sha256('x'))",
        version_id,
        owner.tenant_id,
        model_id,
        name,
        status,
        owner.account_id,
    )
    return version_id


async def point(
    superuser: Superuser, owner: Principal, model_id: ModelId, to: VersionId | None
) -> None:
    await superuser.execute(
        "INSERT INTO model_aliases (model_id, name, tenant_id, version_id, sequence) "
        "VALUES ($1, 'production', $2, $3, 1) "
        "ON CONFLICT (model_id, name) DO UPDATE SET version_id = excluded.version_id",
        model_id,
        owner.tenant_id,
        to,
    )


async def test_a_version_is_called_at_the_runtime_at_a_price_of_its_own(
    serving: Serving, superuser: Superuser, ada: Principal
) -> None:
    model_id = await add_model(superuser, ada)
    version_id = await add_version(superuser, ada, model_id)
    await superuser.execute(
        "INSERT INTO version_facts (version_id, tenant_id, format, context_length) "
        "VALUES ($1, $2, 'gguf', 32768)",
        version_id,
        ada.tenant_id,
    )
    to = VersionReference(model_id=model_id, version="1.0")
    new = NewDeployment(name=DeploymentName("gemma"), targets=[NewTarget(to=to, price=PRICES)])
    async with acting_as(ada):
        await serving.deployments.create(ada, new)

    (target,) = (await serving.route(ada.tenant_id, "gemma")).targets

    base = f"http://127.0.0.1:8100/versions/{version_id}/v1"
    assert target.endpoint.reach == "runtime"
    assert target.endpoint.urls["chat"] == f"{base}/chat/completions"
    assert target.endpoint.urls["embeddings"] == f"{base}/embeddings"
    assert (target.origin.model_id, target.origin.version_id) == (model_id, version_id)
    assert (target.origin.version, len(target.origin.digest or "")) == ("1.0", 64)
    assert target.price is not None
    assert (target.price.id, target.price.prices) == (None, PRICES)
    assert target.context_length == 32_768


async def test_an_alias_leads_to_whichever_version_it_points_at(
    serving: Serving, superuser: Superuser, ada: Principal
) -> None:
    model_id = await add_model(superuser, ada)
    versions = [await add_version(superuser, ada, model_id, name) for name in ("1.0", "2.0")]
    await point(superuser, ada, model_id, versions[0])
    await serving.deploy(ada, "gemma", VersionReference(model_id=model_id, alias="production"))

    found = []
    for version_id in versions:
        await point(superuser, ada, model_id, version_id)
        (target,) = (await serving.route(ada.tenant_id, "gemma")).targets
        found.append((target.origin.version_id, target.origin.version))
    await point(superuser, ada, model_id, None)
    nowhere = await serving.route(ada.tenant_id, "gemma")

    assert found == list(zip(versions, ("1.0", "2.0"), strict=True))
    assert why_not(nowhere) == "not-found"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("deprecated", None),
        ("pending", "not-ready"),
        ("validating", "not-ready"),
        ("archived", "not-ready"),
        ("failed", "not-ready"),
    ],
)
async def test_only_what_is_ready_or_deprecated_answers(
    serving: Serving, superuser: Superuser, ada: Principal, status: str, reason: str | None
) -> None:
    model_id = await add_model(superuser, ada)
    await add_version(superuser, ada, model_id, status=status)
    await serving.deploy(ada, "gemma", VersionReference(model_id=model_id, version="1.0"))

    route = await serving.route(ada.tenant_id, "gemma")

    assert (None if route.targets else why_not(route)) == reason


async def test_a_private_model_is_deployed_by_who_sees_it_and_called_by_the_tenant(
    serving: Serving, superuser: Superuser, ada: Principal
) -> None:
    model_id = await add_model(superuser, ada, visibility="private")
    await add_version(superuser, ada, model_id)
    to = VersionReference(model_id=model_id, version="1.0")
    colleague = replace(make_principal(ada.tenant_id), permissions=frozenset({"deployment:*"}))

    with pytest.raises(TargetMissingError) as missing:
        await serving.deploy(colleague, "theirs", to)
    await serving.deploy(ada, "gemma", to)

    assert missing.value.loc == ("body", "targets", 0)
    assert len((await serving.route(ada.tenant_id, "gemma")).targets) == 1


@pytest.mark.parametrize("visibility", ["public", "tenant"])
async def test_a_foreign_model_is_called_for_as_long_as_it_is_shared(
    serving: Serving,
    superuser: Superuser,
    ada: Principal,
    olga: Principal,
    visibility: Visibility,
) -> None:
    model_id = await add_model(superuser, olga, visibility=visibility)
    await add_version(superuser, olga, model_id)
    if visibility == "tenant":
        await superuser.execute(
            "INSERT INTO model_grants VALUES ($1, $2, $3, $4, now())",
            model_id,
            ada.tenant_id,
            olga.tenant_id,
            olga.account_id,
        )
    await serving.deploy(ada, "gemma", VersionReference(model_id=model_id, version="1.0"))
    before = await serving.route(ada.tenant_id, "gemma")
    await superuser.execute("DELETE FROM model_grants")
    await superuser.execute("UPDATE models SET visibility = 'tenant' WHERE id = $1", model_id)

    after = await serving.route(ada.tenant_id, "gemma")

    assert len(before.targets) == 1
    assert why_not(after) == "not-found"


async def test_what_nobody_sees_is_no_target(
    serving: Serving, superuser: Superuser, ada: Principal, olga: Principal
) -> None:
    foreign = await add_model(superuser, olga)
    await add_version(superuser, olga, foreign)
    own = await add_model(superuser, ada)
    wrong = [
        VersionReference(model_id=foreign, version="1.0"),
        VersionReference(model_id=own, version="1.0"),
        VersionReference(model_id=own, alias="production"),
        VersionReference(model_id=ModelId(new_id()), version="1.0"),
    ]

    for each in wrong:
        with pytest.raises(TargetMissingError):
            await serving.deploy(as_operator(ada), "gemma", each)


async def test_a_target_that_is_gone_may_stay_while_others_change(
    serving: Serving, superuser: Superuser, ada: Principal
) -> None:
    model_id = await add_model(superuser, ada)
    await add_version(superuser, ada, model_id)
    to = VersionReference(model_id=model_id, version="1.0")
    made = await serving.deploy(ada, "gemma", to)
    await superuser.execute("UPDATE models SET deleted_at = now() WHERE id = $1", model_id)
    supplied = await serving.add_model(ada, await serving.connect(ada))

    await serving.revise(ada, made, targets=[NewTarget(to=to, priority=1), NewTarget(to=supplied)])
    route = await serving.route(ada.tenant_id, "gemma")

    assert [each.origin.provider_model_id for each in route.targets] == [supplied]
    assert list(route.unfit.values()) == ["not-found"]
