from collections.abc import AsyncIterator

import httpx
import pytest

from maas.shared.interface import health
from maas.shared.interface.health import Status
from tests.fakes.edge import Edge, make_edge

pytestmark = pytest.mark.e2e


@pytest.fixture
def edge() -> Edge:
    return make_edge()


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with edge.client() as client:
        yield client


async def test_all_is_well(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get(path)
        for path in ("/health", "/health/live", "/health/ready", "/health/db", "/health/redis")
    ]

    assert [answer.status_code for answer in answers] == [200] * 5
    assert answers[0].json()["status"] == "up"
    assert answers[0].json()["checks"]["postgres"]["latency_ms"] >= 0


async def test_without_postgres_it_lives_but_is_not_ready(
    edge: Edge, client: httpx.AsyncClient
) -> None:
    edge.postgres.error = ConnectionRefusedError()

    ready, live = await client.get("/health/ready"), await client.get("/health/live")
    summary, database = await client.get("/health"), await client.get("/health/db")

    assert (ready.status_code, ready.json()["status"]) == (503, "down")
    assert ready.headers["retry-after"] == "1"
    assert live.status_code == 200
    assert (summary.status_code, summary.json()["status"]) == (200, "down")
    assert (database.status_code, database.json()["status"]) == (503, "down")


async def test_missing_migrations_are_not_ready(edge: Edge, client: httpx.AsyncClient) -> None:
    edge.postgres.status = "behind"

    answer = await client.get("/health/ready")

    assert (answer.status_code, answer.json()["checks"]["postgres"]["status"]) == (503, "behind")


async def test_without_redis_it_is_degraded_but_ready(
    edge: Edge, client: httpx.AsyncClient
) -> None:
    edge.redis.error = ConnectionRefusedError()

    ready, redis = await client.get("/health/ready"), await client.get("/health/redis")

    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["checks"]["redis"]["status"] == "degraded"
    assert (redis.status_code, redis.json()["status"]) == (503, "down")


@pytest.mark.parametrize(
    ("status", "error"), [("behind", None), ("up", ConnectionRefusedError())], ids=["late", "mute"]
)
async def test_a_trail_that_lags_is_told_and_serves_on(
    edge: Edge, client: httpx.AsyncClient, status: Status, error: Exception | None
) -> None:
    edge.audit.status, edge.audit.error = status, error

    ready = await client.get("/health/ready")

    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["checks"]["audit"]["status"] == "behind"


async def test_a_stopping_process_is_not_ready(edge: Edge, client: httpx.AsyncClient) -> None:
    edge.traffic.drain()

    answer = await client.get("/health/ready")

    assert (answer.status_code, answer.json()["status"]) == (503, "draining")


async def test_a_server_that_hangs_is_down_within_a_second(
    edge: Edge, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_SECONDS", 0.05)
    edge.redis.delay_seconds = 60

    answer = await client.get("/health/redis")

    assert answer.json()["status"] == "down"
    assert answer.json()["latency_ms"] >= 50


async def test_versions_are_listed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/version")

    assert answer.json() == {"version": "1.2.3", "api_versions": ["v1"]}


async def test_gauges_are_read_at_each_scrape(edge: Edge) -> None:
    async def backlog() -> dict[str, float]:
        return {"outbox_rows": 3.0}

    async def broken() -> dict[str, float]:
        raise ConnectionRefusedError

    edge.metrics.read_at_scrape("audit", backlog)
    edge.metrics.read_at_scrape("other", broken)

    text = (await edge.metrics.render()).decode()

    assert "maas_audit_outbox_rows 3.0" in text
    assert "maas_other" not in text
