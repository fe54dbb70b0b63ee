"""A whole platform for the walk over all routes: two tenants, three people, and a strict witness.

It has a database and a Redis of its own, since it outlives the tests between which those of the
worker are cleaned. Every answer passes `World.send`, which compares it with the OpenAPI document.
"""

import asyncio
import email
import email.policy
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from fastapi import FastAPI

from maas.audit.flush_wiring import FlushContext, build_flush
from maas.bootstrap import Platform, acting_as_operator, open_platform
from maas.main import create_app
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from maas.shared.interface.contract import problems_of
from maas.shared.interface.problems import PROBLEM_MEDIA_TYPE
from maas.shared.interface.routes import RouteFacts, walk_routes
from maas.user.domain.account import EmailAddress, Username
from maas.user.wiring import send_due_mails
from tests.architecture.json_schema import complaints, resolve
from tests.e2e.conftest import HTTP_TIMEOUT_SECONDS, Person, sign_in
from tests.factories.accounts import PASSWORD
from tests.upstream.server import Upstream, serving

API = "/api/v1"
EVENT_SECONDS = 30.0
TENANT = str(DEFAULT_TENANT_ID)
EDGE = {(404, "route-not-found"), (405, "method-not-allowed"), (414, "uri-too-long")}
"""What is answered before a route is found, so no operation lists it."""

_LINK = re.compile(r"#(?:token|invitation)=(\S+)")
_EVENTS = """
    SELECT tenant_id::text, actor_kind, actor_id::text, action, resource_kind, resource_id, outcome,
           reason
    FROM audit_log WHERE request_id = $1
"""


@dataclass(kw_only=True)
class Case:
    """One call that succeeds, and what the trail must say of it."""

    values: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    """The same names in the path with values that name nothing."""
    json: Any = None
    form: Mapping[str, str] | None = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    caller: Person | None
    actor: str | None = None
    tenant: str = TENANT
    resource: tuple[str | None, str | None] = (None, None)
    """Kind and id; `ANSWERED` as id is the `id` of the answer, `SOME` is any."""
    is_everywhere: bool = False
    """Whether every tenant has one of this name, and each acts on its own."""

    @property
    def credentials(self) -> dict[str, str]:
        return {} if self.caller is None else self.caller.headers


SOME, ANSWERED = "some", "answered"


