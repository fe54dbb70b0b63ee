"""Quotas set through the API itself, for the tests of them."""

from typing import Any

import httpx

from tests.e2e.conftest import Person
from tests.e2e.user.keys import KEYS, SERVICES
from tests.e2e.user.people import TENANTS, USERS

OWN, TENANTS_OWN = "/api/v1/users/quota", "/api/v1/admin/quota"


def of_user(account_id: str) -> str:
    return f"{USERS}/{account_id}/quota"


def of_key(key_id: str) -> str:
    return f"{KEYS}/{key_id}/quota"


def of_service(service_id: str) -> str:
    return f"{SERVICES}/{service_id}/quota"


def of_tenant(tenant_id: str) -> str:
    return f"{TENANTS}/{tenant_id}/quota"


def tokens(limit: object, period: str = "month") -> dict[str, object]:
    return {"meter": "tokens", "period": period, "limit": limit}


def cost(limit: object, currency: str = "EUR", period: str = "month") -> dict[str, object]:
    return {"meter": "cost", "period": period, "currency": currency, "limit": limit}


async def put(
    client: httpx.AsyncClient,
    who: Person | dict[str, str],
    path: str,
    *quotas: dict[str, object],
    if_match: str = "*",
) -> httpx.Response:
    headers = who.headers if isinstance(who, Person) else who
    return await client.put(
        path, json={"quotas": list(quotas)}, headers={**headers, "If-Match": if_match}
    )


async def limits(
    client: httpx.AsyncClient, who: Person | dict[str, str], path: str = OWN
) -> list[tuple[Any, ...]]:
    """Tell scope, meter, period and limit of each quota there."""
    headers = who.headers if isinstance(who, Person) else who
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return [
        (each["scope"], each["meter"], each["period"], each["limit"])
        for each in answer.json()["quotas"]
    ]
