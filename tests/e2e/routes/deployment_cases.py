"""Rows of the routes of deployments."""

from dataclasses import replace
from typing import Any

from maas.shared.domain.ids import new_id
from tests.e2e.routes.making import Make, plain
from tests.e2e.routes.world import ANSWERED, API, Case, World

ANY = {"If-Match": "*"}


async def create_deployment(world: World) -> Case:
    provider = await world.made("/providers", {"name": world.name(), "type": "openai"})
    model = await world.made(f"/providers/{provider['id']}/models", {"name": "gpt-4o-mini"})
    body: dict[str, Any] = {
        "name": world.name(),
        "targets": [{"kind": "provider", "provider_model_id": model["id"]}],
    }
    return Case(caller=world.root, json=body, resource=("deployment", ANSWERED))


def on_deployment(body: object = None, *, granted: bool = False, **values: str) -> Make:
    """Make a case of a deployment, granted to the tenant of the case if need be."""

    async def make(world: World) -> Case:
        case = await create_deployment(world)
        made = await world.made("/deployments", case.json)
        if granted:
            there = await world.client.put(
                f"{API}/deployments/{made['id']}/grants/{values['tenant_id']}",
                headers=world.root.headers,
            )
            assert there.is_success, there.text
        return replace(
            case,
            values={"deployment_id": made["id"], **values},
            missing={"deployment_id": str(new_id()), **values},
            json=body,
            headers=ANY,
            resource=("deployment", made["id"]),
        )

    return make


_GRANTEE = str(new_id())

DEPLOYMENT_ROWS: dict[str, Make] = {
    "GET /deployments": plain(),
    "POST /deployments": create_deployment,
    "GET /deployments/{deployment_id}": on_deployment(),
    "PUT /deployments/{deployment_id}": on_deployment({"status": "disabled"}),
    "DELETE /deployments/{deployment_id}": on_deployment(),
    "GET /deployments/{deployment_id}/grants": on_deployment(),
    "GET /deployments/{deployment_id}/metrics": on_deployment(),
    "PUT /deployments/{deployment_id}/grants/{tenant_id}": on_deployment(tenant_id=_GRANTEE),
    "DELETE /deployments/{deployment_id}/grants/{tenant_id}": on_deployment(
        granted=True, tenant_id=_GRANTEE
    ),
}
