"""The proxy fails as it is told: a chaos run through one that does not shows nothing."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.fault_proxy import FaultProxy, Faults, cut_after

pytestmark = pytest.mark.integration

SOON = 0.3
"""Seconds after which what has not come is held not to come."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[str, int]]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()


@pytest.fixture
def proxy(upstream: tuple[str, int]) -> Iterator[FaultProxy]:
    with FaultProxy(upstream) as proxy:
        yield proxy


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, text: bytes) -> bytes:
        self.writer.write(text)
        return await self.reader.readexactly(len(text))


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


async def test_it_passes_everything_on_both_ways(proxy: FaultProxy) -> None:
    async with connected(proxy) as one, connected(proxy) as other:
        big = bytes(range(256)) * 4096

        assert await one.ask(b"hello") == b"hello"
        assert await other.ask(big) == big
        assert proxy.accepted == 2


async def test_it_leads_to_a_unix_socket_too() -> None:
    with TemporaryDirectory() as folder:
        server = await asyncio.start_unix_server(echo, Path(folder) / "s")
        with FaultProxy(Path(folder) / "s") as proxy:
            async with connected(proxy) as client:
                assert await client.ask(b"hello") == b"hello"
                proxy.reset()
                with pytest.raises(ConnectionResetError):
                    await client.ask(b"hello")
        server.close()


def test_who_was_accepted_a_moment_ago_is_let_go_when_it_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        for _ in range(20):
            with FaultProxy(upstream.getsockname()) as proxy:
                clients = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(5)]

            for client in clients:
                with client, suppress(ConnectionResetError):
                    # An open connection would keep this waiting until the test's time is up.
                    assert client.recv(1) == b""


async def test_who_leaves_as_it_closes_is_let_go_on_both_sides(upstream: tuple[str, int]) -> None:
    for turns in range(100):
        with FaultProxy(upstream) as proxy:
            clients = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(3)]
            for reader, writer in clients:
                writer.write(b"x")
                await reader.readexactly(1)
                writer.close()
            # As many turns of this loop as it takes to meet the proxy in each of its waits.
            for _ in range(turns % 20):
                await asyncio.sleep(0)

    # What was left open complains when it is collected, and that fails the test.
    gc.collect()


async def test_latency_is_added_each_way(proxy: FaultProxy) -> None:
    loop = asyncio.get_running_loop()
    async with connected(proxy) as client:
        proxy.become(Faults(latency_seconds=0.1, jitter_seconds=0.02))
        began = loop.time()
        await client.ask(b"hello")
        slow = loop.time() - began
        proxy.become(Faults(latency_seconds=0.1, toward="client"))
        began = loop.time()
        await client.ask(b"hello")
        one_way = loop.time() - began

    assert slow >= 0.16
    assert one_way >= 0.1


async def test_a_blackhole_takes_all_and_answers_nothing(proxy: FaultProxy) -> None:
    async with connected(proxy) as before:
        await before.ask(b"hello")
        proxy.blackhole()
        async with connected(proxy) as during:
            for client in (before, during):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.ask(b"hello"), SOON)

            proxy.heal()

            for client in (before, during):
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await client.ask(b"hello")
        async with connected(proxy) as after:
            assert await after.ask(b"hello") == b"hello"


async def test_an_answer_alone_can_be_lost(upstream: tuple[str, int]) -> None:
    heard = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        heard.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    with FaultProxy(server.sockets[0].getsockname()) as proxy:
        proxy.become(Faults(swallow=True, toward="client"))
        async with connected(proxy) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.ask(b"hello"), SOON)

            assert heard.is_set()
    server.close()


async def test_what_was_stalled_comes_late_and_whole(proxy: FaultProxy) -> None:
    async with connected(proxy) as client:
        proxy.become(Faults(stall=True))
        late = asyncio.create_task(client.ask(b"hello"))
        done, _ = await asyncio.wait([late], timeout=SOON)
        proxy.heal()

        assert not done
        assert await late == b"hello"


async def test_what_is_refused_or_reset_is_so_at_once_and_can_come_back(proxy: FaultProxy) -> None:
    async with connected(proxy) as client:
        await client.ask(b"hello")
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            await client.ask(b"hello")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)

    proxy.become(Faults(accepting="reset"))
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        async with connected(proxy) as client:
            await client.ask(b"hello")

    proxy.heal()
    async with connected(proxy) as client:
        assert await client.ask(b"hello") == b"hello"


async def test_bytes_come_in_slices(upstream: tuple[str, int]) -> None:
    pieces: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            pieces.append(piece)
            writer.write(piece)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    with FaultProxy(server.sockets[0].getsockname()) as proxy:
        proxy.become(Faults(slice_bytes=1, toward="server"))
        async with connected(proxy) as client:
            assert await client.ask(b"hello" * 100) == b"hello" * 100
    server.close()

    assert len(pieces) > 1


@pytest.mark.parametrize("count", [0, 3])
async def test_it_is_cut_after_so_many_bytes(proxy: FaultProxy, count: int) -> None:
    proxy.become(cut_after(count, toward="client"))
    async with connected(proxy) as client:
        client.writer.write(b"hello")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await client.reader.readexactly(count + 1)


async def test_half_closed_it_still_takes_what_is_sent() -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            heard.put_nowait(data)
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    with FaultProxy(server.sockets[0].getsockname()) as proxy:
        async with connected(proxy) as client:
            client.writer.write(b"one")
            first = await heard.get()

            proxy.half_close()

            ended = await client.reader.read()
            client.writer.write(b"two")
            second = await asyncio.wait_for(heard.get(), 2)
    server.close()

    assert (first, ended, second) == (b"one", b"", b"two")


async def test_a_busy_test_does_not_stall_it(proxy: FaultProxy) -> None:
    loop = asyncio.get_running_loop()

    def ask_from_a_thread() -> bytes:
        async def ask() -> bytes:
            async with connected(proxy) as client:
                return await client.ask(b"hello")

        return asyncio.run(ask())

    async with connected(proxy) as client:
        await client.ask(b"hello")
    # The upstream answers on this loop, so only the proxy's own acceptance is asked for here.
    accepted = proxy.accepted
    asking = loop.run_in_executor(None, ask_from_a_thread)
    while proxy.accepted == accepted:
        pass
    assert await asking == b"hello"
