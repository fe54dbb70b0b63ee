"""Rows of the routes of suppliers."""

from dataclasses import replace

from maas.shared.domain.ids import new_id
from tests.e2e.routes.making import Make, plain
from tests.e2e.routes.world import ANSWERED, API, Case, World

ANY = {"If-Match": "*"}


async def create_provider(world: World) -> Case:
    body = {"name": world.name(), "type": "openai"}
    return Case(caller=world.root, json=body, resource=("provider", ANSWERED))


def on_provider(body: object = None, *, puts: str | None = None, **values: str) -> Make:
    """Make a case of a provider; `puts` is a path under it that is put before."""

    async def make(world: World) -> Case:
        case = await create_provider(world)
        made = await world.made("/providers", case.json)
        if puts is not None:
            content = {"api_key": "sk-example"} if puts == "credential" else None
            there = await world.client.put(
                f"{API}/providers/{made['id']}/{puts}",
                json=content,
                headers={**world.root.headers, **ANY},
            )
            assert there.is_success, there.text
        return Case(
            caller=world.root,
            values={"provider_id": made["id"], **values},
            missing={"provider_id": str(new_id()), **values},
            json=body,
            headers=ANY,
            resource=("provider", made["id"]),
        )

    return make


def on_model(body: object = None) -> Make:
    """Make a case of a provider's model."""

    async def make(world: World) -> Case:
        case = await on_provider()(world)
        path = f"/providers/{case.values['provider_id']}/models"
        made = await world.made(path, {"name": "gpt-4o-mini"})
        return replace(
            case,
            values={**case.values, "model_id": made["id"]},
            missing={**case.values, "model_id": str(new_id())},
            json=body,
            resource=("provider_model", made["id"]),
        )

    return make


async def on_price(world: World) -> Case:
    case = await on_model()(world)
    path = _MODEL.format(**case.values)
    made = await world.made(f"{path}/prices", _PRICE)
    return replace(
        case,
        values={**case.values, "price_id": made["id"]},
        missing={**case.values, "price_id": str(new_id())},
    )


async def create_model(world: World) -> Case:
    case = await on_provider({"name": "gpt-4o-mini"})(world)
    return replace(case, resource=("provider_model", ANSWERED))


def on_supplier(body: object = None) -> Make:
    """Make a case of a provider that is there and answers."""

    async def make(world: World) -> Case:
        case = await on_provider(body)(world)
        new = {"name": world.name(), "type": "vllm", "base_url": world.supplier_url}
        made = await world.made("/providers", new)
        return replace(case, values={"provider_id": made["id"]}, resource=("provider", made["id"]))

    return make


_MODEL = "/providers/{provider_id}/models/{model_id}"
_PRICE = {"currency": "USD", "input": "2.50", "output": "10"}
_GRANTEE = str(new_id())

PROVIDER_ROWS: dict[str, Make] = {
    "GET /provider-types": plain(),
    "GET /providers": plain(),
    "POST /providers": create_provider,
    "GET /providers/{provider_id}": on_provider(),
    "PUT /providers/{provider_id}": on_provider({"status": "disabled"}),
    "DELETE /providers/{provider_id}": on_provider(),
    "PUT /providers/{provider_id}/credential": on_provider({"api_key": "sk-example"}),
    "DELETE /providers/{provider_id}/credential": on_provider(puts="credential"),
    "GET /providers/{provider_id}/grants": on_provider(),
    "PUT /providers/{provider_id}/grants/{tenant_id}": on_provider(tenant_id=_GRANTEE),
    "DELETE /providers/{provider_id}/grants/{tenant_id}": on_provider(
        puts=f"grants/{_GRANTEE}", tenant_id=_GRANTEE
    ),
    "POST /providers/{provider_id}/test": on_supplier({}),
    "GET /providers/{provider_id}/discovery": on_supplier(),
    "GET /providers/{provider_id}/models": on_provider(),
    "POST /providers/{provider_id}/models": create_model,
    f"GET {_MODEL}": on_model(),
    f"PUT {_MODEL}": on_model({"context_length": 128_000}),
    f"DELETE {_MODEL}": on_model(),
    f"GET {_MODEL}/prices": on_model(),
    f"POST {_MODEL}/prices": on_model(_PRICE),
    f"GET {_MODEL}/prices/{{price_id}}": on_price,
}
