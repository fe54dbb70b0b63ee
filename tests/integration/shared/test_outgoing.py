"""The guarded client against real sockets on loopback, and the tricks servers and names play."""

import asyncio
import gzip
import itertools
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override

from maas.shared.infrastructure.outgoing import (
    GuardedResolver,
    OutgoingAnswer,
    OutgoingClient,
    OutgoingLimits,
    _believing,
)
from maas.shared.infrastructure.outgoing_faults import OutgoingError
from maas.shared.infrastructure.outgoing_names import OwnThreadsResolver
from maas.shared.infrastructure.outgoing_targets import RefusedTargetError, Targets
from maas.shared.infrastructure.settings import OutgoingSettings
from tests.smtp_server import Certificate
from tests.upstream.certificates import Authority, Variant
from tests.upstream.desk import Desk
from tests.upstream.scripts import Script
from tests.upstream.server import Upstream
from tests.upstream.server import serving as upstream

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LIMITS = OutgoingLimits(total=timedelta(seconds=30), max_bytes=100_000)
HURRIED = OutgoingLimits(
    connect=timedelta(milliseconds=200),
    first_byte=timedelta(milliseconds=200),
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

    async def test_passwords_of_the_environment_are_not_sent(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        seen: list[str | None] = []

        async def note(request: web.Request) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return web.Response()

        async with serving(note) as port, calling(port) as client:
            await client.send("GET", f"http://127.0.0.1:{port}/", limits=LIMITS)

        assert seen == [None]

    @pytest.mark.parametrize("name", ["Host", "hOST", "Content-Length", "Transfer-Encoding"])
    async def test_headers_that_are_the_clients_own_are_not_the_callers(self, name: str) -> None:
        async with serving(greet) as port, calling(port) as client:
            call = client.send(
                "GET", f"http://127.0.0.1:{port}/", limits=LIMITS, headers={name: "inner.test"}
            )

            assert await fault_of(call) == "protocol"

    @pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nX-Other: b", "a\0b"])
    async def test_a_header_stays_one_header(self, value: str) -> None:
        seen: list[list[str]] = []

        async def note(request: web.Request) -> web.Response:
            seen.append(list(request.headers))
            return web.Response()

        async with serving(note) as port, calling(port) as client:
            call = client.send(
                "GET", f"http://127.0.0.1:{port}/", limits=LIMITS, headers={"X-One": value}
            )

            assert await fault_of(call) == "protocol"

        assert seen == []


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

    async def test_a_head_that_drips_is_given_up(self) -> None:
        drops = itertools.chain(b"HTTP/1.1 200 OK\r\n", itertools.cycle(b"x-more: 1\r\n"))

        has_ended = asyncio.Event()

        async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                for drop in drops:
                    writer.write(bytes([drop]))
                    await writer.drain()
                    await asyncio.sleep(0.02)
            writer.close()
            has_ended.set()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        async with server:
            port = int(server.sockets[0].getsockname()[1])
            async with calling(port) as client:
                call = client.send("GET", f"http://127.0.0.1:{port}/", limits=HURRIED)

                assert await fault_of(call) == "timeout"
            await has_ended.wait()

    async def test_who_thinks_for_long_may_be_quick_to_speak(self) -> None:
        """The first byte has a patience of its own, longer than that between two pieces."""
        desk = Desk()
        desk.scripts.put("slow", Script(head_delay=0.4))
        patient = OutgoingLimits(idle=timedelta(seconds=0.2), max_bytes=100_000)
        async with upstream(Upstream(desk)) as port, calling(port) as client:
            url = f"http://127.0.0.1:{port}/as/slow/v1/models"
            answer = await client.send("GET", url, limits=patient)

        assert answer.status == 200

    @pytest.mark.parametrize("first_byte", [0.1, 0.2, 60])
    async def test_who_stalls_in_the_middle_is_given_up(self, first_byte: float) -> None:
        limits = OutgoingLimits(
            first_byte=timedelta(seconds=first_byte),
            idle=timedelta(seconds=0.2),
            max_bytes=100_000,
        )
        async with upstream(Upstream()) as port, calling(port) as client:
            url = f"http://127.0.0.1:{port}/as/stalls/v1/models"

            assert await fault_of(client.send("GET", url, limits=limits)) == "timeout"

    @pytest.mark.parametrize(
        ("name", "faults"),
        [
            ("hangs-up", {"protocol"}),
            ("resets", {"protocol", "connect"}),
            ("breaks-off", {"protocol"}),
            ("breaks-off-by-reset", {"protocol", "connect"}),
            ("speaks-no-http", {"protocol"}),
            ("says-too-much", {"too-large"}),
        ],
    )
    async def test_what_an_upstream_can_do(self, name: str, faults: set[str]) -> None:
        async with upstream(Upstream()) as port, calling(port) as client:
            url = f"http://127.0.0.1:{port}/as/{name}/v1/models"

            assert await fault_of(client.send("GET", url, limits=LIMITS)) in faults

    async def test_a_redirect_inwards_is_shown_and_not_gone(self) -> None:
        async with upstream(Upstream()) as port, calling(port) as client:
            url = f"http://127.0.0.1:{port}/as/redirects-inwards/v1/models"
            answer = await client.send("GET", url, limits=LIMITS)

        assert answer.status == 307
        assert "169.254.169.254" in answer.headers["location"]

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


class TestCertificates:
    """A name leads to a server with each kind of certificate."""

    async def call(self, variant: Variant, folder: Path, *, knows: bool = True) -> OutgoingAnswer:
        authority, desk = Authority.make(), Desk()
        ca_file = authority.write(folder / "ca.pem") if knows else None
        async with upstream(Upstream(desk), tls=authority.context(variant)) as port:
            targets = Targets(private=frozenset({f"supplier.test:{port}"}))
            names = Names([["127.0.0.1"]])
            async with calling(targets=targets, resolver=names, ca_file=ca_file) as client:
                url = f"https://supplier.test:{port}/v1/models"
                try:
                    return await client.send("GET", url, limits=LIMITS)
                finally:
                    assert len(desk.ledger.calls) == (knows and variant == "good")

    async def test_of_the_companys_own_authority_are_believed(self, tmp_path: Path) -> None:
        assert (await self.call("good", tmp_path)).status == 200

    async def test_of_it_are_refused_where_it_is_not_known(self, tmp_path: Path) -> None:
        assert await fault_of(self.call("good", tmp_path, knows=False)) == "tls"

    @pytest.mark.parametrize(
        ("variant", "reason"),
        [
            ("unknown", "unable to get local issuer"),
            ("expired", "has expired"),
            ("wrong-host", "Hostname mismatch"),
        ],
    )
    async def test_of_others_are_refused_and_why(
        self, variant: Variant, reason: str, tmp_path: Path
    ) -> None:
        with pytest.raises(OutgoingError, match=reason) as raised:
            await self.call(variant, tmp_path)

        assert raised.value.fault == "tls"

    def test_the_systems_own_are_believed_beside_them(self, tmp_path: Path) -> None:
        ca_file = Authority.make().write(tmp_path / "ca.pem")

        believed = _believing(ca_file).cert_store_stats()["x509_ca"]

        assert believed == ssl.create_default_context().cert_store_stats()["x509_ca"] + 1

    @pytest.mark.parametrize("content", [None, "", "no certificate"])
    def test_a_file_that_holds_none_is_told_at_start(
        self, content: str | None, tmp_path: Path
    ) -> None:
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_text(content)

        with pytest.raises(ValueError, match="PEM"):
            OutgoingSettings(ca_file=path)


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

    @pytest.mark.parametrize("inside", ["10.0.0.5", "::ffff:10.0.0.5", "fd00:ec2::254"])
    async def test_one_that_was_public_at_first_is_refused_when_it_turns(self, inside: str) -> None:
        """What is rebound between two connections, as the check and the call might be."""
        names = Names([["1.1.1.1"], [inside], ["1.1.1.1", inside]])
        resolver = GuardedResolver(Targets(), names)

        assert [each["host"] for each in await resolver.resolve("a.test", 443)] == ["1.1.1.1"]
        for _ in range(2):
            with pytest.raises(RefusedTargetError):
                await resolver.resolve("a.test", 443)

    async def test_one_that_stands_for_another_inside_is_refused(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The system's resolver follows a CNAME: where it ends is what counts."""
        asked: list[str] = []

        def follow(host: str, port: int, **_: Any) -> Any:
            asked.append(host)
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            return [(*kind, "inner.corp.test", ("10.0.0.5", port))]

        monkeypatch.setattr(socket, "getaddrinfo", follow)
        async with calling(targets=Targets()) as client:
            call = client.send("GET", "https://models.test/v1", limits=LIMITS)

            assert await fault_of(call) == "refused-target"

        assert asked == ["models.test"]

    async def test_a_public_one_is_no_way_to_a_private_port(self) -> None:
        """The operator's list opens a name with its port, and neither without the other."""
        names = Names([["127.0.0.1"]])
        async with serving(greet) as port:
            targets = Targets(
                private=frozenset({f"inner.test:{port}"}), ports=frozenset({port, 443})
            )
            async with calling(targets=targets, resolver=names) as client:
                for url in (
                    f"https://other.test:{port}/",
                    "https://inner.test/",
                    f"https://inner.test.:{port}/",
                    f"https://x.inner.test:{port}/",
                ):
                    assert await fault_of(client.send("GET", url, limits=LIMITS)) == (
                        "refused-target"
                    )

        assert len(names.asked) == 4

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
