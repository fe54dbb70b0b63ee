"""The guarded client against real sockets on loopback, and the tricks servers and names play."""

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from maas.shared.infrastructure.outgoing import OutgoingClient, OutgoingError, OutgoingLimits
from maas.shared.infrastructure.outgoing_names import OwnThreadsResolver
from maas.shared.infrastructure.outgoing_targets import Targets
from tests.smtp_server import Certificate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LIMITS = OutgoingLimits(total=timedelta(seconds=30), max_bytes=100_000)
HURRIED = OutgoingLimits(
    connect=timedelta(milliseconds=200),
    idle=timedelta(milliseconds=200),
    total=timedelta(seconds=30),
    max_bytes=100_000,
)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw_server(said: bytes) -> AsyncIterator[int]:
    """Say something at once, whatever comes, and hang up."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def calling(*ports: int, **options: Any) -> AsyncIterator[OutgoingClient]:
    targets = Targets(private=frozenset(f"127.0.0.1:{port}" for port in ports))
    client = OutgoingClient(options.pop("targets", targets), **options)
    try:
        yield client
    finally:
        await client.close()


@dataclass
class Names(AbstractResolver):
    """Resolves to one list of addresses after the other, and then to the last for ever."""

    answers: list[list[str]]
    asked: list[str] = field(default_factory=list)

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not answer:
            raise OSError(None, "no such name")
        return [
            ResolveResult(
                hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0
            )
            for each in answer
        ]

    @override
    async def close(self) -> None: ...


async def fault_of(call: Awaitable[object]) -> str:
    with pytest.raises(OutgoingError) as raised:
        await call
    assert raised.value.message.endswith((".", "?"))
    return raised.value.fault


async def greet(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.method} {await request.text()}")


class TestAnswers:
    async def test_what_is_sent_arrives(self) -> None:
        async with serving(greet) as port, calling(port) as client:
            answer = await client.send(
                "POST", f"http://127.0.0.1:{port}/x?y=1", limits=LIMITS, body=b"hello"
            )

        assert (answer.status, answer.body) == (200, b"POST hello")
        assert answer.took > timedelta(0)

    async def test_a_redirect_is_an_answer_and_not_followed(self) -> None:
        seen: list[str] = []

        async def redirect(request: web.Request) -> web.Response:
            seen.append(request.path)
            return web.Response(status=302, headers={"Location": "/inner"})

        async with serving(redirect) as port, calling(port) as client:
            answer = await client.send("GET", f"http://127.0.0.1:{port}/a", limits=LIMITS)

        assert answer.status == 302
        assert seen == ["/a"]

    async def test_a_huge_answer_is_cut_off(self) -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b"x" * 64 * 1024)

        async with serving(endless) as port, calling(port) as client:
            fault = await fault_of(client.send("GET", f"http://127.0.0.1:{port}/", limits=LIMITS))

        assert fault == "too-large"

    async def test_a_bomb_stays_packed(self) -> None:
        async def bomb(request: web.Request) -> web.Response:
            assert request.headers["Accept-Encoding"] == "identity"
            packed = gzip.compress(bytes(50_000_000))
            return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

        async with serving(bomb) as port, calling(port) as client:
            answer = await client.send("GET", f"http://127.0.0.1:{port}/", limits=LIMITS)

        assert answer.body.startswith(b"\x1f\x8b")
        assert len(answer.body) < 60_000

    async def test_the_head_alone_can_be_had(self) -> None:
        go_on = asyncio.Event()

        async def slow(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(status=202)
            await response.prepare(request)
            await go_on.wait()
            return response

        async with serving(slow) as port, calling(port) as client:
            url = f"http://127.0.0.1:{port}/"
            async with client.open("GET", url, limits=LIMITS) as response:
                assert response.status == 202
            go_on.set()

    async def test_cookies_are_not_kept(self) -> None:
        seen: list[str | None] = []

        async def bake(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Cookie"))
            return web.Response(headers={"Set-Cookie": "a=b"})

        async with serving(bake) as port, calling(port) as client:
            for _ in range(2):
                await client.send("GET", f"http://127.0.0.1:{port}/", limits=LIMITS)

        assert seen == [None, None]

    async def test_proxies_of_the_environment_are_not_used(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1/")
        async with serving(greet) as port, calling(port) as client:
            answer = await client.send("GET", f"http://127.0.0.1:{port}/", limits=LIMITS)

        assert answer.status == 200


class TestFaults:
    async def test_nobody_listens(self) -> None:
        async with serving(greet) as port:
            pass
        async with calling(port) as client:
            call = client.send("GET", f"http://127.0.0.1:{port}/", limits=LIMITS)

            assert await fault_of(call) == "connect"

    async def test_nobody_answers(self) -> None:
        never = asyncio.Event()

        async def hold(_: web.Request) -> web.Response:
            await never.wait()
            return web.Response()

        async with serving(hold) as port, calling(port) as client:
            call = client.send("GET", f"http://127.0.0.1:{port}/", limits=HURRIED)

            assert await fault_of(call) == "timeout"
            never.set()

    async def test_the_body_never_ends(self) -> None:
        never = asyncio.Event()

        async def drip(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x")
            await never.wait()
            return response

        async with serving(drip) as port, calling(port) as client:
            call = client.send("GET", f"http://127.0.0.1:{port}/", limits=HURRIED)

            assert await fault_of(call) == "timeout"
            never.set()

    @pytest.mark.parametrize(
        "said",
        [
            b"",
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ],
    )
    async def test_what_is_no_http(self, said: bytes) -> None:
        async with raw_server(said) as port, calling(port) as client:
            call = client.send("GET", f"http://127.0.0.1:{port}/", limits=LIMITS)

            assert await fault_of(call) in {"protocol", "connect"}

    async def test_a_certificate_nobody_vouches_for(self, tmp_path: Path) -> None:
        context = Certificate.make(tmp_path).context()
        async with serving(greet, tls=context) as port, calling(port) as client:
            call = client.send("GET", f"https://127.0.0.1:{port}/", limits=LIMITS)

            assert await fault_of(call) == "tls"

    async def test_tls_to_who_does_not_speak_it(self) -> None:
        async with serving(greet) as port, calling(port) as client:
            call = client.send("GET", f"https://127.0.0.1:{port}/", limits=LIMITS)

            assert await fault_of(call) in {"tls", "connect", "protocol"}


class TestNames:
    """The server listens where the name leads: what is refused did not reach it."""

    async def call(self, names: Names, *, calls: int = 1) -> tuple[list[str], int]:
        reached = 0

        async def count(_: web.Request) -> web.Response:
            nonlocal reached
            reached += 1
            return web.Response()

        async with serving(count) as port:
            targets = Targets(ports=frozenset({port}))
            async with calling(targets=targets, resolver=names) as client:
                faults = [
                    await fault_of(
                        client.send("GET", f"https://example.com:{port}/", limits=HURRIED)
                    )
                    for _ in range(calls)
                ]
        return faults, reached

    async def test_one_that_leads_inwards_is_refused(self) -> None:
        assert await self.call(Names([["127.0.0.1"]])) == (["refused-target"], 0)

    async def test_one_bad_address_among_good_ones_is_enough(self) -> None:
        assert await self.call(Names([["192.0.2.1", "127.0.0.1"]])) == (["refused-target"], 0)
        assert await self.call(Names([["1.1.1.1", "127.0.0.1"]])) == (["refused-target"], 0)

    async def test_one_that_turns_inwards_later_is_refused_then(self) -> None:
        names = Names([["127.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.1"]])

        faults, reached = await self.call(names, calls=3)

        assert (faults, reached) == (["refused-target"] * 3, 0)
        assert names.asked == ["example.com"] * 3

    async def test_one_that_is_not_there_is_told(self) -> None:
        assert await self.call(Names([[]])) == (["dns"], 0)

    async def test_a_name_server_that_does_not_answer_blocks_nothing_else(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answering, slots, ask = threading.Event(), threading.BoundedSemaphore(2), socket.getaddrinfo

        def hang(host: str, *args: Any, **options: Any) -> Any:
            if host.endswith(".test"):
                answering.wait(50)
                raise socket.gaierror
            return ask(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        resolver = OwnThreadsResolver(slots)
        async with calling(targets=Targets(), resolver=resolver) as client:

            async def call(name: str, limits: OutgoingLimits = LIMITS) -> str:
                return await fault_of(client.send("GET", f"https://{name}.test/", limits=limits))

            assert [await call(name, HURRIED) for name in "ab"] == ["timeout"] * 2
            # Nobody waits for those two any more, and they still hang.
            assert await call("c") == "busy"
            assert await asyncio.to_thread(int) == 0

            answering.set()
            for _ in range(2):
                assert await asyncio.to_thread(slots.acquire, timeout=30)
            slots.release()
            assert await call("d") == "dns"

    async def test_localhost_is_no_way_in(self) -> None:
        """Some resolvers do not know it, or not in each spelling."""
        async with serving(greet) as port:
            targets = Targets(ports=frozenset({port}))
            async with calling(targets=targets) as client:
                for host in ("localhost", "localhost.", "LOCALHOST"):
                    call = client.send("GET", f"https://{host}:{port}/", limits=LIMITS)
                    assert await fault_of(call) in {"refused-target", "dns"}

    async def test_the_address_that_was_checked_is_the_one_that_is_called(self) -> None:
        """A name is asked for once a connection: there is no second look to be fooled by."""
        names = Names([["127.0.0.1"], ["192.0.2.1"]])
        async with serving(greet) as port:
            targets = Targets(private=frozenset({f"inner.test:{port}"}))
            async with calling(targets=targets, resolver=names) as client:
                answer = await client.send("GET", f"http://inner.test:{port}/", limits=LIMITS)

        assert answer.status == 200
        assert names.asked == ["inner.test"]
