"""`/api/v1/audit/stats` over HTTP; only who is calling is made up."""

from typing import Any, TypeAlias

import httpx
import pytest

from maas.main import create_app
from maas.shared.domain.ids import TenantId, new_id
from tests.conftest import MakeSettings
from tests.integration.audit.conftest import FakeAuthenticator
from tests.integration.audit.helpers import Trail

pytestmark = pytest.mark.integration

STATS = "/api/v1/audit/stats"

Query: TypeAlias = list[tuple[str, str | int | float | bool | None]]


WRONG: list[tuple[Query, str]] = [
    ([("group_by", "tenant")], "validation-failed"),
    ([("group_by", "")], "validation-failed"),
    (
        [("group_by", "hour"), ("group_by", "action"), ("group_by", "outcome")],
        "validation-failed",
    ),
    ([("group_by", "hour"), ("group_by", "day")], "not-counted"),
    ([("group_by", "actor"), ("action", "auth.*")], "not-counted"),
    ([("since", "2026-11-02T00:00:00Z"), ("until", "2026-11-01T00:00:00Z")], "not-counted"),
    ([("since", "2199-12-31T00:00:00Z")], "not-counted"),
    ([("group_by", "hour"), ("since", "1970-01-01T00:00:00Z")], "not-counted"),
    ([("since", "yesterday")], "validation-failed"),
    ([("until", "2026-11-21T08:00:00")], "validation-failed"),
    ([("action", "a*b")], "validation-failed"),
    ([("action", "x\x00")], "invalid-url"),
    ([("action", "x'--")], "validation-failed"),
    ([("outcome", "maybe")], "validation-failed"),
    ([("actor_id", "ada")], "validation-failed"),
    ([("limit", "0")], "validation-failed"),
    ([("limit", "201")], "validation-failed"),
    ([("action", "a"), ("action", "b")], "validation-failed"),
    ([("groupby", "action")], "validation-failed"),
]


async def test_wrong_questions_are_refused(client: httpx.AsyncClient) -> None:
    answers = [await client.get(STATS, params=httpx.QueryParams(query)) for query, _ in WRONG]

    assert {answer.status_code for answer in answers} == {422}
    assert [answer.json()["code"] for answer in answers] == [code for _, code in WRONG]


async def test_the_refusal_says_which_parameter_and_what_would_do(
    client: httpx.AsyncClient,
) -> None:
    query: Query = [("group_by", "hour"), ("since", "2025-01-01T00:00:00Z")]
    answer = await client.get(STATS, params=httpx.QueryParams(query))

    assert answer.json()["errors"][0]["loc"] == ["query", "since"]
    assert "1,000 is the most" in answer.json()["detail"]


async def test_without_the_permission_is_denied(
    client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
) -> None:
    authenticator.permissions = frozenset({"model:read"})

    answer = await client.get(STATS)

    assert answer.status_code == 403
    assert b'"outcome":"denied"' in (await trail.entries())[0][1][b"payload"]


async def test_without_postgresql_is_unavailable(
    make_settings: MakeSettings, authenticator: FakeAuthenticator
) -> None:
    gone = "postgresql+asyncpg://maas_app@127.0.0.1:1/none"
    app = create_app(make_settings(database={"url": gone, "owner_url": gone}))
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: dict[str, object], receive: object, send: object) -> None:
            scope["state"] = {**(state or {}), "authenticator": authenticator}
            await app(scope, receive, send)  # type: ignore[arg-type]  # httpx types it loosely

        transport = httpx.ASGITransport(app=with_state)  # type: ignore[arg-type]  # likewise
        async with httpx.AsyncClient(transport=transport, base_url="http://maas.test") as client:
            answer = await client.get(STATS, headers={"Authorization": "Bearer ada"})

    assert (answer.status_code, answer.json()["code"]) == (503, "dependency-unavailable")


async def test_another_tenants_events_are_not_counted(
    client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
) -> None:
    await trail.add(trail.make())
    await trail.flush().run()
    own = (await client.get(STATS)).json()
    authenticator.tenant_id = TenantId(new_id())

    foreign = (await client.get(STATS)).json()

    assert (own["total"], len(own["items"])) == (1, 1)
    assert (foreign["total"], foreign["items"], foreign["groups"]) == (0, [], 0)


@pytest.mark.parametrize("until", ["2199-12-31T23:59:59.999999Z", "1970-01-01T00:00:00.000001Z"])
async def test_the_ends_of_time_are_no_fault(client: httpx.AsyncClient, until: str) -> None:
    answer = await client.get(STATS, params={"until": until, "group_by": "day"})

    assert answer.status_code == 200, answer.text
    assert all(item["events"] == 0 for item in answer.json()["items"])


async def test_counts_what_was_done_and_the_asking_itself(
    client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
) -> None:
    await trail.add(
        trail.make("auth.login"),
        trail.make("auth.login", outcome="failure", reason="no"),
        trail.make("model.created"),
    )
    await client.get(STATS)
    await trail.flush().run()

    by_action: dict[str, Any] = (await client.get(STATS, params={"limit": 2})).json()
    own = {"actor_id": str(authenticator.account_id)}
    by_day: dict[str, Any] = (await client.get(STATS, params=own)).json()
    mine: dict[str, Any] = (await client.get(STATS, params={**own, "group_by": "actor"})).json()

    assert by_action["group_by"] == ["action"]
    assert by_action["items"][0] == {
        "at": None,
        "action": "auth.login",
        "actor": None,
        "outcome": None,
        "events": 2,
        "outcomes": {"success": 1, "failure": 1, "denied": 0},
    }
    assert [item["action"] for item in by_action["items"]] == ["auth.login", "audit.read"]
    assert (by_action["total"], by_action["groups"], by_action["other_events"]) == (4, 3, 1)
    assert mine["items"][0]["actor"]["id"] == own["actor_id"]
    assert (by_day["group_by"], len(by_day["items"])) == (["day"], 31)
    assert by_day["total"] == mine["total"] == 1


async def test_a_chart_has_a_point_for_every_hour(client: httpx.AsyncClient, trail: Trail) -> None:
    await trail.add(trail.make("auth.login"))
    await trail.flush().run()

    answer = (await client.get(STATS, params={"group_by": "hour"})).json()

    times = [item["at"] for item in answer["items"]]
    assert len(times) == len(set(times)) >= 720
    assert times == sorted(times)
    assert times[0] == answer["since"]
    assert sum(item["events"] for item in answer["items"]) == answer["total"] == 1
