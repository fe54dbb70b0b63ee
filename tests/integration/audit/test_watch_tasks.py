"""From guessed passwords over HTTP to the receiver, through the tasks as Celery runs them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from celery.signals import worker_process_shutdown

from maas.shared.infrastructure.settings import OutgoingSettings, Settings
from maas.worker import WorkerApp, create_worker
from tests.integration.audit.conftest import FakeAuthenticator
from tests.integration.audit.helpers import Superuser, Trail
from tests.integration.audit.watching import Receiver, Watching, receiving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(60),
    pytest.mark.usefixtures("clean"),
]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(settings: Settings, receiver: Receiver) -> Settings:
    outgoing = OutgoingSettings(allowed_webhook_targets=(f"127.0.0.1:{receiver.port}",))
    return settings.model_copy(update={"outgoing": outgoing})


@pytest.fixture
def watching(trail: Trail, settings: Settings, superuser: Superuser) -> Watching:
    return Watching(trail, settings, superuser)


@pytest.fixture
def worker(settings: Settings) -> Iterator[WorkerApp]:
    app = create_worker(settings)
    app.loader.import_default_modules()
    yield app
    worker_process_shutdown.send(sender=None)


async def run(worker: WorkerApp, task: str) -> None:
    """Run a task as a worker's process would, in a thread of its own."""
    result = await asyncio.to_thread(worker.tasks[task].apply)
    assert result.successful(), result.traceback


async def test_guessed_passwords_reach_the_receiver(
    client: httpx.AsyncClient, worker: WorkerApp, watching: Watching, receiver: Receiver
) -> None:
    await watching.hook(receiver.url)
    statuses = []
    for _ in range(6):
        answer = await client.post(
            "/api/v1/auth/login", json={"username": "nobody", "password": "a wrong password"}
        )
        statuses.append(answer.status_code)

    for task in ("audit.flush", "audit.watch", "audit.watch", "audit.deliver", "audit.deliver"):
        await run(worker, task)

    assert statuses[0] == 401
    assert set(statuses) <= {401, 429}
    ((_, body),) = receiver.got
    alert = json.loads(body)["data"]
    assert (alert["rule"], alert["count"]) == ("failed-login-burst", 5)
    assert alert["subject"] == {"kind": "address", "id": None}
    logged = await client.get(f"/api/v1/audit/logs/{alert['event_ids'][0]}")
    assert (logged.json()["action"], logged.json()["outcome"]) == ("auth.login", "failure")


async def test_those_who_set_a_rule_first_at_once_all_come_through(
    client: httpx.AsyncClient, authenticator: FakeAuthenticator
) -> None:
    authenticator.permissions = frozenset({"alert:write"})
    path = "/api/v1/audit/rules/mass-deletion"

    answers = await asyncio.gather(
        *(client.put(path, json={"parameters": {"deletions": 5 + each}}) for each in range(4))
    )

    assert [answer.status_code for answer in answers] == [200] * 4
    assert sorted(answer.json()["version"] for answer in answers) == [1, 2, 3, 4]
