"""A short fuzz of the whole document as every role in turn, by the same seed each time.

`make fuzz` is the long one, on real processes. Here the application runs in the test's process, on
a socket, with real PostgreSQL and Valkey.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import uvicorn

from maas.shared.infrastructure.settings import load_settings
from tests.acceptance.platforms import free_port
from tests.conftest import TEST_SECRET, clone, drop, settings_for
from tests.e2e.routes.world import World, opened_world
from tests.fuzz.people import ROLES
from tests.fuzz.stage import UPSTREAM_KEY, LocalWorld, make_keeper, make_seeds
from tests.fuzz.turn import Order, take_turn
from tests.servers import Servers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SEED: Final = 20_261_122
REQUESTS: Final = 1_500

OWN_REDIS: Final = 56
"""From this number on, the Redis databases are those of fuzzes, one a worker."""

CountUp = Callable[[str, object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fuzzed:
    world: World
    url: str


@pytest.fixture
async def fuzzed(servers: Servers, worker_number: int, tmp_path: Path) -> AsyncIterator[Fuzzed]:
    name = f"maas_fuzz_{worker_number}"
    await clone(servers, name)
    base: dict[str, Any] = settings_for(
        servers, name, number=OWN_REDIS + worker_number, data_dir=tmp_path
    )
    base["auth"] |= {"registration": "open", "login_throttle": False}
    connection, port = await servers.connect(name), free_port()
    # What is made up is not asked for: no other port may be called.
    base["outgoing"] = {"allowed_ports": str(port)}
    opened = opened_world(load_settings(**base), connection, supplier_port=port, kind=LocalWorld)
    async with opened as world:
        config = uvicorn.Config(_app(world), log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started:  # noqa: ASYNC110  uvicorn sets no event
                await asyncio.sleep(0.01)
            yield Fuzzed(world=world, url=f"http://127.0.0.1:{listening.getsockname()[1]}")
            server.should_exit = True
            await serving
    await connection.close()
    await drop(servers, name)


def _app(world: World) -> Any:
    """Tell what the world's own client calls: the application, already started."""
    transport = world.client._transport
    assert isinstance(transport, httpx.ASGITransport)
    return transport.app


async def test_a_few_thousand_requests_as_every_role_keep_every_promise(
    fuzzed: Fuzzed, record_property: CountUp
) -> None:
    world = fuzzed.world
    seeds, keeper = await make_seeds(world), await make_keeper(world.platform)
    loop = asyncio.get_running_loop()

    def make_admin() -> tuple[str, str]:
        return asyncio.run_coroutine_threadsafe(make_keeper(world.platform), loop).result()

    order = Order(
        url=fuzzed.url,
        roles=ROLES,
        requests=REQUESTS,
        seed=SEED,
        document=world.document,
        seeds=seeds,
        keeper=keeper,
        secrets=(UPSTREAM_KEY, TEST_SECRET),
    )
    tally = await asyncio.to_thread(take_turn, order, make_admin, lambda _: None)

    record_property("requests", tally.total)
    assert [(fault.kind, fault.message, fault.curl) for fault in tally.faults.values()] == []
    assert list(tally.errors) == []
    assert tally.total >= REQUESTS
    assert set(tally.requests) == set(ROLES)
    assert all(status < 500 for status in tally.statuses)
