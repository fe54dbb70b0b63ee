"""Keys that seal are changed while secrets are written and read, and nobody notices.

The real platform with two API processes and a worker. Its own commands change the keys, as an
operator would; receivers of webhooks check each signature, so that a secret that was read wrongly
shows as well as one that was not.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx
from aiohttp import web

from maas.sealed import SEALED_COLUMNS
from maas.shared.infrastructure.sealing import Sealer, key_id_of
from maas.shared.infrastructure.sealing_keys import KEY_FILE_NAME, FileKeys
from maas.shared.infrastructure.sealing_ring import RingKey
from tests.acceptance.isolation import connection_arguments
from tests.acceptance.platforms import Person, Platform, clean_environment, running
from tests.acceptance.verdict import Verdict, all_of

WEBHOOKS, PROVIDERS = "/api/v1/audit/webhooks", "/api/v1/providers"
ROTATIONS: Final = 2
IDLE_VALUES: Final = 15
SETTLE_SECONDS: Final = 3.0
HAND_OVER_SECONDS: Final = 90.0
LOOK_SECONDS: Final = 0.2
PAUSE_SECONDS: Final = 0.05
ALL_SEALED: Final = """
    SELECT {row} AS row, tenant_id, {column} AS sealed FROM {table} WHERE {column} IS NOT NULL
