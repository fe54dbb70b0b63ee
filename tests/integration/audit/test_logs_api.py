"""`/api/v1/audit/logs` over HTTP; only who is calling is made up."""

from typing import Any

import httpx
import pytest

from maas.audit.public import Actor
from maas.shared.domain.ids import TenantId, new_id
from tests.integration.audit.conftest import FakeAuthenticator
from tests.integration.audit.helpers import Trail, names

pytestmark = pytest.mark.integration

LOGS = "/api/v1/audit/logs"


async def test_lists_pages_and_shows_one(client: httpx.AsyncClient, trail: Trail) -> None:
    events = [trail.make("model.created") for _ in range(3)]
    await trail.add(*events)
    await trail.flush().run()

    first = (await client.get(LOGS, params={"limit": 2, "include_total": "true"})).json()
    second = (await client.get(LOGS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    one = await client.get(f"{LOGS}/{events[0].id}")

    assert [item["id"] for item in first["items"] + second["items"]] == names(*events)[::-1]
    assert first["total"] == 3
    assert second["next_cursor"] is None
    assert one.status_code == 200
    assert one.json() == second["items"][0]
    assert one.json()["occurred_at"].endswith("Z")
    assert one.json()["actor"]["name"] == "ada"


async def test_a_read_is_itself_in_the_trail(
    client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
) -> None:
    await client.get(LOGS)
    await client.get(f"{LOGS}/{new_id()}")
    await trail.flush().run()

    items: list[dict[str, Any]] = (await client.get(LOGS, params={"action": "audit.*"})).json()[
        "items"
    ]
    assert [(item["outcome"], item["reason"]) for item in items] == [
        ("failure", "audit-event-not-found"),
        ("success", None),
    ]
    assert {item["actor"]["id"] for item in items} == {str(authenticator.account_id)}


async def test_without_the_permission_is_denied_and_that_is_recorded(
    client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
) -> None:
    authenticator.permissions = frozenset({"model:read"})

    answer = await client.get(LOGS)

    assert answer.status_code == 403
    entries = await trail.entries()
    assert len(entries) == 1
    assert b'"outcome":"denied"' in entries[0][1][b"payload"]


async def test_of_another_tenant_is_not_there(
    client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
) -> None:
    event = trail.make()
    await trail.add(event)
    await trail.flush().run()
    authenticator.tenant_id = TenantId(new_id())

    shown = await client.get(f"{LOGS}/{event.id}")
    listed = await client.get(LOGS)

    assert shown.status_code == 404
    assert shown.json()["code"] == "audit-event-not-found"
    assert listed.json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    "query",
    [
        {"actor_id": "ada"},
        {"action": "a*b"},
        {"action": "x' OR 1=1"},
        {"action": ""},
        {"actions": "model.created"},
        {"outcome": "maybe"},
        {"address": "192.0.2.7/8"},
        {"address": "somewhere"},
        {"since": "yesterday"},
        {"until": "2026-11-21T08:00:00"},
        {"limit": 0},
        {"limit": 201},
        {"cursor": "x"},
        {"request_id": ""},
        {"order": "upwards"},
        {"session_id": "1"},
        {"api_key_id": "key"},
        {"q": ""},
        {"q": "x" * 201},
        {"q": "a\0b"},
        {"resource_id": "a\0b"},
    ],
    ids=str,
)
async def test_a_wrong_filter_is_refused(
    client: httpx.AsyncClient, query: dict[str, str | int]
) -> None:
    answer = await client.get(LOGS, params=query)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"address": "192.0.2.7"}, 1),
        ({"address": "192.0.2.0/24"}, 1),
        ({"address": "2001:db8::/32"}, 0),
        ({"action": "model.*", "outcome": "success", "resource_kind": "model"}, 1),
        ({"since": "2026-01-01T00:00:00Z", "until": "2199-01-01T00:00:00Z"}, 1),
        ({"q": "EL.CRE"}, 1),
        ({"q": "%"}, 0),
        ({"q": "\u202e"}, 0),
        ({"order": "oldest", "q": "ada"}, 1),
        ({"session_id": "01935d2e-0000-7000-8000-000000000004"}, 0),
    ],
    ids=str,
)
async def test_filters(
    client: httpx.AsyncClient, trail: Trail, query: dict[str, str], found: int
) -> None:
    await trail.add(trail.make("model.created", resource_kind="model", resource_id="m1"))
    await trail.flush().run()

    answer = await client.get(LOGS, params=query)

    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == found


@pytest.mark.parametrize("other", [{"order": "oldest"}, {"q": "model"}, {"outcome": "success"}])
async def test_a_cursor_goes_with_its_order_and_its_filters(
    client: httpx.AsyncClient, trail: Trail, other: dict[str, str]
) -> None:
    await trail.add(*[trail.make("model.created") for _ in range(3)])
    await trail.flush().run()
    query = {"limit": "1", "action": "model.*"}
    cursor = (await client.get(LOGS, params=query)).json()["next_cursor"]

    same = await client.get(LOGS, params={**query, "limit": "2", "cursor": cursor})
    another = await client.get(LOGS, params={**query, **other, "cursor": cursor})
    cut = await client.get(LOGS, params={**query, "cursor": cursor[:-8]})

    assert len(same.json()["items"]) == 2
    assert another.status_code == 422
    assert another.json()["code"] == "cursor-of-another-list"
    assert cut.status_code == 422
    assert cut.json()["code"] == "invalid-cursor"


async def test_pages_oldest_first(client: httpx.AsyncClient, trail: Trail) -> None:
    events = [trail.make("model.created") for _ in range(3)]
    await trail.add(*events)
    await trail.flush().run()
    query = {"limit": "2", "order": "oldest", "action": "model.created"}

    first = (await client.get(LOGS, params=query)).json()
    second = (await client.get(LOGS, params={**query, "cursor": first["next_cursor"]})).json()

    assert [item["id"] for item in first["items"] + second["items"]] == names(*events)


async def test_shows_an_event_with_its_neighbours(
    client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
) -> None:
    actor = Actor("account", new_id(), "ada")
    events = [trail.make("model.created", actor=actor) for _ in range(3)]
    await trail.add(*events)
    await trail.flush().run()

    answer = await client.get(f"{LOGS}/{events[1].id}/neighbours")
    authenticator.tenant_id = TenantId(new_id())
    foreign = await client.get(f"{LOGS}/{events[1].id}/neighbours")

    near = answer.json()
    assert near["event"]["id"] == str(events[1].id)
    assert near["request"] == []
    assert [item["id"] for item in near["before"]] == names(events[0])
    assert [item["id"] for item in near["after"]] == names(events[2])
    assert foreign.status_code == 404
