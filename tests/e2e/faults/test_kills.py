"""`kill -9` of each process while people work: what was acknowledged is in the trail, once.

The platform is the real one (`maas up`), its supervisor restarts what dies, and the clients keep
their own list of what they were told. An answer that never came may mean either: then the change
and its event must be both there or both not.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import httpx
import psutil
import pytest
from pydantic import SecretStr

from bench.platform import RunningPlatform, run_platform
from maas.embedded.endpoints import find_running
from maas.shared.infrastructure.database import asyncpg_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CLIENTS = 6
KILLS_EACH = 2
SETTLE_SECONDS = 30


@pytest.fixture(scope="module")
def running() -> Iterator[RunningPlatform]:
    with TemporaryDirectory(prefix="maas-kills-") as name:
        folder = Path(name)
        # The private servers run as another user where the tests run as root.
        folder.chmod(0o711)
        # Nobody calls a model here.
        with run_platform(folder / "data", MAAS_RUNTIME__ENABLED="false") as platform:
            yield platform


@dataclass(slots=True)
class Notebook:
    """What the clients were told, kept outside of the platform."""

    acknowledged: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)
    stop: bool = False


async def register_models(
    platform: RunningPlatform, token: str, number: int, book: Notebook
) -> None:
    """Register one model after another, noting each name and what became of it."""
    count = 0
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=10, limits=limits) as client:
        while not book.stop:
            count += 1
            name = f"client-{number}/model-{count}"
            try:
                answer = await client.post(
                    f"{platform.url}/api/v1/models", json={"name": name, "framework": "other"}
                )
            except httpx.HTTPError:
                book.unanswered.add(name)
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 201:
                book.acknowledged.add(name)
            else:
                assert answer.status_code == 503, answer.text
                assert "retry-after" in answer.headers
                book.unanswered.add(name)
                await asyncio.sleep(0.05)


def find_process(platform: RunningPlatform, word: str) -> psutil.Process | None:
    """Find the process that was started with this word, or as this program."""
    for child in psutil.Process(platform.process.pid).children(recursive=True):
        try:
            if any(part == word or part.endswith(f"/{word}") for part in child.cmdline()):
                return child
        except psutil.Error:
            continue
    return None


@asynccontextmanager
async def as_system(platform: RunningPlatform) -> "AsyncIterator[asyncpg.Connection]":
    endpoints = find_running(platform.data_dir)
    assert endpoints is not None
    url = endpoints.environment()["MAAS_DATABASE__SYSTEM_URL"]
    connection = await asyncpg.connect(
        **asyncpg_arguments(DatabaseSettings(url=SecretStr(url)), url=url, role=None)
    )
    try:
        yield connection
    finally:
        await connection.close()


async def names_of(platform: RunningPlatform) -> tuple[set[str], list[str]]:
    """Read the names that were kept, and the names in the trail, as often as they are there."""
    async with as_system(platform) as connection:
        kept = {row["name"] for row in await connection.fetch("SELECT name FROM models")}
        events = await connection.fetch(
            """SELECT convert_from(payload, 'UTF8')::jsonb #>> '{changes,after,name}' AS name
               FROM audit_log WHERE action = 'model.created' AND outcome = 'success'"""
        )
        return kept, [row["name"] for row in events]


async def wait_until_flushed(platform: RunningPlatform) -> None:
    async with asyncio.timeout(SETTLE_SECONDS), as_system(platform) as connection:
        while True:
            waiting = await connection.fetchval("SELECT count(*) FROM audit_outbox")
            kept = await connection.fetchval("SELECT count(*) FROM models")
            logged = await connection.fetchval(
                "SELECT count(*) FROM audit_log WHERE action = 'model.created'"
            )
            if waiting == 0 and logged >= kept:
                return
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("victim", ["serve", "worker", "valkey-server"])
async def test_nothing_acknowledged_is_lost_or_doubled(
    running: RunningPlatform, victim: str
) -> None:
    token = running.sign_in()
    book = Notebook()
    kept_before, _ = await names_of(running)
    number = len(kept_before) * 100
    dice = random.Random(victim)  # noqa: S311  for a schedule that can be repeated
    clients = [
        asyncio.create_task(register_models(running, token, number + offset, book))
        for offset in range(CLIENTS)
    ]

    # On a busy machine the first answer takes longer than the first kill would wait.
    async with asyncio.timeout(SETTLE_SECONDS):
        while not book.acknowledged:  # noqa: ASYNC110  the clients are told, nobody else
            await asyncio.sleep(0.02)
    for _ in range(KILLS_EACH):
        await asyncio.sleep(1 + dice.random())
        process = await asyncio.to_thread(find_process, running, victim)
        assert process is not None, f"{victim} was not brought back"
        os.kill(process.pid, signal.SIGKILL)
        await asyncio.sleep(3)
    book.stop = True
    await asyncio.gather(*clients)
    await wait_until_flushed(running)

    kept, logged = await names_of(running)
    assert book.acknowledged, "nobody was served"
    assert book.acknowledged <= kept, "an acknowledged model is gone"
    assert len(logged) == len(set(logged)), "an event is in the trail twice"
    assert set(logged) == kept, "a change without its event, or an event without its change"


async def test_the_chain_has_no_gap(running: RunningPlatform) -> None:
    running.sign_in()
    await wait_until_flushed(running)

    async with as_system(running) as connection:
        row = await connection.fetchrow(
            "SELECT count(*) AS entries, coalesce(max(seq), 0) AS last FROM audit_chain"
        )
        head = await connection.fetchval("SELECT seq FROM audit_head")

    assert row is not None
    assert row["entries"] == row["last"] == head
