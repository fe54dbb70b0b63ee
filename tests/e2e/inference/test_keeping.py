"""Answers kept for the same call, and prompts kept for their own tenant, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg
import httpx
import pytest

from maas.shared.infrastructure.settings import Settings
from tests.e2e.conftest import Flush, MakePerson, Person
from tests.e2e.inference.gateway import Gateway, opened
from tests.factories.accounts import PASSWORD
from tests.upstream.desk import Desk

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

CANARY: Final = "canary-of-a-prompt"
ASKED: Final = {"model": "bot", "messages": [{"role": "user", "content": CANARY}]}
MINUTE: Final = 60
WAIT_SECONDS: Final = 10.0

EVENTS: Final = """
    SELECT convert_from(payload, 'UTF8')::jsonb AS payload FROM audit_log
    WHERE request_id = $1 AND action = 'inference.completed'
"""
USAGE: Final = """
    SELECT requests, input_tokens + output_tokens AS tokens, cost_nanos FROM usage
    WHERE request_id = $1
"""


async def call(gateway: Gateway, *, key: str = "", **fields: Any) -> httpx.Response:
    return await gateway.http.post(
        "/v1/chat/completions",
        json={**ASKED, **fields},
        headers={"Authorization": f"Bearer {key or gateway.key}"},
    )


async def other_tenants_key(gateway: Gateway, person: Person) -> str:
    """Make another tenant, and a key there that may call."""
    users = await gateway.http.get(
        "/api/v1/admin/users", params={"q": person.username}, headers=gateway.root.headers
    )
    admin = users.json()["items"][0]["id"]
    await gateway.made("/admin/tenants", {"slug": "other", "name": "Other", "admin_id": admin})
    login = await gateway.http.post(
        "/api/v1/auth/login",
        json={"username": person.username, "password": PASSWORD, "tenant": "other"},
    )
    made = await gateway.http.post(
        "/api/v1/users/api-keys",
        json={"name": "caller", "scopes": ["inference:call", "capture:read"]},
        headers={"Authorization": f"Bearer {login.json()['access_token']}"},
    )
    return str(made.json()["key"])


async def captured(gateway: Gateway, request_id: str, **headers: str) -> tuple[int, dict[str, Any]]:
    answer = await gateway.http.get(
        f"/api/v1/receipts/{request_id}/capture", headers=headers or gateway.root.headers
    )
    return answer.status_code, answer.json()


async def until_captured(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """Wait until it is written, which no call waits for."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            status, told = await captured(gateway, request_id)
            if status == 200:
                [item] = told["items"]
                return dict(item)
            assert (status, told["code"]) == (404, "capture-not-found")
            await asyncio.sleep(0.02)


