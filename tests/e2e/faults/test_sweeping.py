"""Redis killed and not brought back: what happens is in the trail within ten seconds.

The worker is the real one, with nothing to tell it to flush: no broker, and so no ticks.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from maas.bootstrap import acting_as_operator, open_platform
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.user.domain.account import EmailAddress, Username
from tests.conftest import TEST_SECRET
from tests.e2e.conftest import serving_app, sign_in
from tests.factories.accounts import PASSWORD
from tests.own_valkey import OwnValkey

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]

VISIBLE_SECONDS = 30
START_SECONDS = 60


@pytest.fixture
def own_valkey() -> Iterator[OwnValkey]:
    valkey = OwnValkey()
    yield valkey
    valkey.stop()


@pytest.fixture
def alone(
    make_settings: Callable[..., Settings], own_valkey: OwnValkey, tmp_path: Path
) -> Settings:
    redis = {"url": own_valkey.url, "broker_url": own_valkey.url, "timeout_ms": 250}
    return make_settings(redis=redis, data_dir=tmp_path)


def environment(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not re.match("MAAS_", name)}
    database = settings.database
    assert database.owner_url is not None
    assert database.system_url is not None
    return {
        **kept,
        "MAAS_ENVIRONMENT": "test",
        "MAAS_SECRET_KEY": TEST_SECRET,
        "MAAS_DATA_DIR": str(settings.data_dir),
        "MAAS_DATABASE__URL": database.url.get_secret_value(),
        "MAAS_DATABASE__OWNER_URL": database.owner_url.get_secret_value(),
        "MAAS_DATABASE__SYSTEM_URL": database.system_url.get_secret_value(),
        "MAAS_REDIS__URL": settings.redis.url.get_secret_value(),
    }


@contextmanager
def running_worker(settings: Settings, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "maas.cli", "worker", "--concurrency", "1"],
            env=environment(settings),
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


async def wait_for_text(log: Path, text: str) -> None:
    async with asyncio.timeout(START_SECONDS):
        while text not in await asyncio.to_thread(log.read_text):  # noqa: ASYNC110  its own log
            await asyncio.sleep(0.1)


async def make_admin(settings: Settings) -> None:
    async with open_platform(settings) as platform, acting_as_operator(platform, "admin.created"):
        await platform.accounts.create_admin(
            username=Username("ada"), email=EmailAddress("ada@example.com"), password=PASSWORD
        )


async def wait_for_events(client: httpx.AsyncClient, headers: dict[str, str]) -> float:
    """Wait until both events can be read through the API; return for how many seconds."""
    begun = time.monotonic()
    async with asyncio.timeout(START_SECONDS):
        while True:
            found = set()
            for wanted in ("action=auth.login&outcome=failure", "action=model.created"):
                answer = await client.get(f"/api/v1/audit/logs?{wanted}", headers=headers)
                assert answer.status_code == 200, answer.text
                found |= {item["action"] for item in answer.json()["items"]}
            if found == {"auth.login", "model.created"}:
                return time.monotonic() - begun
            await asyncio.sleep(0.2)


async def act(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    wrong = await client.post("/api/v1/auth/login", json={"username": "eve", "password": "no" * 8})
    assert wrong.status_code == 401, wrong.text
    made = await client.post(
        "/api/v1/models", json={"name": "team/model", "framework": "other"}, headers=headers
    )
    assert made.status_code == 201, made.text


async def test_events_are_visible_without_a_tick(
    alone: Settings, database: Database, own_valkey: OwnValkey, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    await make_admin(alone)
    with running_worker(alone, log) as worker:
        async with serving_app(alone) as client:
            await wait_for_text(log, "ready")
            ada = await sign_in(client, "ada")
            await asyncio.to_thread(own_valkey.kill)

            await act(client, ada.headers)

            assert await wait_for_events(client, ada.headers) <= VISIBLE_SECONDS
            health = (await client.get("/health/ready")).json()
            assert health["status"] == "degraded"
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait, 10)


async def test_a_worker_that_starts_without_a_broker_sweeps_too(
    alone: Settings, database: Database, own_valkey: OwnValkey, tmp_path: Path
) -> None:
    await make_admin(alone)
    async with serving_app(alone) as client:
        ada = await sign_in(client, "ada")
        await asyncio.to_thread(own_valkey.kill)
        await act(client, ada.headers)

        with running_worker(alone, tmp_path / "worker.log"):
            await wait_for_events(client, ada.headers)