@dataclass(kw_only=True)
class World:
    app: FastAPI
    client: httpx.AsyncClient
    platform: Platform
    settings: Settings
    flushing: FlushContext
    connection: "asyncpg.Connection[asyncpg.Record]"
    document: dict[str, Any] = field(init=False)
    routes: dict[str, RouteFacts] = field(init=False)
    root: Person = field(init=False)
    bare: Person = field(init=False)
    olga: Person = field(init=False)
    ids: dict[str, str] = field(default_factory=dict)
    """Account ids by user name."""
    requests: int = 0
    events: int = 0
    supplier_url: str = ""
    """Where the scripted upstream listens, which the operator's list has."""
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def people(self) -> None:
        """Make an administrator of everything, a member without rights, and another tenant's."""
        async with acting_as_operator(self.platform, "admin.created"):
            account_id = await self.platform.accounts.create_admin(
                username=Username("root"),
                email=EmailAddress("root@example.com"),
                password=PASSWORD,
            )
        self.ids["root"] = str(account_id)
        self.root = await sign_in(self.client, "root")
        await self.made("/admin/roles", {"name": "bare", "permissions": []})
        self.bare = await sign_in(self.client, await self.user(roles=["bare"]))
        olga = await self.user()
        await self.made(
            "/admin/tenants", {"slug": "other", "name": "Other", "admin_id": self.ids[olga]}
        )
        self.olga = await self.enter(olga, "other")

    def name(self) -> str:
        return f"n{next(self._numbers)}"

    async def made(self, path: str, body: object, *, by: Person | None = None) -> dict[str, Any]:
        headers = (by or self.root).headers
        answer = await self.client.post(f"{API}{path}", json=body, headers=headers)
        assert answer.is_success, (path, answer.text)
        made: dict[str, Any] = answer.json()
        return made

    async def user(self, *, roles: list[str] | None = None) -> str:
        """Make a person, and tell the user name; `ids` has the id."""
        name = self.name()
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        made = await self.made("/admin/users", {**body, "roles": roles or ["user"]})
        self.ids[name] = made["id"]
        return name

    async def person(self) -> Person:
        return await sign_in(self.client, await self.user())

    async def enter(self, name: str, tenant: str) -> Person:
        body = {"username": name, "password": PASSWORD, "tenant": tenant}
        answer = await self.client.post(f"{API}/auth/login", json=body)
        tokens = answer.json()
        return Person(name, tokens["access_token"], tokens["refresh_token"])

    async def mailed_link(self, to: str) -> str:
        """Send the mails that wait, as the Celery task does, and read the link in this one's."""
        folder = Path(str(self.settings.data_dir))
        await send_due_mails(self.settings, data_dir=folder, clock=SystemClock())
        for path in (folder / "mail").glob("*.eml"):
            message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            content = message.get_body()
            if str(message["To"]) == to and content is not None:
                found = _LINK.search(content.get_content())
                if found is not None:
                    return found[1]
        raise LookupError(to)

    async def send(
        self,
        route: RouteFacts,
        case: Case,
        *,
        headers: Mapping[str, str] | None = None,
        values: Mapping[str, str] | None = None,
        query: str = "",
        content: bytes | None = None,
    ) -> httpx.Response:
        """Call a route, and compare the answer with what OpenAPI says of the operation."""
        path = route.path
        for name, value in (case.values if values is None else values).items():
            path = path.replace(f"{{{name}}}", value)
        sent: dict[str, Any] = {}
        all_headers = {**case.credentials, **case.headers} if headers is None else {**headers}
        if content is not None or case.content is not None:
            sent["content"] = case.content if content is None else content
        elif case.form is not None:
            sent["data"] = case.form
        elif case.json is not None:
            sent["content"] = json.dumps(case.json)
        if "content" in sent and case.json is not None:
            all_headers.setdefault("Content-Type", "application/json")
        answer = await self.client.request(
            route.method, f"{path}{query}", headers=all_headers, **sent
        )
        self.requests += 1
        self.compare(route, answer)
        return answer

    def compare(self, route: RouteFacts, answer: httpx.Response) -> None:
        """Fail unless the status, the body and the code are among those declared."""
        said = f"{route.method} {route.path} -> {answer.status_code} {answer.text[:500]}"
        if answer.is_error:
            assert answer.headers["content-type"] == PROBLEM_MEDIA_TYPE, said
            problem = answer.json()
            declared = {(each.status, each.code) for each in problems_of(route)}
            assert (answer.status_code, problem["code"]) in declared | EDGE, said
            assert answer.status_code < 500, said
            assert problem["status"] == answer.status_code, said
            schema = self.document["components"]["schemas"]["Problem"]
            extensions = {"row", "cause"}
            known = {name: value for name, value in problem.items() if name not in extensions}
            assert list(complaints(self.document, schema, known)) == [], said
            return
        operation = self.document["paths"][route.path][route.method.lower()]
        assert str(answer.status_code) in operation["responses"], said
        response = resolve(self.document, operation["responses"][str(answer.status_code)])
        content = response.get("content")
        if content is None:
            assert answer.content == b"", said
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in content, said
        if media_type == "application/json":
            found = complaints(self.document, content[media_type]["schema"], answer.json())
            assert list(found) == [], said

    async def events_of(
        self, answer: httpx.Response, *, awaited: bool = True
    ) -> list[dict[str, Any]]:
        """Flush, and read what the trail says of the request.

        An event whose copy in Redis was late is only taken from the outbox some time later.
        """
        deadline = time.monotonic() + EVENT_SECONDS
        while True:
            await self.flushing.service.run()
            rows = await self.connection.fetch(_EVENTS, answer.headers["x-request-id"])
            if rows or not awaited or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        self.events += len(rows)
        return [dict(row) for row in rows]


@asynccontextmanager
async def opened_world(
    settings: Settings,
    connection: "asyncpg.Connection[asyncpg.Record]",
    *,
    supplier_port: int = 0,
    kind: type[World] = World,
) -> AsyncIterator[World]:
    flushing = build_flush(settings)
    async with serving(Upstream(), port=supplier_port) as port:
        listed = {"allowed_private_targets": (f"127.0.0.1:{port}",)}
        outgoing = settings.outgoing.model_copy(update=listed)
        settings = settings.model_copy(update={"outgoing": outgoing})
        async with _opened(settings, flushing, connection, kind) as world:
            world.supplier_url = f"http://127.0.0.1:{port}/v1"
            yield world


@asynccontextmanager
async def _opened(
    settings: Settings,
    flushing: FlushContext,
    connection: "asyncpg.Connection[asyncpg.Record]",
    kind: type[World],
) -> AsyncIterator[World]:
    async with open_platform(settings) as platform:
        app = create_app(settings, platform=platform)
        async with app.router.lifespan_context(app) as state:

            async def with_state(scope: dict[str, object], receive: object, send: object) -> None:
                scope["state"] = dict(state or {})
                await app(scope, receive, send)  # type: ignore[arg-type]  # httpx types it loosely

            transport = httpx.ASGITransport(app=with_state)  # type: ignore[arg-type]  # likewise
            async with httpx.AsyncClient(
                transport=transport, base_url="http://maas.test", timeout=HTTP_TIMEOUT_SECONDS
            ) as client:
                world = kind(
                    app=app,
                    client=client,
                    platform=platform,
                    settings=settings,
                    flushing=flushing,
                    connection=connection,
                )
                world.document = app.openapi()
                world.routes = {
                    f"{route.method} {route.path.removeprefix(API)}": route
                    for route in walk_routes(app)
                    if route.path.startswith(API)
                }
                await world.people()
                yield world
    await flushing.close()
