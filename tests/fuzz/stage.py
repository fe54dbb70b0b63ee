"""The real platform with a scripted upstream, and in it one of everything that has an id."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import httpx
import structlog
from typing_extensions import override

from maas.audit.flush_wiring import build_flush
from maas.bootstrap import Platform as BuiltPlatform
from maas.bootstrap import acting_as_operator, open_platform
from maas.embedded.endpoints import find_running
from maas.embedded.postgres import SUPERUSER
from maas.main import create_app
from maas.shared.infrastructure.settings import Settings, load_settings
from maas.shared.interface.routes import walk_routes
from maas.user.domain.account import EmailAddress, Username
from tests.acceptance.isolation import connection_arguments
from tests.acceptance.platforms import Platform, clean_environment, running
from tests.deployed import PRICES
from tests.e2e.conftest import Person
from tests.e2e.routes.cases import ROWS
from tests.e2e.routes.world import API, Case, World
from tests.fuzz.seeds import Seed
from tests.pair import WITHOUT_LIMITS
from tests.upstream.process import RunningUpstream, running_upstream

CHAT: Final = "fuzz-chat"
UPSTREAM_KEY: Final = f"sk-canary-{secrets.token_hex(24)}"
CALL_SECONDS: Final = 30.0
WEBHOOKS: Final = 12
"""There may be twenty at a time."""

HOOK: Final = {"url": "https://localhost/hook", "rules": ["new-admin"]}
SEEDS_EACH: Final = 1
SEEDS_TO_DELETE: Final = 3
CAPABILITIES: Final = ("chat", "completions", "embeddings")
MESSAGES: Final = [{"role": "user", "content": "What is it?"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A platform as a fuzz finds it."""

    url: str
    document: Mapping[str, Any]
    seeds: Mapping[str, list[Seed]]
    keeper: tuple[str, str]
    secrets: tuple[str, ...]
    """What no answer may hold."""


class LocalWorld(World):
    """A world whose suppliers are all the scripted upstream: nothing is asked beyond loopback."""

    @override
    async def made(self, path: str, body: object, *, by: Person | None = None) -> dict[str, Any]:
        return await super().made(path, _local(body, self.supplier_url), by=by)


def _local(body: object, supplier_url: str) -> object:
    """Have a body name the upstream where it would name, or mean, somebody outside."""
    if not isinstance(body, dict):
        return body
    if body.get("type") == "openai":
        return {"base_url": supplier_url, **body}
    if "url" in body:
        return {**body, "url": f"https://localhost:{urlsplit(supplier_url).port}/hook"}
    return body


@contextmanager
def running_platform(folder: Path) -> Iterator[tuple[Platform, RunningUpstream]]:
    """Run `maas up` with wide limits and cheap passwords, that reaches nothing but the upstream."""
    with running_upstream() as upstream:
        target = f"127.0.0.1:{upstream.port}"
        settings = {
            **WITHOUT_LIMITS,
            "MAAS_AUTH__REGISTRATION": "open",
            # Nothing that is made up is asked for: no other port, and no other private address.
            "MAAS_OUTGOING__ALLOWED_PORTS": str(upstream.port),
            "MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": target,
            "MAAS_OUTGOING__ALLOWED_WEBHOOK_TARGETS": target,
        }
        with running(folder, settings=settings) as platform:
            yield platform, upstream


def make_admin(data_dir: Path) -> tuple[str, str]:
    """Make an administrator of everything, as an operator does."""
    name, password = f"keeper-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    subprocess.run(
        [
            *(sys.executable, "-m", "maas.cli", "admin", "create"),
            *("--username", name, "--email", f"{name}@example.com", "--password-stdin"),
        ],
        input=password,
        env=clean_environment(**WITHOUT_LIMITS, MAAS_DATA_DIR=str(data_dir)),
        stdout=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return name, password


async def make_keeper(platform: BuiltPlatform) -> tuple[str, str]:
    """Make an administrator of everything whose password no seed holds."""
    name, password = f"keeper-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
    async with acting_as_operator(platform, "admin.created"):
        await platform.accounts.create_admin(
            username=Username(name), email=EmailAddress(f"{name}@example.com"), password=password
        )
    return name, password


def build_stage(platform: Platform, upstream: RunningUpstream) -> Stage:
    # What the platform logs is in its own file; what is opened here to make things need not log.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    return asyncio.run(_build(platform, upstream))


