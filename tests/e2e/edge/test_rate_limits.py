"""The limits on requests through the whole application: who is held back, and what is said."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import asyncpg
import httpx
import pytest

from maas.main import create_app
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.rate_limits import ON_ACCOUNTS, ON_KEYS
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.interface.routes import walk_routes
from maas.user.domain.key_text import make_key as make_text
from maas.user.infrastructure.sessions import key_entry
from tests.architecture.inspection import is_public
from tests.conftest import MakeSettings
from tests.e2e.conftest import Flush, MakePerson, Person, serving_app
from tests.e2e.user.keys import KEYS, make_key, with_key
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

API = "/api/v1"
PROFILE, LOGIN, REGISTER = f"{API}/users/profile", f"{API}/auth/login", f"{API}/auth/register"
REFRESH = f"{API}/auth/refresh"
NOBODY_THERE = "redis://127.0.0.1:1/0"
WRONG = {"username": "nobody", "password": "wrong horse battery staple"}

Limited = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def limited(make_settings: MakeSettings, client: httpx.AsyncClient) -> Limited:
    """Serve an application with these limits, beside the one that has none."""

    @asynccontextmanager
    async def serve(
        address: str = "127.0.0.1", *, redis: str | None = None, **limits: object
    ) -> AsyncIterator[httpx.AsyncClient]:
        # Nothing is given up on a busy machine, where the processes would then count alone.
        where: dict[str, object] = {"timeout_ms": 30_000}
        if redis is not None:
            where = {"url": redis, "broker_url": redis}
        settings = make_settings(
            rate_limits=limits,
            auth={"registration": "open", "login_throttle": False},
            redis=where,
        )
        async with serving_app(settings, address=address) as serving:
            yield serving

    return serve


@pytest.fixture
async def ada(make_person: MakePerson) -> Person:
    return await make_person("ada")


def unknown_key() -> str:
    return make_text("test", secrets.choice).text


async def statuses(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], *, times: int
) -> list[int]:
    answers = await asyncio.gather(*(client.get(path, headers=headers) for _ in range(times)))
    return [answer.status_code for answer in answers]


class TestAccount:
    async def test_two_processes_share_a_limit_and_both_say_what_is_left(
        self, limited: Limited, ada: Person
    ) -> None:
        async with limited(requests_per_minute=20) as one, limited(requests_per_minute=20) as other:
            first = await one.get(PROFILE, headers=ada.headers)
            began = time.monotonic()
            both = await asyncio.gather(
                statuses(one, PROFILE, ada.headers, times=40),
                statuses(other, PROFILE, ada.headers, times=40),
            )
            refused = await other.get(PROFILE, headers=ada.headers)
            came_back = int((time.monotonic() - began) / 3) + 1

        found = [status for each in both for status in each]
        assert first.headers["ratelimit-policy"] == '"default";q=20;w=60'
        assert first.headers["ratelimit"] == '"default";r=19;t=57'
        assert set(found) == {200, 429}
        assert 19 <= found.count(200) <= 19 + came_back
        if refused.status_code == 429:
            assert refused.headers["retry-after"] in {"1", "2", "3"}
            wait = refused.headers["retry-after"]
            assert refused.headers["ratelimit"] == f'"default";r=0;t={wait}'

    async def test_classes_of_routes_are_counted_apart_and_a_refusal_tells_what_to_do(
        self, limited: Limited, ada: Person
    ) -> None:
        async with limited(requests_per_minute=1, admin_per_minute=2) as client:
            await client.get(PROFILE, headers=ada.headers)
            refused = await client.get(PROFILE, headers=ada.headers)
            admin = await statuses(client, f"{API}/admin/roles", ada.headers, times=3)
            sessions = await client.get(f"{API}/auth/sessions", headers=ada.headers)

        problem = refused.json()
        assert refused.status_code == 429
        assert problem["code"] == "rate-limited"
        assert problem["violated-policies"] == ["default"]
        assert "Retry-After" in problem["detail"]
        assert 50 <= int(refused.headers["retry-after"]) <= 60
        assert sorted(admin) == [200, 200, 429]
        assert sessions.status_code == 200
        assert sessions.headers["ratelimit-policy"] == '"auth";q=1;w=60'

    async def test_health_metrics_and_documents_are_not_limited(self, limited: Limited) -> None:
        paths = ["/health/live", "/health/ready", "/openapi.json", "/api/version", "/metrics"]
        async with limited(unauthenticated_per_minute=1) as client:
            for path in paths:
                answers = [await client.get(path) for _ in range(3)]
                assert {answer.status_code for answer in answers} == {200}, path
                assert "ratelimit" not in answers[0].headers

    async def test_switched_off_nothing_is_counted(self, limited: Limited, ada: Person) -> None:
        async with limited(enabled=False, requests_per_minute=1) as client:
            await client.get(PROFILE, headers=ada.headers)
            answer = await client.get(PROFILE, headers=ada.headers)

        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("ratelimit")]

    async def test_a_revoked_session_uses_up_nothing_of_its_account(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        answer = await client.post(LOGIN, json={"username": "ada", "password": PASSWORD})
        again = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        await client.post(f"{API}/auth/logout", headers=ada.headers)

        async with limited(requests_per_minute=2) as serving:
            thief = await statuses(serving, PROFILE, ada.headers, times=20)
            owner = await statuses(serving, PROFILE, again, times=2)

        assert set(thief) == {401}
        assert owner == [200, 200]


class TestKeys:
    async def test_a_key_has_its_own_rate_beside_its_holders(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        made = await make_key(client, ada, requests_per_minute=2)
        other = await make_key(client, ada)

        async with limited(requests_per_minute=4) as serving:
            headers = with_key(made["key"])
            first = await serving.get(f"{API}/models", headers=headers)
            slow = await statuses(serving, f"{API}/models", headers, times=3)
            rest = await statuses(serving, f"{API}/models", with_key(other["key"]), times=4)

        assert first.headers["ratelimit-policy"] == '"default";q=4;w=60, "key";q=2;w=60'
        assert first.headers["ratelimit"] == '"default";r=3;t=45, "key";r=1;t=30'
        assert sorted(slow) == [200, 429, 429]
        # What the key was refused is not taken from its holder.
        assert sorted(rest) == [200, 200, 429, 429]

    async def test_who_knows_only_its_public_id_uses_up_nothing_of_it(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        made = await make_key(client, ada, requests_per_minute=2)
        rotated = await client.post(
            f"{KEYS}/{made['id']}/rotate", json={"grace_seconds": 0}, headers=ada.headers
        )
        current = rotated.json()["key"]

        async with limited(unauthenticated_per_minute=50) as serving:
            assert (await statuses(serving, f"{API}/models", with_key(current), times=1)) == [200]
            wrong = await statuses(serving, f"{API}/models", with_key(made["key"]), times=20)
            right = await statuses(serving, f"{API}/models", with_key(current), times=2)

        assert set(wrong) == {401}
        assert sorted(right) == [200, 429]

    async def test_a_use_from_elsewhere_counts_on_the_address_alone(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        made = await make_key(client, ada, requests_per_minute=2, allowed_networks=["127.0.0.0/8"])
        headers = with_key(made["key"])

        async with limited("198.51.100.9", unauthenticated_per_minute=2) as elsewhere:
            abroad = [
                (await elsewhere.get(f"{API}/models", headers=headers)).status_code
                for _ in range(4)
            ]
        async with limited() as here:
            at_home = await statuses(here, f"{API}/models", headers, times=3)

        assert abroad == [403, 403, 429, 429]
        assert sorted(at_home) == [200, 200, 429]

    async def test_unknown_keys_stop_reaching_the_database(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        made = await make_key(client, ada)
        await client.delete(f"{KEYS}/{made['id']}", headers=ada.headers)
        other = await make_key(client, ada)

        async with limited(unauthenticated_per_minute=3) as serving:
            headers = with_key(made["key"])
            known = await serving.get(f"{API}/models", headers=with_key(other["key"]))
            found = [
                (await serving.get(f"{API}/models", headers=headers)).status_code for _ in range(5)
            ]
            # Redis knows it, so it is let in from wherever its neighbours guess.
            neighbour = await serving.get(f"{API}/models", headers=with_key(other["key"]))

        assert found == [401, 401, 401, 429, 429]
        assert [known.status_code, neighbour.status_code] == [200, 200]

    async def test_neighbours_without_a_key_keep_no_key_out(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        made = await make_key(client, ada)

        async with limited(unauthenticated_per_minute=2) as serving:
            await statuses(serving, PROFILE, {}, times=4)
            neighbours = await statuses(
                serving, PROFILE, {"Authorization": "Bearer nonsense"}, times=4
            )
            answer = await serving.get(f"{API}/models", headers=with_key(made["key"]))

        assert set(neighbours) == {429}
        assert answer.status_code == 200

    async def test_one_that_was_good_is_looked_up_however_many_bad_ones_are_shown(
        self,
        limited: Limited,
        client: httpx.AsyncClient,
        ada: Person,
        redis_gate: RedisGate,
    ) -> None:
        made, later = await make_key(client, ada), await make_key(client, ada)

        async with limited(unauthenticated_per_minute=2) as serving:

            async def ask(key: str) -> int:
                await redis_gate.client.delete(key_entry(key.split("_")[2]))
                return (await serving.get(f"{API}/models", headers=with_key(key))).status_code

            before = await ask(made["key"])
            guesses = [await ask(unknown_key()) for _ in range(3)]
            after = [await ask(made["key"]), await ask(later["key"])]
            await client.delete(f"{KEYS}/{made['id']}", headers=ada.headers)
            revoked = [await ask(made["key"]) for _ in range(2)]

        assert [before, *guesses] == [200, 401, 401, 429]
        assert after == [200, 429]
        # It is asked about all the same, and is a guess from then on.
        assert revoked == [429, 429]

    async def test_a_good_one_that_is_looked_up_uses_up_nothing_of_its_address(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        made = [await make_key(client, ada) for _ in range(3)]

        async with limited(unauthenticated_per_minute=1) as serving:
            found = [
                (await serving.get(f"{API}/models", headers=with_key(each["key"]))).status_code
                for each in made
            ]

        assert found == [200, 200, 200]

    @pytest.mark.parametrize("path", [f"{API}/models", "/metrics"])
    async def test_unknown_ones_at_once_are_as_many_queries_as_the_limit(
        self, limited: Limited, monkeypatch: pytest.MonkeyPatch, path: str
    ) -> None:
        queries: list[str] = []
        fetchrow = Database.fetchrow

        async def count(database: Database, query: str, *args: object) -> object:
            queries.append(query)
            return await fetchrow(database, query, *args)

        monkeypatch.setattr(Database, "fetchrow", count)
        async with limited("198.51.100.9", unauthenticated_per_minute=3) as serving:
            queries.clear()
            answers = await asyncio.gather(
                *(serving.get(path, headers=with_key(unknown_key())) for _ in range(30))
            )

        found = [answer.status_code for answer in answers]
        assert sorted(set(found)) == [401, 429]
        assert len([query for query in queries if "api_key" in query]) == found.count(401) == 3

    async def test_a_use_from_elsewhere_never_touches_what_its_holder_has(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person, redis_gate: RedisGate
    ) -> None:
        made = await make_key(client, ada, requests_per_minute=2, allowed_networks=["127.0.0.0/8"])
        async for key in redis_gate.client.scan_iter(f"{ON_ACCOUNTS}*"):
            await redis_gate.client.delete(key)

        async with limited("198.51.100.9") as abroad:
            found = [
                (await abroad.get(f"{API}/models", headers=with_key(made["key"]))).status_code
                for _ in range(3)
            ]

        assert found == [403, 403, 403]
        touched = [
            key
            for prefix in (ON_ACCOUNTS, ON_KEYS)
            async for key in redis_gate.client.scan_iter(f"{prefix}*")
        ]
        assert touched == []


class TestStrangers:
    async def test_whatever_one_address_asks_without_a_good_credential_counts_together(
        self, limited: Limited, ada: Person
    ) -> None:
        nonsense = {"Authorization": "Bearer nonsense"}
        async with limited(unauthenticated_per_minute=3) as client:
            answers = [
                await client.get(PROFILE),
                await client.get(PROFILE, headers=nonsense),
                await client.get("/no/such/route"),
                await client.get(PROFILE, headers=nonsense),
                await client.get(PROFILE),
            ]
            good = await client.get(PROFILE, headers=ada.headers)

        assert good.status_code == 200
        assert [answer.status_code for answer in answers] == [401, 401, 404, 429, 429]
        left = [answer.headers["ratelimit"] for answer in answers]
        assert left[:2] == ['"address";r=2;t=40', '"address";r=1;t=20']
        for refused in answers[3:]:
            wait = refused.headers["retry-after"]
            assert refused.headers["ratelimit"] == f'"address";r=0;t={wait}'

    async def test_what_anybody_may_post_counts_apart_whatever_it_shows(
        self, limited: Limited
    ) -> None:
        async with limited(unauthenticated_per_minute=2) as client:
            await client.get(PROFILE)
            answers = [
                await client.post(LOGIN, json=WRONG),
                await client.post(LOGIN, json=WRONG, headers={"Authorization": "Bearer nonsense"}),
                await client.post(LOGIN, json=WRONG),
            ]

        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert answers[0].headers["ratelimit"] == '"public";r=1;t=30'
        assert answers[2].json()["violated-policies"] == ["public"]

    async def test_neighbours_keep_no_good_refresh_token_out(
        self, limited: Limited, ada: Person
    ) -> None:
        token = ada.refresh_token
        async with limited(unauthenticated_per_minute=1) as client:
            await client.get(PROFILE)
            await client.post(LOGIN, json=WRONG)
            neighbour = await client.post(LOGIN, json=WRONG)
            found = []
            for _ in range(3):
                answer = await client.post(REFRESH, json={"refresh_token": token})
                found.append(answer.status_code)
                token = answer.json().get("refresh_token")
            bad = [
                (await client.post(REFRESH, json={"refresh_token": "mrt_x"})).status_code
                for _ in range(2)
            ]

        assert neighbour.status_code == 429
        assert found == [200, 200, 200]
        assert bad == [401, 429]

    async def test_a_credential_that_is_no_good_gets_round_no_limit(
        self, limited: Limited, make_settings: MakeSettings
    ) -> None:
        guarded = [
            (route.method, re.sub(r"{.*?}", "x", route.path))
            for route in walk_routes(create_app(make_settings()))
            if route.path.startswith(API) and not is_public(route)
        ]
        junk = {"Authorization": "x", "Content-Type": "application/json"}

        async def ask(client: httpx.AsyncClient, method: str, path: str) -> int:
            url = f"{path}?no_such_parameter=1"
            return (await client.request(method, url, headers=junk, content=b"{")).status_code

        async with limited(unauthenticated_per_minute=100_000) as client:
            found = {(method, path): await ask(client, method, path) for method, path in guarded}
        async with limited(unauthenticated_per_minute=1) as client:
            nowhere = [
                await ask(client, method, path)
                for method, path in [("GET", "/no/such"), ("GET", "/no/such"), ("DELETE", PROFILE)]
            ]

        assert len(found) > 50
        assert {asked: status for asked, status in found.items() if status != 401} == {}
        assert nowhere[1:] == [429, 429]

    async def test_registering_has_a_limit_of_its_own(self, limited: Limited) -> None:
        async with limited(registrations_per_hour=2) as client:
            # A browser asks this first, of itself: it counts nowhere.
            asked = [(await client.options(REGISTER)).status_code for _ in range(3)]
            answers = [await client.post(REGISTER, json={}) for _ in range(3)]
            login = await client.post(LOGIN, json=WRONG)

        assert asked == [405, 405, 405]
        assert [answer.status_code for answer in answers] == [422, 422, 429]
        assert answers[2].json()["violated-policies"] == ["registration"]
        assert 1790 <= int(answers[2].headers["retry-after"]) <= 1800
        assert '"registration";q=2;w=3600' in answers[0].headers["ratelimit-policy"]
        assert login.status_code == 401


async def refusals(client: httpx.AsyncClient, policy: str) -> float:
    """Read how many requests the process has refused by this policy."""
    text = (await client.get("/metrics")).text
    found = re.search(
        rf'^maas_http_requests_limited_total{{policy="{policy}"}} (.+)$', text, re.MULTILINE
    )
    return 0.0 if found is None else float(found[1])


class TestTold:
    async def test_refusals_are_recorded_once_a_minute_and_counted_each(
        self,
        limited: Limited,
        ada: Person,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        async with limited(requests_per_minute=1, unauthenticated_per_minute=1) as client:
            before = [await refusals(client, policy) for policy in ("default", "address")]
            for _ in range(5):
                await client.get(PROFILE, headers=ada.headers)
                await client.get(PROFILE)
            after = [await refusals(client, policy) for policy in ("default", "address")]
        await flush()

        events = await superuser.fetch(
            "SELECT actor_kind, outcome, reason FROM audit_log WHERE action = 'access.limited'"
            " ORDER BY actor_kind"
        )
        assert [tuple(event) for event in events] == [
            ("account", "denied", "rate-limited"),
            ("anonymous", "denied", "rate-limited"),
        ]
        assert [now - then for now, then in zip(after, before, strict=True)] == [4, 4]


class TestWithoutRedis:
    async def test_the_process_counts_alone(
        self, limited: Limited, client: httpx.AsyncClient, ada: Person
    ) -> None:
        made = await make_key(client, ada, requests_per_minute=1)
        gone = await make_key(client, ada)
        await client.delete(f"{KEYS}/{gone['id']}", headers=ada.headers)

        async with limited(
            redis=NOBODY_THERE, requests_per_minute=2, unauthenticated_per_minute=2
        ) as alone:

            async def ask(key: str) -> int:
                return (await alone.get(f"{API}/models", headers=with_key(key))).status_code

            good = [await ask(made["key"]) for _ in range(2)]
            bad = [await ask(gone["key"]) for _ in range(3)]
            person = [(await alone.get(PROFILE, headers=ada.headers)).status_code for _ in range(2)]

        assert person == [200, 429]
        assert good == [200, 429]
        assert bad == [401, 401, 429]
