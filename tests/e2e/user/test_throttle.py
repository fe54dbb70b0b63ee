"""Guessing passwords over HTTP: ever longer waits, and a way in for whoever is known."""

import asyncio

import httpx
import pytest

from tests.conftest import MakeSettings
from tests.e2e.conftest import Flush, MakePerson, serving_app
from tests.factories.accounts import PASSWORD

pytestmark = pytest.mark.e2e

LOGIN = "/api/v1/auth/login"
WRONG = "not the right one"
PROXIES = {"server": {"trusted_proxies": ("127.0.0.1/32",)}}


async def attempt(
    client: httpx.AsyncClient, login: str, password: str = WRONG, *, address: str = "127.0.0.1"
) -> httpx.Response:
    return await client.post(
        LOGIN,
        json={"username": login, "password": password},
        headers={"X-Forwarded-For": address},
    )


def shown(answer: httpx.Response) -> tuple[int, object, list[str]]:
    """Everything an answer tells, without what differs from request to request."""
    body = {k: v for k, v in answer.json().items() if k != "request_id"}
    return answer.status_code, body, sorted(answer.headers)


class TestThrottle:
    async def test_a_known_and_an_unknown_name_are_held_alike(
        self, make_settings: MakeSettings, make_person: MakePerson
    ) -> None:
        await make_person("ada")
        async with serving_app(make_settings(**PROXIES)) as proxied:
            ada = [await attempt(proxied, "ada", address=f"192.0.2.{n}") for n in range(5)]
            eve = [await attempt(proxied, "eve", address=f"192.0.2.{n + 9}") for n in range(5)]

        assert [answer.status_code for answer in ada] == [401, 401, 401, 429, 429]
        assert [shown(answer) for answer in ada] == [shown(answer) for answer in eve]
        assert ada[3].json()["code"] == "too-many-logins"
        assert ada[3].headers["retry-after"] == eve[3].headers["retry-after"] == "4"

    async def test_strangers_lock_nobody_out_of_a_known_address(
        self, make_settings: MakeSettings, make_person: MakePerson
    ) -> None:
        await make_person("ada")
        async with serving_app(make_settings(**PROXIES)) as proxied:
            home = "198.51.100.1"
            assert (await attempt(proxied, "ada", PASSWORD, address=home)).status_code == 200
            for number in range(20):
                await attempt(proxied, "ada", address=f"192.0.2.{number}")

            from_new_place = await attempt(proxied, "ada", PASSWORD, address="203.0.113.5")
            from_home = await attempt(proxied, "ada", PASSWORD, address=home)

        assert from_new_place.status_code == 429
        assert from_home.status_code == 200

    async def test_a_hundred_at_once_get_ten_comparisons_at_most(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        answers = await asyncio.gather(*(attempt(client, "ada") for _ in range(100)))

        codes = [answer.status_code for answer in answers]
        assert set(codes) == {401, 429}
        assert codes.count(401) <= 10

    async def test_both_names_of_an_account_share_its_guesses(
        self, make_settings: MakeSettings, make_person: MakePerson
    ) -> None:
        await make_person("ada")
        async with serving_app(make_settings(**PROXIES)) as proxied:
            for number in range(3):
                await attempt(proxied, "ada", address=f"192.0.2.{number}")

            other_name = await attempt(proxied, "ada@example.com", PASSWORD, address="203.0.113.5")

        assert other_name.status_code == 401

    async def test_the_trail_tells(
        self, client: httpx.AsyncClient, make_person: MakePerson, flush: Flush
    ) -> None:
        ada = await make_person("ada")
        for _ in range(4):
            await attempt(client, "ada")

        await flush()

        logs = await client.get(
            "/api/v1/audit/logs?action=auth.login&outcome=failure", headers=ada.headers
        )
        reasons = [event["reason"] for event in logs.json()["items"]]
        assert reasons == ["too-many-logins", *["invalid-credentials"] * 3]

    async def test_it_can_be_turned_off(
        self, make_settings: MakeSettings, make_person: MakePerson
    ) -> None:
        await make_person("ada")
        async with serving_app(make_settings(auth={"login_throttle": False})) as free:
            codes = [(await attempt(free, "ada")).status_code for _ in range(12)]

        assert set(codes) == {401}

    async def test_an_outage_of_redis_gives_no_second_count(
        self,
        make_settings: MakeSettings,
        client: httpx.AsyncClient,
        make_person: MakePerson,
    ) -> None:
        await make_person("ada")
        async with serving_app(make_settings(redis={"url": "redis://127.0.0.1:1/0"})) as cut_off:
            codes = [
                (await attempt(api, "ada")).status_code
                for api in (cut_off, client, client, cut_off)
            ]

        assert codes == [401, 401, 401, 429]
