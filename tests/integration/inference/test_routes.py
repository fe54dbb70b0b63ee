"""Where names lead, over real rows: by whose rights, with which key, and at which price."""

import asyncio
from decimal import Decimal
from typing import TypeAlias

import asyncpg
import pytest

from maas.inference.domain.failures import UnknownModelError
from maas.inference.domain.route import Route
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.public import ProviderKind
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_ring import FixedKeys, RingKey
from tests.integration.inference.serving import (
    KEY,
    Serving,
    anything,
    as_operator,
)
from tests.integration.model.conftest import acting_as, make_principal

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


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


async def add_tenant(superuser: Superuser, tenant_id: TenantId) -> None:
    await superuser.execute(
        "INSERT INTO tenants (id, slug, name, status) VALUES ($1, $2, 'Ours', 'active')",
        tenant_id,
        f"t{tenant_id.hex[-12:]}",
    )


async def close(superuser: Superuser, tenant_id: TenantId, status: str) -> None:
    await superuser.execute("UPDATE tenants SET status = $1 WHERE id = $2", status, tenant_id)


def why_not(route: Route) -> str:
    """Tell why the one target there is cannot be called."""
    assert route.targets == []
    (reason,) = route.unfit.values()
    return reason


class TestSuppliedTargets:
    @pytest.mark.parametrize(
        ("kind", "base_url", "told"),
        [
            (
                "openai",
                "https://api.openai.com/v1",
                ("/chat/completions", "Authorization", f"Bearer {KEY.plain}"),
            ),
            (
                "azure",
                "https://a.openai.azure.com/openai/v1",
                ("/chat/completions", "api-key", KEY.plain),
            ),
            (
                "anthropic",
                "https://api.anthropic.com",
                ("/v1/messages", "x-api-key", KEY.plain),
            ),
        ],
    )
    async def test_are_called_as_their_type_is(
        self,
        serving: Serving,
        ada: Principal,
        kind: ProviderKind,
        base_url: str,
        told: tuple[str, str, str],
    ) -> None:
        provider_id = await serving.connect(ada, type=kind, base_url=base_url)
        model_id = await serving.add_model(ada, provider_id)
        made = await serving.deploy(ada, "acme/bot:7b", model_id, max_choices=2)

        route = await serving.route(ada.tenant_id, "acme/bot:7b")

        path, header, value = told
        (target,) = route.targets
        assert (route.deployment_id, route.tenant_id) == (made.id, ada.tenant_id)
        assert route.limits.max_choices == 2
        assert target.endpoint.urls == {"chat": base_url + path}
        assert target.endpoint.headers[header] == value
        assert (target.endpoint.model, target.endpoint.reach) == ("gpt-4o", "public")
        assert (target.context_length, target.max_output_tokens) == (128_000, 4_096)
        assert (target.origin.provider_id, target.origin.provider_name) == (provider_id, "OpenAI")
        assert KEY.plain not in repr(route)

    async def test_take_what_their_models_can(self, serving: Serving, ada: Principal) -> None:
        provider_id = await serving.connect(ada)
        model_id = await serving.add_model(
            ada, provider_id, capabilities=("completions", "embeddings")
        )
        await serving.deploy(ada, "both", model_id)

        (target,) = (await serving.route(ada.tenant_id, "both")).targets

        assert target.endpoint.urls == {
            "completions": "https://api.openai.com/v1/completions",
            "embeddings": "https://api.openai.com/v1/embeddings",
        }

    async def test_have_the_price_that_holds_now(self, serving: Serving, ada: Principal) -> None:
        provider_id = await serving.connect(ada)
        model_id = await serving.add_model(
            ada, provider_id, prices=(("USD", "2.5"), ("EUR", "2"), ("USD", "0.000000000001"))
        )
        await serving.deploy(ada, "euros", model_id)
        await serving.deploy(ada, "dollars", model_id, currency="USD")

        prices = [
            (await serving.route(ada.tenant_id, name)).targets[0].price
            for name in ("euros", "dollars")
        ]
        await serving.set_price(ada, provider_id, model_id, "EUR", "7")
        dearer = (await serving.route(ada.tenant_id, "euros")).targets[0].price

        assert [
            each and (each.prices.currency, each.prices.input.per_million, each.prices.request)
            for each in (*prices, dearer)
        ] == [
            ("EUR", Decimal(2), Decimal("0.01")),
            ("USD", Decimal("0.000000000001"), Decimal("0.01")),
            ("EUR", Decimal(7), Decimal("0.01")),
        ]
        assert len({each and each.id for each in (*prices, dearer)}) == 3

    async def test_that_cannot_be_called_say_why(self, serving: Serving, ada: Principal) -> None:
        service, models = serving.suppliers, serving.models
        ends = {}
        for name in ("disabled", "gone", "without its key", "model disabled", "model gone"):
            provider_id = await serving.connect(ada, name)
            model_id = await serving.add_model(ada, provider_id)
            await serving.deploy(ada, name.replace(" ", "-"), model_id)
            ends[name] = (provider_id, model_id)
        for act in (
            lambda: service.revise(ada, ends["disabled"][0], check=anything, status="disabled"),
            lambda: service.delete(ada, ends["gone"][0], check=anything),
            lambda: service.remove_credential(ada, ends["without its key"][0], check=anything),
            lambda: models.revise(ada, *ends["model disabled"], check=anything, status="disabled"),
            lambda: models.delete(ada, *ends["model gone"], check=anything),
        ):
            async with acting_as(ada):
                await act()

        told = {
            name: why_not(await serving.route(ada.tenant_id, name.replace(" ", "-")))
            for name in ends
        }

        assert told == {
            "disabled": "disabled",
            "gone": "not-found",
            "without its key": "credential-missing",
            "model disabled": "disabled",
            "model gone": "not-found",
        }

    async def test_with_a_key_that_does_not_open_are_not_called(
        self, serving: Serving, ada: Principal
    ) -> None:
        await serving.deploy_new(ada, "bot")
        others = SealedCredentials(Sealer(FixedKeys([RingKey.derived("another secret here")])))

        assert (
            why_not(
                await Serving(database=serving.database, seals=others).route(ada.tenant_id, "bot")
            )
            == "credential-unreadable"
        )

    async def test_that_want_no_key_go_without(self, serving: Serving, ada: Principal) -> None:
        provider_id = await serving.connect(
            ada, type="vllm", base_url="https://gpu.example.com/v1", key=None
        )
        await serving.deploy(ada, "own", await serving.add_model(ada, provider_id))

        (target,) = (await serving.route(ada.tenant_id, "own")).targets

        assert target.endpoint.headers == {}