async def _build(platform: Platform, upstream: RunningUpstream) -> Stage:
    endpoints = find_running(platform.data_dir)
    if endpoints is None:
        message = "the platform has stopped"
        raise RuntimeError(message)
    os.environ.update({**platform.given, **endpoints.environment()})
    settings = load_settings()
    # Past all rules: some rows look at what was recorded, and make room for what they add.
    connection = await asyncpg.connect(
        **connection_arguments(settings.database.url.get_secret_value())
        | {"user": SUPERUSER, "password": endpoints.credentials.superuser_password}
    )
    async with _world(settings, connection, platform.url, f"{upstream.url}/v1") as world:
        stage = Stage(
            url=platform.url,
            document=world.document,
            seeds=await make_seeds(world),
            keeper=await make_keeper(world.platform),
            secrets=(
                UPSTREAM_KEY,
                settings.secret_key.get_secret_value(),
                str(platform.data_dir),
            ),
        )
    await connection.close()
    return stage


@asynccontextmanager
async def _world(
    settings: Settings,
    connection: "asyncpg.Connection[asyncpg.Record]",
    url: str,
    supplier_url: str,
) -> AsyncIterator[World]:
    """Open what makes the rows of the walk over all routes, against a platform that runs."""
    flushing = build_flush(settings)
    async with (
        open_platform(settings) as platform,
        httpx.AsyncClient(base_url=url, timeout=CALL_SECONDS, trust_env=False) as client,
    ):
        app = create_app(settings, platform=platform)
        world = LocalWorld(
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
        world.supplier_url = supplier_url
        await world.people()
        yield world
    await flushing.close()


async def make_seeds(world: World) -> dict[str, list[Seed]]:
    """Make what every operation would need to succeed."""
    seeds: dict[str, list[Seed]] = {}
    for key, make in ROWS.items():
        method, path = key.split(" ", 1)
        count = SEEDS_TO_DELETE if method == "DELETE" else SEEDS_EACH
        seeds[f"{method} {API}{path}"] = [
            _seed(await make(world), world.supplier_url) for _ in range(count)
        ]
    await _hook(world, seeds)
    await _deploy(world)
    return seeds | _calls()


async def _hook(world: World, seeds: dict[str, list[Seed]]) -> None:
    """Name webhooks that are there: each row about one has made room by deleting all others."""
    webhooks = cycle(
        [
            await world.made("/audit/webhooks", HOOK | {"name": world.name()})
            for _ in range(WEBHOOKS)
        ]
    )
    for label, each in seeds.items():
        if "{webhook_id}" in label:
            seeds[label] = [
                replace(seed, path={"webhook_id": next(webhooks)["id"]}) for seed in each
            ]


def _seed(case: Case, supplier_url: str) -> Seed:
    headers = {name: value for name, value in case.headers.items() if name != "Content-Type"}
    body = case.content or case.form or _local(case.json, supplier_url)
    return Seed(path=case.values, headers=headers, body=body)


async def _deploy(world: World) -> None:
    headers = world.root.headers
    provider = await world.made(
        "/providers",
        {"name": "fuzz-upstream", "type": "openai", "base_url": world.supplier_url},
    )
    path = f"{API}/providers/{provider['id']}"
    sent = await world.client.put(
        f"{path}/credential",
        json={"api_key": UPSTREAM_KEY},
        headers={**headers, "If-Match": "*"},
    )
    sent.raise_for_status()
    for capability in CAPABILITIES:
        body = {"name": capability, "capabilities": [capability], "max_output_tokens": 64}
        model = await world.made(f"/providers/{provider['id']}/models", body)
        await world.made(f"/providers/{provider['id']}/models/{model['id']}/prices", PRICES)
        targets = [{"kind": "provider", "provider_model_id": model["id"], "priority": 0}]
        await world.made("/deployments", {"name": f"fuzz-{capability}", "targets": targets})


def _calls() -> dict[str, list[Seed]]:
    chat = {"model": CHAT, "messages": MESSAGES, "max_tokens": 8}
    text = {"model": "fuzz-completions", "prompt": "What is it?", "max_tokens": 8}
    return {
        "POST /v1/chat/completions": [Seed(body=chat), Seed(body={**chat, "stream": True})],
        "POST /v1/completions": [Seed(body=text), Seed(body={**text, "stream": True})],
        "POST /v1/embeddings": [Seed(body={"model": "fuzz-embeddings", "input": "text"})],
        "GET /v1/models/{name}": [Seed(path={"name": CHAT})],
    }
