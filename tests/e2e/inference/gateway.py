"""The application on a port of its own, with a supplier behind it that does as it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import uvicorn
from fastapi import FastAPI

from maas.main import create_app
from maas.shared.infrastructure.settings import Settings
from tests.e2e.conftest import Person, sign_in
from tests.upstream.desk import Desk
from tests.upstream.ledger import Call

SUPPLIER_KEY = "sk-canary-0123456789abcdef"
CHAT = "gpt-4o-mini"
PRICES = {"currency": "USD", "input": "2.5", "output": "10", "cached": "1.25"}

_apps: list[FastAPI] = []


@dataclass(kw_only=True)
class Gateway:
    """What a test needs of it. `key` may call; `root` may also connect private suppliers."""

    port: int
    desk: Desk
    supplier_port: int
    key: str
    root: Person
    http: httpx.AsyncClient
    provider: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> list[Call]:
        """What the supplier was called for."""
        return [each for each in self.desk.ledger.calls if each.method == "POST"]

    def sync(self, **values: Any) -> openai.OpenAI:
        """Make the official client, which checks each answer against its types."""
        return openai.OpenAI(
            **{
                "base_url": self.url,
                "api_key": self.key,
                "max_retries": 0,
                "_strict_response_validation": True,
                **values,
            }
        )

    def client(self, **values: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            **{
                "base_url": self.url,
                "api_key": self.key,
                "max_retries": 0,
                "_strict_response_validation": True,
                **values,
            }
        )

    async def made(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.http.post(f"/api/v1{path}", json=body, headers=self.root.headers)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def deploy(
        self,
        *models: str,
        name: str = "bot",
        is_priced: bool = True,
        each: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> dict[str, Any]:
        """Deploy models of the supplier, a target each; their names say how it answers.

        `each` is further fields of the targets.
        """
        targets = []
        for number, model in enumerate(models or (CHAT,)):
            made = await self.made(
                f"{self.provider}/models",
                {"name": model, "capabilities": ["chat", "completions", "embeddings"]},
            )
            if is_priced:
                await self.made(f"{self.provider}/models/{made['id']}/prices", PRICES)
            targets.append(
                {
                    "kind": "provider",
                    "provider_model_id": made["id"],
                    "priority": number,
                    **(each or {}),
                }
            )
        return await self.made("/deployments", {"name": name, "targets": targets, **fields})


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[int]:
    """Serve the application of these settings; its routes are built once for all tests."""
    if not _apps:
        _apps.append(create_app(settings))
    app = _apps[0]
    app.state.settings = settings
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110  uvicorn sets no event
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        await serving


@asynccontextmanager
async def opened(
    settings: Settings, desk: Desk, supplier_port: int, root: Person
) -> AsyncIterator[Gateway]:
    """Open a gateway with its supplier connected, and a key that may call."""
    async with served(settings) as port, connected(port, desk, supplier_port, root) as gateway:
        yield gateway


@asynccontextmanager
async def connected(
    port: int, desk: Desk, supplier_port: int, root: Person
) -> AsyncIterator[Gateway]:
    """Connect the supplier to an application that is served, and make a key that may call."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
        root = await sign_in(http, root.username)
        gateway = Gateway(
            port=port, desk=desk, supplier_port=supplier_port, key="", root=root, http=http
        )
        key = await gateway.made(
            "/users/api-keys", {"name": "caller", "scopes": ["inference:call"]}
        )
        gateway.key = key["key"]
        base_url = f"http://127.0.0.1:{supplier_port}/v1"
        provider = await gateway.made(
            "/providers", {"name": "supplier", "type": "openai-compatible", "base_url": base_url}
        )
        gateway.provider = f"/providers/{provider['id']}"
        put = await http.put(
            f"/api/v1{gateway.provider}/credential",
            json={"api_key": SUPPLIER_KEY},
            headers={**root.headers, "If-Match": "*"},
        )
        assert put.status_code == 200, put.text
        yield gateway