"""

Act = Callable[[], Awaitable[None]]


@dataclass
class Tally:
    """What was asked, what came back otherwise than it should, and what was signed with."""

    acts: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    signed: Counter[str] = field(default_factory=Counter)
    secrets: defaultdict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    keys: dict[str, str] = field(default_factory=dict)

    def heard(self, act: str, response: httpx.Response) -> httpx.Response:
        self.acts[act] += 1
        if not response.is_success:
            self.wrong[f"{act}: {response.status_code} {response.text[:120]}"] += 1
        return response

    async def receive(self, request: web.Request) -> web.Response:
        """Take a message if a secret signed it that its webhook has, or had."""
        body, name = await request.read(), request.match_info["name"]
        known = self.secrets[name]
        is_good = any(_is_signed(request, body, secret) for secret in known)
        self.signed["good" if is_good else "wrong"] += 1
        return web.Response(status=204 if is_good else 401)


def _is_signed(request: web.Request, body: bytes, secret: bytes) -> bool:
    parts = (request.headers["webhook-id"], request.headers["webhook-timestamp"])
    signed = b".".join([*(part.encode() for part in parts), body])
    wanted = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    return f"v1,{wanted}" in request.headers["webhook-signature"].split(" ")


def rotation_under_traffic(folder: Path) -> Verdict:
    tally, receiver = Tally(), web.Application()
    receiver.router.add_post("/{name}", tally.receive)
    return asyncio.run(_play(folder, tally, receiver))


async def _play(folder: Path, tally: Tally, receiver: web.Application) -> Verdict:
    async with _listening(receiver) as target:
        settings = {
            "MAAS_SERVER__WORKERS": "2",
            "MAAS_OUTGOING__ALLOWED_WEBHOOK_TARGETS": target,
        }
        # Its start and end block; the receiver has nobody to answer then.
        with running(folder, settings=settings) as platform:
            person = await asyncio.to_thread(platform.sign_in)
            headers = {"Authorization": f"Bearer {person.token}"}
            async with httpx.AsyncClient(
                base_url=platform.url, headers=headers, timeout=30, trust_env=False
            ) as client:
                return await _change_keys(platform, person, client, tally, f"http://{target}")


@asynccontextmanager
async def _listening(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _change_keys(
    platform: Platform, person: Person, client: httpx.AsyncClient, tally: Tally, target: str
) -> Verdict:
    callers = Callers(client=client, tally=tally, target=target, name=person.name)
    acts = [*[await callers.webhook() for _ in range(2)], callers.short_lived, callers.alert]
    acts += [await callers.provider() for _ in range(2)]
    for _ in range(IDLE_VALUES):
        await callers.make_webhook()
    done = asyncio.Event()
    traffic = asyncio.gather(*(_repeat(act, done) for act in acts))
    retired = []
    for _ in range(ROTATIONS):
        retired += await change_key(platform)
    done.set()
    await traffic
    left, opened, lost = await _look(platform, retired, tally)
    refused = await _swap(platform, client, callers)
    log = platform.data_dir.joinpath("logs")
    complaints = sum(
        path.read_text(errors="replace").count("unreadable") for path in log.glob("*.log")
    )
    return all_of(
        (not tally.wrong, f"{tally.acts.total()} calls, {tally.wrong.total()} errors "
         f"{dict(tally.wrong.most_common(2)) or ''}".strip()),
        (tally.signed["good"] > tally.acts["tested"] > 0,
         f"{tally.signed['good']} messages signed right, {tally.acts['tested']} of them tests"),
        (not tally.signed["wrong"], f"{tally.signed['wrong']} wrong"),
        (len(retired) == ROTATIONS, f"{len(retired)} keys retired"),
        (not left, f"{left} rows under them"),
        (opened > IDLE_VALUES and not lost, f"{opened} values open as set, {lost} do not"),
        (not complaints, f"{complaints} complaints in logs before the swap"),
        (refused == ["secret-unreadable"] * 3, f"swapped between rows and columns: {refused}"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Callers:
    """Everything that seals or opens, each as one act that is repeated."""

    client: httpx.AsyncClient
    tally: Tally
    target: str
    name: str
    made: list[str] = field(default_factory=list)

    async def make_webhook(self) -> tuple[str, str]:
        """Make a webhook, and tell its id and the name its receiver knows it under."""
        name = secrets.token_hex(6)
        body = {"name": name, "url": f"{self.target}/{name}", "rules": ["new-admin"]}
        answer = self.tally.heard("made", await self.client.post(WEBHOOKS, json=body))
        made = answer.raise_for_status().json()
        self._learn(name, made)
        self.made.append(made["id"])
        return made["id"], name

    def _learn(self, name: str, shown: dict[str, Any]) -> None:
        secret = base64.b64decode(shown["secret"].removeprefix("whsec_"))
        self.tally.secrets[name].append(secret)

    async def webhook(self) -> Act:
        webhook_id, name = await self.make_webhook()

        async def test_and_rotate() -> None:
            tested = await self.client.post(f"{WEBHOOKS}/{webhook_id}/test")
            outcome = self.tally.heard("tested", tested).json()
            if not outcome.get("is_success"):
                self.tally.wrong[f"test: {outcome.get('error')}"] += 1
            rotated = await self.client.post(f"{WEBHOOKS}/{webhook_id}/rotate")
            if self.tally.heard("rotated", rotated).is_success:
                self._learn(name, rotated.json())

        return test_and_rotate

    async def short_lived(self) -> None:
        webhook_id, _ = await self.make_webhook()
        self.made.remove(webhook_id)
        gone = await self.client.delete(f"{WEBHOOKS}/{webhook_id}")
        self.tally.heard("deleted", gone)

    async def alert(self) -> None:
        """Do what the worker tells every webhook of, signed."""
        role = {"name": f"r-{secrets.token_hex(4)}", "permissions": ["role:grant"]}
        answer = await self.client.post("/api/v1/admin/roles", json=role)
        made = self.tally.heard("alerted", answer).json()
        await self.client.delete(f"/api/v1/admin/roles/{made.get('id')}")
        await asyncio.sleep(1)

    async def provider(self) -> Act:
        body = {"name": secrets.token_hex(6), "type": "openai"}
        answer = self.tally.heard("connected", await self.client.post(PROVIDERS, json=body))
        answer.raise_for_status()
        url, etag = f"{PROVIDERS}/{answer.json()['id']}", [answer.headers["etag"]]

        async def set_key() -> None:
            key = f"sk-{secrets.token_urlsafe(24)}"
            answer = await self.client.put(
                f"{url}/credential", json={"api_key": key}, headers={"If-Match": etag[0]}
            )
            if self.tally.heard("key set", answer).is_success:
                etag[0] = answer.headers["etag"]
                self.tally.keys[answer.json()["id"]] = key

        return set_key


async def _repeat(act: Act, done: asyncio.Event) -> None:
    while not done.is_set():
        await act()
        # The commands that change the keys want some of the machine as well.
        await asyncio.sleep(PAUSE_SECONDS)


async def change_key(platform: Platform) -> list[str]:
    """Go on to a new key, and take out those before it; tell which were in the file."""
    await _maas(platform, "add")
    await asyncio.sleep(SETTLE_SECONDS)
    before = [key["id"] for key in await _list(platform) if key["state"] in {"current", "older"}]
    await _maas(platform, "rotate")
    begun = time.monotonic()
    while await _count(platform, before):
        if time.monotonic() - begun > HAND_OVER_SECONDS:
            return []
        await asyncio.sleep(LOOK_SECONDS)
    return [key_id for key_id in before if await _maas(platform, "retire", key_id) is not None]


async def _list(platform: Platform) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(await _maas(platform, "ls", "--json") or "")["keys"]
    return [key for key in listed if key["state"] != "retired"]


async def _maas(platform: Platform, *words: str) -> str | None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "maas.cli", "keys", *words),
        env=clean_environment(MAAS_DATA_DIR=str(platform.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return output.decode() if process.returncode == 0 else None


async def _count(platform: Platform, key_ids: list[str]) -> int:
    """Count what is sealed under these keys."""
    connection = await _connect(platform)
    try:
        found = [
            key_id_of(row["sealed"]).hex()
            for column in SEALED_COLUMNS
            for row in await connection.fetch(column.spell(ALL_SEALED))
        ]
    finally:
        await connection.close()
    return sum(found.count(key_id) for key_id in key_ids)


async def _look(platform: Platform, retired: list[str], tally: Tally) -> tuple[int, int, int]:
    """Count rows under retired keys, values that open as they were set, and those that do not."""
    sealer = _sealer(platform)
    known = {secret for each in tally.secrets.values() for secret in each}
    known |= {key.encode() for key in tally.keys.values()}
    found = Counter[str]()
    connection = await _connect(platform)
    try:
        for column in SEALED_COLUMNS:
            rows = await connection.fetch(column.spell(ALL_SEALED))
            for row in rows:
                found["left"] += key_id_of(row["sealed"]).hex() in retired
                plain = sealer.open(row["sealed"], column.place(row["row"], row["tenant_id"]))
                found["opened" if plain in known else "lost"] += 1
    finally:
        await connection.close()
    return found["left"], found["opened"], found["lost"]


def _sealer(platform: Platform) -> Sealer:
    derived = RingKey.derived(platform.environment_of("serve")["MAAS_SECRET_KEY"])
    return Sealer(FileKeys(platform.data_dir / KEY_FILE_NAME, derived=[derived]))


async def _connect(platform: Platform) -> Any:
    url = platform.environment_of("serve")["MAAS_DATABASE__SYSTEM_URL"]
    return await asyncpg.connect(**connection_arguments(url))


async def _swap(platform: Platform, client: httpx.AsyncClient, callers: Callers) -> list[str]:
    """Put a secret into another row, and into another column; tell what tests of them say."""
    rotated, one, other, *_ = callers.made
    connection = await _connect(platform)
    try:
        await connection.execute(
            "UPDATE audit_webhooks AS t SET secret = f.secret FROM audit_webhooks AS f"
            " WHERE (t.id, f.id) IN (($1, $2), ($2, $1))",
            *(UUID(one), UUID(other)),
        )
        await connection.execute(
            "UPDATE audit_webhooks SET secret = previous_secret WHERE id = $1", UUID(rotated)
        )
    finally:
        await connection.close()
    answers = [await client.post(f"{WEBHOOKS}/{each}/test") for each in (one, other, rotated)]
    return [answer.json().get("error") for answer in answers]
