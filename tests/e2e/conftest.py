"""The whole application in the test's own process, called through HTTP's own types."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from maas.audit.flush_wiring import build_flush
from maas.bootstrap import Platform, acting_as_operator, open_platform
from maas.main import create_app
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.user.domain.account import EmailAddress, Username
from tests.factories.accounts import PASSWORD

HTTP_TIMEOUT_SECONDS = 20
FLUSH_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Person:
    """A signed-in person: the headers that say so, and both tokens."""

    username: str
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}


MakePerson = Callable[..., Awaitable[Person]]


@pytest.fixture
async def platform(settings: Settings, database: Database) -> AsyncIterator[Platform]:
    async with open_platform(settings) as platform:
        yield platform


_apps: dict[str, FastAPI] = {}


def _app_for(settings: Settings) -> FastAPI:
    """Build the routes once for all tests whose applications differ in what they open alone.

    Building them takes longer than most tests do.
    """
    kind = f"{settings.environment} {settings.docs_enabled} {settings.server!r}"
    if kind not in _apps:
        _apps[kind] = create_app(settings)
    _apps[kind].state.settings = settings
    return _apps[kind]


@asynccontextmanager
async def serving_app(
    settings: Settings, *, address: str = "127.0.0.1"
) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application of these settings for the length of a block, called from an address."""
    app = _app_for(settings)
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: dict[str, object], receive: object, send: object) -> None:
            scope["state"] = dict(state or {})
            await app(scope, receive, send)  # type: ignore[arg-type]  # httpx types it loosely

        transport = httpx.ASGITransport(
            app=with_state,  # type: ignore[arg-type]  # likewise
            client=(address, 50_000),
        )
        async with httpx.AsyncClient(
            transport=transport, base_url="http://maas.test", timeout=HTTP_TIMEOUT_SECONDS
        ) as client:
            yield client


@pytest.fixture
async def client(settings: Settings, database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_app(settings) as client:
        yield client


@pytest.fixture
def make_person(platform: Platform, client: httpx.AsyncClient, superuser: "object") -> MakePerson:
    """Make an account with these roles in the default tenant (or another's id), signed in."""

    async def make(username: str = "ada", *, roles: tuple[str, ...] = ("admin",)) -> Person:
        async with acting_as_operator(platform, "admin.created"):
            account_id = await platform.accounts.create_admin(
                username=Username(username),
                email=EmailAddress(f"{username}@example.com"),
                password=PASSWORD,
            )
        await superuser.execute(  # type: ignore[attr-defined]  # an asyncpg connection
            "DELETE FROM membership_roles WHERE account_id = $1 AND role_name <> ALL ($2)",
            account_id,
            list(roles),
        )
        await superuser.executemany(  # type: ignore[attr-defined]  # an asyncpg connection
            "INSERT INTO membership_roles VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            [(DEFAULT_TENANT_ID, account_id, role) for role in roles],
        )
        return await sign_in(client, username)

    return make


async def sign_in(client: httpx.AsyncClient, username: str, password: str = PASSWORD) -> Person:
    answer = await client.post(
        "/api/v1/auth/login", json={"username": username, "password": password}
    )
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    return Person(username, tokens["access_token"], tokens["refresh_token"])


Flush = Callable[[], Awaitable[object]]


@pytest.fixture
async def flush(
    settings: Settings, database: Database, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> AsyncIterator[Flush]:
    """Flush what is recorded into the log, as the Celery task does, until nothing waits.

    An event whose copy in Redis was late is only taken from the outbox some time later.
    """
    context = build_flush(settings)

    async def flush_all() -> None:
        async with asyncio.timeout(FLUSH_SECONDS):
            while True:
                await context.service.run()
                if not await superuser.fetchval("SELECT EXISTS (SELECT FROM audit_outbox)"):
                    return
                await asyncio.sleep(0.1)

    yield flush_all
    await context.close()