class TestCache:
    async def test_the_same_call_is_answered_once_and_booked_twice(
        self,
        gateway: Gateway,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        await gateway.deploy(cache_seconds=MINUTE)

        first = await call(gateway)
        again = await call(gateway, user="somebody-else")
        different = await call(gateway, temperature=0)
        streamed = await call(gateway, stream=True)
        await flush()

        told = [each.headers.get("x-maas-cache") for each in (first, again, different, streamed)]
        assert told == ["miss", "hit", "miss", None]
        assert again.content == first.content
        assert len(gateway.calls) == 3
        [paid] = await superuser.fetch(USAGE, first.headers["x-request-id"])
        [free] = await superuser.fetch(USAGE, again.headers["x-request-id"])
        assert paid["tokens"] > 0 < paid["cost_nanos"]
        assert dict(free) == {"requests": 1, "tokens": 0, "cost_nanos": 0}
        [event] = await superuser.fetch(EVENTS, again.headers["x-request-id"])
        after = json.loads(event["payload"])["changes"]["after"]
        assert (after["is_cache_hit"], after["answer_of"]) == (
            True,
            first.headers["x-request-id"],
        )

    async def test_no_other_tenant_gets_it(self, gateway: Gateway, make_person: MakePerson) -> None:
        await gateway.deploy(cache_seconds=MINUTE, visibility="public")
        theirs = await other_tenants_key(gateway, await make_person("otto"))

        answers = [await call(gateway), await call(gateway, key=theirs)]

        assert [each.status_code for each in answers] == [200, 200]
        assert [each.headers["x-maas-cache"] for each in answers] == ["miss", "miss"]
        assert len(gateway.calls) == 2

    async def test_a_changed_deployment_answers_anew(self, gateway: Gateway) -> None:
        made = await gateway.deploy(cache_seconds=MINUTE)
        await call(gateway)
        changed = await gateway.http.put(
            f"/api/v1/deployments/{made['id']}",
            json={"description": "Another one."},
            headers={**gateway.root.headers, "If-Match": "*"},
        )
        assert changed.status_code == 200, changed.text

        # What was read of a route may be used for a second.
        async with asyncio.timeout(WAIT_SECONDS):
            while (await call(gateway)).headers["x-maas-cache"] == "hit":  # noqa: ASYNC110  as above
                await asyncio.sleep(0.05)

        assert len(gateway.calls) == 2


@pytest.fixture
async def cut_off(
    calling_settings: Settings, supplier: tuple[Desk, int], make_person: MakePerson
) -> AsyncIterator[Gateway]:
    """Serve with a Redis for the cache that is not there."""
    redis = calling_settings.redis
    gone = type(redis.url)("redis://127.0.0.1:1/0")
    settings = calling_settings.model_copy(
        update={"redis": redis.model_copy(update={"cache_url": gone})}
    )
    root = await make_person("root", roles=("admin", "platform_admin"))
    async with opened(settings, supplier[0], supplier[1], root) as gateway:
        yield gateway


async def test_without_its_redis_calls_are_answered_all_the_same(cut_off: Gateway) -> None:
    await cut_off.deploy(cache_seconds=MINUTE)

    answers = [await call(cut_off), await call(cut_off)]

    assert [each.status_code for each in answers] == [200, 200]
    assert [each.headers["x-maas-cache"] for each in answers] == ["miss", "miss"]


class TestCapture:
    async def test_prompt_and_answer_are_kept_to_the_byte(self, gateway: Gateway) -> None:
        await gateway.deploy(capture_days=1, cache_seconds=MINUTE)

        plain = await call(gateway)
        hit = await call(gateway)
        streamed = await call(gateway, stream=True)

        assert hit.headers["x-maas-cache"] == "hit"
        for answer, is_stream in ((plain, False), (hit, False), (streamed, True)):
            kept = await until_captured(gateway, answer.headers["x-request-id"])
            assert (kept["answer"], kept["is_stream"], kept["is_whole"]) == (
                answer.text,
                is_stream,
                True,
            )
            assert kept["request"] == answer.request.content.decode()
        as_caller = {"Authorization": f"Bearer {gateway.key}"}
        status, problem = await captured(gateway, plain.headers["x-request-id"], **as_caller)
        assert (status, problem["code"]) == (403, "permission-denied")

    async def test_of_a_stream_that_breaks_off_there_is_what_came(self, gateway: Gateway) -> None:
        await gateway.deploy("breaks-off", capture_days=1)

        answer = await call(gateway, stream=True)

        kept = await until_captured(gateway, answer.headers["x-request-id"])
        assert not kept["is_whole"]
        assert kept["answer"]
        assert answer.text.startswith(kept["answer"])

    async def test_of_a_call_that_nobody_answered_there_is_none(self, gateway: Gateway) -> None:
        await gateway.deploy("says-500", capture_days=1)
        refused = [await call(gateway, stream=stream) for stream in (False, True)]
        await gateway.deploy(name="other", capture_days=1)
        last = await call(gateway, model="other")

        # In the order in which they came: those before it would be there.
        await until_captured(gateway, last.headers["x-request-id"])

        for answer in refused:
            assert (await captured(gateway, answer.headers["x-request-id"]))[0] == 404

    async def test_only_the_deployments_own_tenant_is_kept(
        self, gateway: Gateway, make_person: MakePerson
    ) -> None:
        await gateway.deploy(capture_days=1, visibility="public")
        theirs = await other_tenants_key(gateway, await make_person("otto"))
        their_call = await call(gateway, key=theirs)
        our_call = await call(gateway)

        await until_captured(gateway, our_call.headers["x-request-id"])

        ours, foreign = our_call.headers["x-request-id"], their_call.headers["x-request-id"]
        as_them = {"Authorization": f"Bearer {theirs}"}
        assert their_call.status_code == 200
        assert (await captured(gateway, foreign))[0] == 404
        assert (await captured(gateway, foreign, **as_them))[0] == 404
        assert (await captured(gateway, ours, **as_them))[0] == 404

    async def test_off_nothing_of_both_is_kept(
        self,
        gateway: Gateway,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        flush: Flush,
    ) -> None:
        await gateway.deploy()
        answers = [await call(gateway), await call(gateway)]
        await flush()

        assert [each.headers.get("x-maas-cache") for each in answers] == [None, None]
        assert len(gateway.calls) == 2

        for table in ("inference_captures", "audit_log", "audit_personal", "usage"):
            rows = await superuser.fetch(f"SELECT t::text AS row FROM {table} t")
            assert not any(CANARY in row["row"] for row in rows), table
            assert not any(CANARY.encode().hex() in row["row"] for row in rows), table
