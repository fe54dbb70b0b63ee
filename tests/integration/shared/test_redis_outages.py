"""What the gate makes of a server that is really gone, back, or another one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis

from maas.shared.infrastructure.redis import RedisGate, RedisUnavailableError, Script
from maas.user.infrastructure.sessions import SETTLING_SECONDS
from tests.conftest import MakeSettings
from tests.fault_proxy import FaultProxy, Faults
from tests.pair import OwnValkey
from tests.servers import Servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

ECHO = Script("return ARGV[1]")


@pytest.fixture
def link(servers: Servers) -> Iterator[FaultProxy]:
    with FaultProxy(Path(servers.valkey_socket)) as link:
        yield link


@pytest.fixture
def own_valkey() -> Iterator[OwnValkey]:
    with TemporaryDirectory(prefix="maas-gate-") as folder:
        valkey = OwnValkey(Path(folder))
        valkey.start()
        yield valkey
        valkey.kill()


@asynccontextmanager
async def opened(make_settings: MakeSettings, url: str) -> AsyncIterator[RedisGate]:
    gate = RedisGate(make_settings(redis={"url": url}).redis)
    yield gate
    await gate.close()


def url_over(link: FaultProxy, servers: Servers) -> str:
    return f"redis://:{servers.valkey_password}@127.0.0.1:{link.port}/0"


async def echo(gate: RedisGate) -> bytes:
    answer: bytes = await gate.evaluate(ECHO, keys=[], args=["hello"])
    return answer


def reopen(gate: RedisGate) -> None:
    """Have the gate try again at once, rather than after a second."""
    gate._shut_until = 0.0


async def ping(client: Redis) -> Any:
    return await client.ping()


async def say_hello(gate: RedisGate) -> Any:
    return await echo(gate)


async def say_ping(gate: RedisGate) -> Any:
    return await gate.call(ping)


@pytest.mark.parametrize("ask", [say_hello, say_ping])
def test_whatever_a_lost_connection_raises_means_unavailable(
    link: FaultProxy,
    servers: Servers,
    make_settings: MakeSettings,
    ask: Callable[[RedisGate], Awaitable[Any]],
) -> None:
    async def lose_many() -> None:
        async with opened(make_settings, url_over(link, servers)) as gate:
            await ask(gate)
            link.become(Faults(accepting="reset"))
            link.reset()
            for _ in range(200):
                reopen(gate)
                with pytest.raises(RedisUnavailableError):
                    await ask(gate)
            link.heal()
            reopen(gate)
            await ask(gate)

    # The loop of production: its writers raise something else than asyncio's.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(lose_many())


async def test_a_lost_connection_leaves_the_next_ones_sound(
    link: FaultProxy, servers: Servers, make_settings: MakeSettings
) -> None:
    async with opened(make_settings, url_over(link, servers)) as gate:
        await asyncio.gather(*(echo(gate) for _ in range(5)))
        link.reset()
        with pytest.raises(RedisUnavailableError):
            await echo(gate)
        with pytest.raises(RedisUnavailableError):
            await echo(gate)

        reopen(gate)

        assert await echo(gate) == b"hello"


class TestServerAge:
    async def test_is_nothing_before_any_server_was_met(self, make_settings: MakeSettings) -> None:
        async with opened(make_settings, "redis://127.0.0.1:1/0") as gate:
            assert gate.server_age_seconds < 0

    async def test_follows_the_server_and_never_runs_ahead_of_it(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        loop = asyncio.get_running_loop()
        started_by = loop.time()
        async with opened(make_settings, own_valkey.url) as gate:
            await echo(gate)
            await asyncio.sleep(1.2)
            early = gate.server_age_seconds, loop.time() - started_by
        async with opened(make_settings, own_valkey.url) as gate:
            await echo(gate)
            late = gate.server_age_seconds, loop.time() - started_by

        # It was started a moment before the clock of this test was.
        assert 0 < early[0] <= early[1] + 1
        assert late[0] <= late[1] + 1

    async def test_begins_anew_with_a_restart(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        async with opened(make_settings, own_valkey.url) as gate:
            await echo(gate)
            gate._same_since -= 3600
            before = gate.server_age_seconds
            own_valkey.kill()
            own_valkey.start()
            with pytest.raises(RedisUnavailableError):
                await echo(gate)
            reopen(gate)
            await echo(gate)

            assert before > 3600
            assert gate.server_age_seconds < SETTLING_SECONDS

    async def test_goes_on_over_more_connections_to_the_same_server(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        async with opened(make_settings, own_valkey.url) as gate:
            await echo(gate)
            gate._same_since -= 3600
            await asyncio.gather(*(echo(gate) for _ in range(8)))

            assert gate.server_age_seconds > 3600

    async def test_is_that_of_the_connection_where_the_server_may_not_tell(
        self, own_valkey: OwnValkey, make_settings: MakeSettings
    ) -> None:
        client = Redis.from_url(own_valkey.url)
        await client.execute_command(  # type: ignore[no-untyped-call]  # the library's own
            "ACL", "SETUSER", "mute", "on", ">mute", "~*", "+@all", "-info"
        )
        await client.aclose()
        url = own_valkey.url.replace(f"//:{own_valkey.password}", "//mute:mute")
        async with opened(make_settings, url) as gate:
            assert await echo(gate) == b"hello"
            assert 0 <= gate.server_age_seconds < SETTLING_SECONDS
