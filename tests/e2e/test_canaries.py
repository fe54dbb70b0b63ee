"""Secrets sent to every route, in every place one can stand, are found nowhere afterwards.

The API and the worker are processes of their own that log everything, or as much as usual. Kept on
purpose are only a user agent, as a personal field that can be erased, and the name of a file.
"""

import asyncio
import base64
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from maas.audit.infrastructure.stream import STREAM
from maas.shared.infrastructure.settings import load_settings
from tests.amounts import IS_FULL
from tests.conftest import ROOT, TEST_SECRET, clone, drop, settings_for
from tests.e2e.canaries.hunt import PLANTED, STREAM_SINK, Hunt
from tests.e2e.canaries.leaking import WAYS
from tests.e2e.canaries.places import Canaries, shots
from tests.e2e.conftest import Person
from tests.e2e.routes.cases import ROWS
from tests.e2e.routes.world import API, opened_world
from tests.pair import WIDE_LIMITS
from tests.servers import Servers

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.asyncio(loop_scope="module"),
]

OWN_REDIS = 48
START_SECONDS = 60
SETTLE_SECONDS = 240
KINDS_PROMISED = 40
FORMATS = {"DEBUG": "json", "INFO": "console"}
"""The levels of the two API processes, and how each writes its lines."""


CountUp = Callable[[str, object], None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    words: list[str], environment: Mapping[str, str], folder: Path, name: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a module of ours with what it says in a file, away from a checkout's `.env`."""
    with (folder / f"{name}.log").open("wb") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


async def until_ready(client: httpx.AsyncClient, api: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert api.poll() is None, "the API ended"
        with suppress(httpx.HTTPError):
            if (await client.get("/health/live")).is_success:
                return
        await asyncio.sleep(0.1)
    pytest.fail("the API did not start")


@pytest.fixture(scope="module")
def database_name(servers: Servers, worker_number: int) -> Iterator[str]:
    name = f"maas_canaries_{worker_number}"
    asyncio.run(clone(servers, name))
    yield name
    asyncio.run(drop(servers, name))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hunt(
    servers: Servers,
    database_name: str,
    worker_number: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Hunt]:
    folder, number = tmp_path_factory.mktemp("canaries"), OWN_REDIS + worker_number
    base: dict[str, Any] = settings_for(
        servers, database_name, number=number, data_dir=folder / "data"
    )
    base["auth"] |= {"registration": "open", "login_throttle": False}
    kept = {name: value for name, value in os.environ.items() if not re.match("MAAS_", name)}
    environment = {
        **kept,
        "MAAS_ENVIRONMENT": "test",
        "MAAS_SECRET_KEY": TEST_SECRET,
        "MAAS_DATA_DIR": str(folder / "data"),
        **{f"MAAS_DATABASE__{name.upper()}": url for name, url in base["database"].items()},
        **{f"MAAS_REDIS__{name.upper()}": str(value) for name, value in base["redis"].items()},
        **{f"MAAS_AUTH__{name.upper()}": str(value) for name, value in base["auth"].items()},
        **WIDE_LIMITS,
    }
    supplier_port = free_port()
    environment["MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS"] = f"127.0.0.1:{supplier_port}"
    connection = await servers.connect(database_name)
    redis = Redis.from_url(servers.redis_url(number))
    ports = {level: free_port() for level in FORMATS}
    (one, other), canaries = FORMATS, Canaries()

    def api(level: str) -> Any:
        words = ["tests.e2e.canaries.leaking", str(ports[level])]
        own = {**environment, "MAAS_LOG_LEVEL": level, "MAAS_LOG_FORMAT": FORMATS[level]}
        return process(words, own, folder, f"api-{level.lower()}")

    def client(level: str) -> httpx.AsyncClient:
        url = f"http://127.0.0.1:{ports[level]}"
        return httpx.AsyncClient(
            base_url=url,
            timeout=30,
            # The server closes what is idle for 5 s.
            limits=httpx.Limits(keepalive_expiry=2),
            trust_env=False,
        )

    with api(one) as first, api(other) as second:
        async with (
            client(one) as chatty,
            client(other) as usual,
            opened_world(load_settings(**base), connection, supplier_port=supplier_port) as world,
        ):
            await until_ready(chatty, first)
            await until_ready(usual, second)
            # Also what the rows of the walk prepare is said to the process that logs everything.
            world.client = chatty
            hunt = Hunt(
                world=world,
                canaries=canaries,
                clients={one: chatty, other: usual},
                environment=environment,
                folder=folder,
                redis=redis,
                connection=connection,
            )
            for each in hunt.clients.values():
                each.event_hooks["response"].append(hunt.heard)
            yield hunt
    await redis.aclose()
    await connection.close()


async def test_no_secret_is_found_anywhere(hunt: Hunt, record_property: CountUp) -> None:
    await send_to_every_route(hunt)
    await use_secrets_as_meant(hunt)
    await fail_with_secrets(hunt)
    await hunt.look()
    await flush(hunt)
    await hunt.look()

    assert hunt.summary() == {}
    assert len(hunt.canaries.kinds) >= KINDS_PROMISED
    assert len(hunt.issued) > (len(ROWS) if IS_FULL else len(ROWS) // 3)
    await check_that_sinks_were_full(hunt)
    record_property("kinds", len(hunt.canaries.kinds))
    record_property("canaries", len(hunt.canaries.places))
    record_property("issued", len(hunt.issued))
    record_property("routes", len(hunt.world.routes))
    record_property("requests", hunt.requests)


async def send_to_every_route(hunt: Hunt) -> None:
    client = hunt.clients["DEBUG"]
    for number, key in enumerate(hunt.world.routes):
        case = await ROWS[key](hunt.world)
        first, *others = shots(hunt.canaries, key, case)
        # It may succeed and end what the others act on: they are to be refused anyway.
        await hunt.send(client, key, case, first)
        # In part, each place is tried at every third route.
        aimed = others if IS_FULL else others[number % 3 :: 3]
        await asyncio.gather(*(hunt.send(client, key, case, shot) for shot in aimed))


async def use_secrets_as_meant(hunt: Hunt) -> None:
    """Register, sign in, change and reset with passwords that are canaries, and make them wrong."""
    world, made = hunt.world, hunt.canaries.make
    for client in hunt.clients.values():
        name = world.name()
        first, second, third = (
            made(f"password that is {at}", "") for at in ("set", "new", "reset")
        )
        email = f"{name}@example.com"
        account = {"username": name, "email": email, "password": first}

        async def post(path: str, body: Any, *, status: int = 200, **sent: Any) -> Any:
            answer = await client.post(f"{API}{path}", json=body, **sent)  # noqa: B023  called at once
            assert answer.status_code == status, answer.text
            return answer.json() if answer.content else None

        await post("/auth/register", account, status=202)
        link = await read_link(hunt, email)
        await post("/auth/email/verify", {"token": link}, status=204)
        tokens = await post("/auth/login", {"username": name, "password": first})
        person = Person(name, tokens["access_token"], tokens["refresh_token"])
        wrong = {"username": name, "password": made("wrong password", "")}
        await post("/auth/login", wrong, status=401)
        stray = {"username": made("password typed as the name", ""), "password": "x" * 12}
        await post("/auth/login", stray, status=401)
        form = await client.post(f"{API}/auth/token", data={"username": name, "password": first})
        assert form.status_code == 200, form.text
        change = {"current_password": first, "new_password": second}
        await post("/users/password", change, status=204, headers=person.headers)
        await post("/auth/password/forgot", {"email": email}, status=202)
        link = await read_link(hunt, email)
        await post("/auth/password/reset", {"token": link, "new_password": third}, status=204)
        await post("/auth/password/reset", {"token": link, "new_password": third}, status=422)
        headers = world.root.headers
        other = world.name()
        body = {"username": other, "email": f"{other}@example.com", "roles": ["user"]}
        by_admin = {**body, "password": made("password by an administrator", "")}
        await post("/admin/users", by_admin, status=201, headers=headers)


async def read_link(hunt: Hunt, email: str) -> str:
    """Read the one link that was mailed to somebody, and throw the mail away."""
    link = await hunt.world.mailed_link(email)
    hunt.issued.add(link)
    for mail in (hunt.folder / "data" / "mail").glob("*.eml"):
        mail.unlink()
    return link


async def fail_with_secrets(hunt: Hunt) -> None:
    """Have exceptions nobody expects carry secrets in their messages."""
    for client in hunt.clients.values():
        for way in WAYS:
            key = f"failing: {way}"
            made = hunt.canaries.make
            body = {
                "password": made("failing: password", key),
                "new_password": made("failing: new password", key) + "'\" \\",
                "refresh_token": f"mrt_{made('failing: refresh token', key)}",
                "api_key": made("failing: API key", key),
                "client_secret": made("failing: secret", key),
            }
            basic = base64.b64encode(f"user:{made('failing: basic', key)}".encode()).decode()
            for authorization in (
                f"Bearer {made('failing: bearer', key)}",
                f"Basic {basic}",
                made("failing: credential", key),
            ):
                answer = await client.post(
                    f"/planted/failing/{way}",
                    json=body,
                    headers={
                        "Authorization": authorization,
                        "X-API-Key": made("failing: X-API-Key", key),
                        "Cookie": f"session={made('failing: cookie', key)}; a=b",
                    },
                )
                assert answer.status_code in {500, 503}, answer.text
        await fail_in_the_database(hunt, client)


async def fail_in_the_database(hunt: Hunt, client: httpx.AsyncClient) -> None:
    """Have PostgreSQL repeat a value in its message and its detail, as it does of broken rules."""
    for state, status in (("P0001", 500), ("53300", 503)):
        await hunt.connection.execute(
            f"""CREATE FUNCTION planted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = 'no ' || NEW.description,
                    DETAIL = 'Failing row contains (' || NEW.description || ').';
                END $$;
                CREATE TRIGGER planted BEFORE INSERT ON models
                FOR EACH ROW EXECUTE FUNCTION planted()"""
        )
        body = {
            "name": f"acme/{hunt.world.name()}",
            "framework": "gguf",
            "description": hunt.canaries.key("failing: in PostgreSQL", f"failing: {state}"),
        }
        answer = await client.post(f"{API}/models", json=body, headers=hunt.world.root.headers)
        assert answer.status_code == status, answer.text
        await hunt.connection.execute("DROP TRIGGER planted ON models; DROP FUNCTION planted")


async def flush(hunt: Hunt) -> None:
    """Let a worker with its clock take everything to the log, as noisily as it can."""
    noisy = {**hunt.environment, "MAAS_LOG_LEVEL": "DEBUG"}
    with (
        process(["maas.cli", "worker", "--concurrency", "1"], noisy, hunt.folder, "worker"),
        process(["maas.cli", "beat"], noisy, hunt.folder, "beat"),
    ):
        deadline = time.monotonic() + SETTLE_SECONDS
        while await hunt.redis.xlen(STREAM) or await hunt.connection.fetchval(
            "SELECT EXISTS (SELECT FROM audit_outbox)"
        ):
            assert time.monotonic() < deadline, "the trail did not come to rest"
            await asyncio.sleep(0.2)
        await hunt.look()


async def check_that_sinks_were_full(hunt: Hunt) -> None:
    """Make sure that there was something to look through."""
    for name in ("api-debug.log", "api-info.log", "worker.log"):
        assert (hunt.folder / name).stat().st_size > 0, name
    log = (hunt.folder / "api-info.log").read_bytes()
    assert b"Traceback" in log
    assert b"request_served" in log
    assert await hunt.connection.fetchval("SELECT count(*) FROM audit_log") > len(ROWS)
    kept = await hunt.connection.fetchval(
        "SELECT count(*) FROM audit_personal WHERE user_agent LIKE 'agent/1 (zqcanary%'"
    )
    assert kept > 0


async def test_a_secret_that_leaks_would_be_found(hunt: Hunt) -> None:
    hunt.leaks.clear()
    word = hunt.canaries.make(PLANTED, "leaking")

    for client in hunt.clients.values():
        await client.post("/planted/leaking", json={"word": word})
    await hunt.look()
    deadline = time.monotonic() + SETTLE_SECONDS
    # What a worker of before had taken is delivered again after a while, and by itself.
    while await hunt.redis.xlen(STREAM):
        assert time.monotonic() < deadline, "the trail did not come to rest"
        await hunt.world.flushing.service.run()
        await asyncio.sleep(0.2)
    await hunt.look()

    assert {sink for place, _, sink in hunt.leaks if place == PLANTED} >= {
        *("api-debug.log", "api-info.log", STREAM_SINK),
        *("audit_log.payload", "audit_log.reason"),
    }


async def test_a_secret_that_is_encoded_would_be_found() -> None:
    canaries = Canaries()
    secret = canaries.make("x", "y").encode()

    for skip in range(3):
        assert canaries.found_in(b"> " + base64.b64encode(b"u" * skip + secret))
    assert canaries.found_in(b"\\x" + secret.hex().encode())
    assert canaries.found_in(secret[:-4]) == {("x", "y")}
    assert canaries.found_in(b"nothing here") == set()