class TestGrantedSuppliers:
    @pytest.mark.parametrize("end", ["revoked", "suspended", "deleted"])
    async def test_are_called_with_their_owners_key_until_the_grant_ends(
        self, serving: Serving, superuser: Superuser, ada: Principal, olga: Principal, end: str
    ) -> None:
        await add_tenant(superuser, olga.tenant_id)
        provider_id = await serving.connect(olga)
        model_id = await serving.add_model(olga, provider_id)
        async with acting_as(olga):
            await serving.suppliers.grant(as_operator(olga), provider_id, ada.tenant_id)
        await serving.deploy(ada, "theirs", model_id)
        (before,) = (await serving.route(ada.tenant_id, "theirs")).targets
        if end == "revoked":
            async with acting_as(olga):
                await serving.suppliers.revoke(as_operator(olga), provider_id, ada.tenant_id)
        else:
            await close(superuser, olga.tenant_id, end)

        after = await serving.route(ada.tenant_id, "theirs")

        assert before.endpoint.headers["Authorization"] == f"Bearer {KEY.plain}"
        assert before.price is not None
        assert why_not(after) == "not-found"

    async def test_are_not_called_by_whoever_knows_an_id(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        model_id = await serving.add_model(olga, await serving.connect(olga))

        told = await serving.supplied.read(ada.tenant_id, [model_id])
        seen = await serving.supplied.find_visible(ada.tenant_id, [model_id])

        assert (told, seen) == ({model_id: "not-found"}, frozenset())


class TestNames:
    async def test_lead_to_ones_own_then_to_granted_then_to_public(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        third = make_principal()
        made = {
            "public, younger": await serving.deploy_new(as_operator(third), "bot"),
            "granted": await serving.deploy_new(olga, "bot"),
            "own": await serving.deploy_new(ada, "bot"),
        }
        fourth = make_principal()
        made["public"] = await serving.deploy_new(as_operator(fourth), "bot", visibility="public")
        await serving.revise(as_operator(third), made["public, younger"], visibility="public")
        await serving.grant(olga, made["granted"], ada)
        # The younger of two public ones is the one that was made later, whenever it was shared.
        by_age = ["public, younger", "public"]

        found = []
        for owner, each in (
            (ada, "own"),
            (olga, "granted"),
            (third, by_age[0]),
            (fourth, by_age[1]),
        ):
            found.append((await serving.route(ada.tenant_id, "bot")).deployment_id)
            await serving.delete(owner, made[each])

        assert found == [made[each].id for each in ("own", "granted", *by_age)]
        with pytest.raises(UnknownModelError):
            await serving.route(ada.tenant_id, "bot")

    async def test_granted_first_are_found_first(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        third = make_principal()
        older = await serving.deploy_new(olga, "bot")
        younger = await serving.deploy_new(third, "bot")
        await serving.grant(third, younger, ada)
        await serving.grant(olga, older, ada)

        assert (await serving.route(ada.tenant_id, "bot")).deployment_id == younger.id

    async def test_that_are_switched_off_lead_nowhere_else(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        await serving.deploy_new(as_operator(olga), "bot", visibility="public")
        await serving.deploy_new(ada, "bot", status="disabled")
        routes = serving.make_routes()

        with pytest.raises(UnknownModelError):
            await routes.get(ada.tenant_id, "bot")
        assert await routes.list_names(ada.tenant_id) == []
        assert [each.name for each in await routes.list_names(olga.tenant_id)] == ["bot"]

    async def test_of_ones_own_are_read_while_they_are_off(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        made = await serving.deploy_new(ada, "chat")
        await serving.revise(ada, made, status="disabled")
        routes = serving.make_routes()

        route = await routes.get_own(ada.tenant_id, made.id)

        assert (route.deployment_id, len(route.targets)) == (made.id, 1)
        with pytest.raises(UnknownModelError):
            await routes.get_own(olga.tenant_id, made.id)

    async def test_are_the_same_if_they_look_the_same(
        self, serving: Serving, ada: Principal
    ) -> None:
        await serving.deploy_new(ada, "caf\u00e9")
        routes = serving.make_routes()

        found = [await routes.get(ada.tenant_id, asked) for asked in ("caf\u00e9", "cafe\u0301")]

        assert [each.name for each in found] == ["caf\u00e9"] * 2

    @pytest.mark.parametrize(
        "asked",
        [
            "CAF\u00c9",
            "\uff43\uff41\uff46\u00e9",
            "caf\u00e9 ",
            "caf\u00e9\u200b",
            "caf\u00e9\x00",
            "\ud800",
            "",
        ],
    )
    async def test_are_others_by_case_width_or_what_cannot_be_seen(
        self, serving: Serving, ada: Principal, asked: str
    ) -> None:
        await serving.deploy_new(ada, "caf\u00e9")

        with pytest.raises(UnknownModelError):
            await serving.route(ada.tenant_id, asked)

    async def test_of_suppliers_and_of_strangers_lead_nowhere(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        await serving.deploy_new(ada, "bot")

        for tenant_id, name in ((olga.tenant_id, "bot"), (ada.tenant_id, "gpt-4o")):
            with pytest.raises(UnknownModelError):
                await serving.route(tenant_id, name)

    async def test_are_listed_as_they_are_found(
        self, serving: Serving, superuser: Superuser, ada: Principal, olga: Principal
    ) -> None:
        await add_tenant(superuser, olga.tenant_id)
        await serving.deploy_new(as_operator(olga), "shared", visibility="public")
        await serving.deploy_new(as_operator(olga), "both", visibility="public")
        granted = await serving.deploy_new(olga, "granted")
        await serving.grant(olga, granted, ada)
        await serving.deploy_new(olga, "hidden")
        own = await serving.deploy_new(ada, "both")
        routes = serving.make_routes()

        listed = await routes.list_names(ada.tenant_id)
        await close(superuser, olga.tenant_id, "suspended")
        left = await routes.list_names(ada.tenant_id)

        ours, theirs = str(ada.tenant_id), str(olga.tenant_id)
        assert [(each.name, each.owner) for each in listed] == [
            ("both", ours),
            ("granted", theirs),
            ("shared", theirs),
        ]
        assert [(each.name, each.created_at) for each in left] == [("both", own.created_at)]


class TestSharedDeployments:
    @pytest.mark.parametrize("status", ["suspended", "deleted"])
    async def test_of_a_tenant_that_may_not_act_lead_nowhere(
        self, serving: Serving, superuser: Superuser, ada: Principal, olga: Principal, status: str
    ) -> None:
        await add_tenant(superuser, olga.tenant_id)
        granted = await serving.deploy_new(olga, "granted")
        await serving.grant(olga, granted, ada)
        public = await serving.deploy_new(as_operator(olga), "public", visibility="public")
        found = [await serving.route(ada.tenant_id, name) for name in ("granted", "public")]
        await close(superuser, olga.tenant_id, status)

        assert [each.deployment_id for each in found] == [granted.id, public.id]
        for name in ("granted", "public"):
            with pytest.raises(UnknownModelError):
                await serving.route(ada.tenant_id, name)

    async def test_are_called_by_the_rights_of_their_own_tenant(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        """The caller sees neither the supplier nor its model, and calls them all the same."""
        made = await serving.deploy_new(olga, "bot")
        await serving.grant(olga, made, ada)

        (target,) = (await serving.route(ada.tenant_id, "bot")).targets

        assert target.endpoint.headers["Authorization"] == f"Bearer {KEY.plain}"
        assert target.price is not None
        model_id = target.origin.provider_model_id
        assert model_id is not None
        visible = await serving.supplied.find_visible(ada.tenant_id, [model_id])
        assert visible == frozenset()


class TestFreshness:
    """A process goes by what it read for less than a second, and by nothing older."""

    async def test_a_change_is_felt_once_a_second_is_over(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        provider_id = await serving.connect(ada)
        model_id = await serving.add_model(ada, provider_id)
        made = await serving.deploy(ada, "bot", model_id)
        await serving.grant(ada, made, olga)
        routes = serving.make_routes()
        first = await routes.get(ada.tenant_id, "bot")
        await routes.get(olga.tenant_id, "bot")
        async with acting_as(ada):
            await serving.suppliers.revise(ada, provider_id, check=anything, status="disabled")
        async with acting_as(ada):
            await serving.deployments.revoke(made.id, olga.tenant_id)
        serving.now = 0.999
        kept = await routes.get(ada.tenant_id, "bot")
        serving.now = 1.0
        fresh = await routes.get(ada.tenant_id, "bot")

        assert kept is first
        assert why_not(fresh) == "disabled"
        with pytest.raises(UnknownModelError):
            await routes.get(olga.tenant_id, "bot")

    async def test_two_tenants_share_one_route(
        self, serving: Serving, ada: Principal, olga: Principal
    ) -> None:
        made = await serving.deploy_new(ada, "bot")
        await serving.grant(ada, made, olga)
        routes = serving.make_routes()

        first, *others = await asyncio.gather(
            *(routes.get(who.tenant_id, "bot") for who in (ada, olga) * 10)
        )

        assert all(each is first for each in others)

    async def test_what_was_not_there_is_found_as_soon_as_it_is(
        self, serving: Serving, ada: Principal
    ) -> None:
        routes = serving.make_routes()
        with pytest.raises(UnknownModelError):
            await routes.get(ada.tenant_id, "bot")
        made = await serving.deploy_new(ada, "bot")

        assert (await routes.get(ada.tenant_id, "bot")).deployment_id == made.id
