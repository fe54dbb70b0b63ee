"""The edge around a few routes, with nothing behind it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from fastapi import APIRouter
from starlette.middleware import Middleware
from starlette.types import Message, Receive, Scope, Send

from maas.shared.domain.errors import UnauthenticatedError
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, new_id
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.metrics import Metrics
from maas.shared.interface import health
from maas.shared.interface.application import EdgeApplication
from maas.shared.interface.dispatch import under
from maas.shared.interface.handlers import install_handlers
from maas.shared.interface.health import Health, Status
from maas.shared.interface.middleware import EdgeMiddleware
from maas.shared.interface.problems import Faces
from maas.shared.interface.reference import make_reference
from maas.shared.interface.traffic import Traffic
from tests.fakes.recorder import FakeRecorder


def make_principal(*permissions: str) -> Principal:
    return Principal(
        kind="account",
        account_id=AccountId(new_id()),
        tenant_id=DEFAULT_TENANT_ID,
        username="ada",
        permissions=frozenset(permissions),
        version=1,
    )


@dataclass(slots=True)
class FakeAuthenticator:
    """Knows a few credentials, and counts how often it is asked."""

    principals: dict[str, Principal] = field(default_factory=dict)
    asked: int = 0

    async def authenticate(self, credential: str) -> Principal:
        self.asked += 1
        try:
            return self.principals[credential]
        except KeyError:
            raise UnauthenticatedError from None


@dataclass(slots=True)
class FakeDependency:
    """A server that is up, down or slow, as told."""

    status: Status = "up"
    error: Exception | None = None
    delay_seconds: float = 0

    async def probe(self) -> Status:
        await asyncio.sleep(self.delay_seconds)
        if self.error is not None:
            raise self.error
        return self.status


@dataclass(slots=True)
class Edge:
    """An edge application and everything a test may look at or turn."""

    app: EdgeApplication
    traffic: Traffic
    metrics: Metrics
    recorder: FakeRecorder
    authenticator: FakeAuthenticator
    postgres: FakeDependency
    redis: FakeDependency
    audit: FakeDependency
    client_address: tuple[str, int] = ("198.51.100.1", 5000)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application as a server does, with the state its lifespan would have given."""
        scope["state"] = {
            "recorder": self.recorder,
            "authenticator": self.authenticator,
            "health": Health(
                version="1.2.3",
                traffic=self.traffic,
                metrics=self.metrics,
                postgres=self.postgres.probe,
                redis=self.redis.probe,
                audit=self.audit.probe,
            ),
        }
        scope["client"] = self.client_address
        await self.app(scope, receive, send)

    async def call(
        self, path: str, receive: Receive, *, method: str = "POST", headers: dict[str, str]
    ) -> list[Message]:
        """Call the application below HTTP, where a client may do anything; get what it sent."""
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        await self.serve(scope, receive, send)
        return sent

    @asynccontextmanager
    async def client(self, **options: str) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app=self.serve)
        base_url = options.get("base_url", "http://maas.test")
        async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
            yield client


def make_edge(
    *routers: APIRouter,
    max_in_flight: int = 100,
    max_body_bytes: int = 1024 * 1024,
    trusted_proxies: Sequence[str] = (),
    faces: Faces | None = None,
    extra: Sequence[Middleware] = (),
) -> Edge:
    traffic, metrics = Traffic(max_in_flight=max_in_flight), Metrics()
    faces = faces or Faces()
    app = EdgeApplication(
        title="Edge",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            *extra,
            Middleware(
                EdgeMiddleware,
                traffic=traffic,
                metrics=metrics,
                faces=faces,
                trusted_proxies=trusted_proxies,
            ),
        ],
    )
    app.faces = faces
    app.state.max_body_bytes = max_body_bytes
    install_handlers(app, faces)
    reference = make_reference(title="Edge", document="/openapi.json")
    app.router.routes += under("", [health.router, reference])
    app.router.routes += under("/api/v1", routers)
    return Edge(
        app=app,
        traffic=traffic,
        metrics=metrics,
        recorder=FakeRecorder(),
        authenticator=FakeAuthenticator(),
        postgres=FakeDependency(),
        redis=FakeDependency(),
        audit=FakeDependency(),
    )
