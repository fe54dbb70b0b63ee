"""One refresh token used many times at once, at two applications that share their servers."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import asyncpg
import httpx
import pytest

from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from tests.e2e.conftest import MakePerson, Person, serving_app

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

REFRESH, PROFILE = "/api/v1/auth/refresh", "/api/v1/users/profile"
THEFTS = 10


@pytest.fixture
async def apps(
    client: httpx.AsyncClient, settings: Settings, database: Database
) -> AsyncIterator[Sequence[httpx.AsyncClient]]:
    async with serving_app(settings) as other:
        yield client, other


async def use(app: httpx.AsyncClient, token: str) -> httpx.Response:
    return await app.post(REFRESH, json={"refresh_token": token})


async def use_at_once(
    apps: Sequence[httpx.AsyncClient], token: str, times: int
) -> list[httpx.Response]:
    turns = itertools.islice(itertools.cycle(apps), times)
    return await asyncio.gather(*(use(app, token) for app in turns))


async def successor(app: httpx.AsyncClient, token: str) -> str:
    answer = await use(app, token)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["refresh_token"])


class TestOneToken:
    @pytest.mark.parametrize("times", [20, 100, 200])
    async def test_has_one_successor_however_often_it_is_used_at_once(
        self,
        apps: Sequence[httpx.AsyncClient],
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        times: int,
    ) -> None:
        person = await make_person("ada", roles=("user",))

        answers = await use_at_once(apps, person.refresh_token, times)

        assert Counter(answer.status_code for answer in answers) == {200: times}
        successors = {answer.json()["refresh_token"] for answer in answers}
        assert len(successors) == 1
        rows = await superuser.fetch("SELECT generation, revoked_at FROM sessions")
        assert [(row["generation"], row["revoked_at"]) for row in rows] == [(2, None)]
        for app, answer in zip(itertools.cycle(apps), answers[:20], strict=False):
            token = answer.json()["access_token"]
            profile = await app.get(PROFILE, headers={"Authorization": f"Bearer {token}"})
            assert profile.status_code == 200
        assert (await use(apps[1], successors.pop())).status_code == 200

    async def test_many_generations_in_a_row_survive_their_races(
        self, apps: Sequence[httpx.AsyncClient], make_person: MakePerson
    ) -> None:
        token = (await make_person("ada", roles=("user",))).refresh_token

        for _ in range(10):
            answers = await use_at_once(apps, token, 20)
            assert {answer.status_code for answer in answers} == {200}
            (token,) = {answer.json()["refresh_token"] for answer in answers}


class TestStolenToken:
    async def test_ends_the_session_every_time(
        self,
        apps: Sequence[httpx.AsyncClient],
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        people: list[Person] = [
            await make_person(f"ada{number}", roles=("user",)) for number in range(THEFTS)
        ]
        for number, person in enumerate(people):
            stolen, thief = person.refresh_token, apps[number % 2]
            newest = await successor(apps[0], await successor(apps[1], stolen))

            replayed = await use(thief, stolen)

            assert (replayed.status_code, replayed.json()["code"]) == (401, "refresh-token-reused")
            for app in apps:
                assert (await use(app, newest)).status_code == 401
                profile = await app.get(PROFILE, headers=person.headers)
                assert profile.status_code == 401
        reasons = await superuser.fetch("SELECT revoked_reason FROM sessions")
        assert [row["revoked_reason"] for row in reasons] == ["token-reused"] * THEFTS

    async def test_ends_it_beside_uses_of_the_newest_one(
        self, apps: Sequence[httpx.AsyncClient], make_person: MakePerson
    ) -> None:
        stolen = (await make_person("ada", roles=("user",))).refresh_token
        newest = await successor(apps[0], await successor(apps[1], stolen))

        honest, theft = await asyncio.gather(
            use_at_once(apps, newest, 20), use_at_once(apps, stolen, 20)
        )

        assert {answer.status_code for answer in theft} == {401}
        assert {answer.status_code for answer in honest} <= {200, 401}
        for token in {newest, *(a.json()["refresh_token"] for a in honest if a.is_success)}:
            assert (await use(apps[0], token)).status_code == 401
