"""Two API processes, and people who use them: what the drivers of fault tests share."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp
import httpx

from maas.shared.domain.ids import SessionId
from maas.user.infrastructure.sessions import session_key
from tests.pair import ADMIN, Api, Pair

LOGIN, REFRESH = "/api/v1/auth/login", "/api/v1/auth/refresh"
PROFILE, MODELS = "/api/v1/users/profile", "/api/v1/models"
USERS, ROLES = "/api/v1/admin/users", "/api/v1/admin/roles"
PASSWORD = "correct horse battery staple"
REQUEST_SECONDS = 30.0
TRIES, PAUSE_SECONDS = 5, 0.5
KEPT_SECONDS = 2.0
"""The server closes what is idle for 5 s: a request sent right then would not be answered."""


@dataclass(slots=True, kw_only=True)
class Session:
    access_token: str
    refresh_token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    @property
    def key(self) -> str:
        """Name what Redis holds of it."""
        claims = self.access_token.split(".")[1]
        read = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return session_key(SessionId(UUID(read["sid"])))


class Stage:
    """The two processes and the administrator, as the acts below use them."""

    def __init__(
        self, pair: Pair, clients: Mapping[str, httpx.AsyncClient], crowd: aiohttp.ClientSession
    ) -> None:
        self.pair = pair
        self.clients = clients
        # What asks all the time: a lighter client, so that the processes are what is busy.
        self.crowd = crowd
        self.admin: dict[str, str] = {}
        self.numbers = itertools.count(1)

    def client(self, api: Api) -> httpx.AsyncClient:
        return self.clients[api.name]

    async def ask(
        self, api: Api, path: str, session: Session, *, body: Mapping[str, str] | None = None
    ) -> int:
        """Get what is there, or post a body, and tell the status once the answer is read."""
        method = "GET" if body is None else "POST"
        async with self.crowd.request(
            method, f"{api.url}{path}", json=body, headers=session.headers
        ) as answer:
            await answer.read()
            return answer.status

    async def post(
        self,
        path: str,
        body: Mapping[str, object],
        *,
        at: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Have something made, by the administrator if not told; busy machines are asked again."""
        client, sent = self.client(self.pair.apis[at]), dict(headers or self.admin)
        answer = await client.post(path, json=body, headers=sent)
        for _ in range(TRIES):
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            await asyncio.sleep(PAUSE_SECONDS)
            answer = await client.post(path, json=body, headers=sent)
        return answer.raise_for_status().json()

    async def sign_in(self, name: str, password: str, *, at: int = 0) -> Session:
        body = await self.post(LOGIN, {"username": name, "password": password}, at=at)
        return Session(access_token=body["access_token"], refresh_token=body["refresh_token"])

    async def make_person(self, role: str) -> tuple[str, str]:
        """Make somebody, and tell the name and the id."""
        name = f"person{next(self.numbers)}"
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        made = await self.post(USERS, {**body, "roles": [role]})
        return name, str(made["id"])


@asynccontextmanager
async def staged(pair: Pair) -> AsyncIterator[Stage]:
    one, other = (
        httpx.AsyncClient(
            base_url=api.url,
            timeout=REQUEST_SECONDS,
            limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),
            trust_env=False,
        )
        for api in pair.apis
    )
    crowd = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_SECONDS),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
    )
    async with one, other, crowd:
        stage = Stage(pair, {pair.apis[0].name: one, pair.apis[1].name: other}, crowd)
        stage.admin = (await stage.sign_in(ADMIN, pair.password)).headers
        yield stage
