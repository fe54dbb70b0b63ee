"""Calls to addresses that somebody else chose: guarded against being turned inwards.

A URL names https, a port of the list and a public address. A literal address is checked as it
stands; a name is resolved once, every address it has is checked, and one of those is connected to.
Only targets of the operator's list, each an exact `host:port`, may lie anywhere and speak http.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter, ResolveResult
from typing_extensions import override
from yarl import URL

from maas.shared.infrastructure.outgoing_faults import OutgoingError, explained
from maas.shared.infrastructure.outgoing_names import OwnThreadsResolver
from maas.shared.infrastructure.outgoing_targets import Targets

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE", "HEAD"]
Payload: TypeAlias = bytes | BytesIO | aiohttp.Payload

CHUNK_BYTES: Final = 16 * 1024
LONG_BODY_BYTES: Final = 256 * 1024
MAX_CONNECTIONS: Final = 100
MAX_CONNECTIONS_A_HOST: Final = 20
MAX_CHECKED: Final = 1_000

_OWN_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "host",
        "proxy-authorization",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingLimits:
    """How long each phase may take, and how much may come; `total` covers the body as well.

    `first_byte` is from the connection until the whole head is there, `idle` between two pieces of
    the body.
    """

    connect: timedelta = timedelta(seconds=5)
    first_byte: timedelta = timedelta(seconds=60)
    idle: timedelta = timedelta(seconds=60)
    total: timedelta | None = None
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingAnswer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    took: timedelta


class OutgoingResponse:
    """An answer whose head is there; its body comes as it is read, up to the limit.

    Bytes are as they were sent: nothing is decompressed, and nothing compressed was asked for.
    """

    def __init__(self, response: aiohttp.ClientResponse, limits: OutgoingLimits) -> None:
        self._response = response
        self._limits = limits
        # A clock of its own costs each piece more than all else here: aiohttp's will do if it is
        # set to the same time, and not to that of a slow first byte.
        self._idle = limits.idle.total_seconds() if limits.idle < limits.first_byte else None

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Read on.

        Raises:
            OutgoingError: it is larger than the limit, too slow, or breaks off.
        """
        read, most = 0, self._limits.max_bytes
        while chunk := await self._read_on():
            read += len(chunk)
            if read > most:
                raise OutgoingError("too-large", f"The answer is longer than {most} bytes.")
            yield chunk

    async def _read_on(self) -> bytes:
        with explained:
            if self._idle is None:
                return await self._response.content.read(CHUNK_BYTES)
            async with asyncio.timeout(self._idle):
                return await self._response.content.read(CHUNK_BYTES)


class OutgoingClient:
    """One session for all calls of a process, opened when first needed: `close()` it.

    Cookies are not kept, the environment's proxies and passwords not used, and redirects not
    followed: what a redirect names has not been checked.
    """

    def __init__(
        self,
        targets: Targets,
        *,
        ca_file: Path | None = None,
        resolver: AbstractResolver | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_connections_a_host: int = MAX_CONNECTIONS_A_HOST,
    ) -> None:
        """Prepare; certificates of `ca_file` are believed beside those the system believes."""
        self._targets = targets
        self._tls = True if ca_file is None else _believing(ca_file)
        self._resolver = resolver
        self._max_connections = max_connections
        self._max_connections_a_host = max_connections_a_host
        self._session: aiohttp.ClientSession | None = None
        self._checked: dict[str, URL] = {}

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def open(
        self,
        method: Method,
        url: str,
        *,
        limits: OutgoingLimits,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> AbstractAsyncContextManager[OutgoingResponse]:
        """Send a request, and give the answer as soon as its head is there.

        `on_sent` is called when there is a connection, and the body begins to be written to it.

        Raises:
            OutgoingError: the target is refused, or there is no answer.
        """
        asking = self._ask(method, url, limits, headers or {}, _payload(body, on_sent))
        return _Opening(asking, limits)

    async def _ask(
        self,
        method: Method,
        url: str,
        limits: OutgoingLimits,
        headers: Mapping[str, str],
        payload: Payload | None,
    ) -> aiohttp.ClientResponse:
        with explained:
            target = self._check(url)
            _check_headers(headers)
            # aiohttp's own clock starts anew with each byte, so a head could drip for ever.
            async with asyncio.timeout((limits.connect + limits.first_byte).total_seconds()):
                return await self._get_session().request(
                    method,
                    target,
                    data=payload,
                    headers={**headers, "Accept-Encoding": "identity"},
                    allow_redirects=False,
                    timeout=_timeout(limits),
                )

    def _check(self, url: str) -> URL:
        """Read a URL that may be called; what it says so of is always the same."""
        checked = self._checked.get(url)
        if checked is None:
            checked = self._targets.check(url)
            if len(self._checked) >= MAX_CHECKED:
                self._checked.clear()
            self._checked[url] = checked
        return checked

    async def send(
        self,
        method: Method,
        url: str,
        *,
        limits: OutgoingLimits,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> OutgoingAnswer:
        """Send a request and read the whole answer.

        Raises:
            OutgoingError: the target is refused, there is no answer, or it is too large.
        """
        begun = time.monotonic()
        async with self.open(method, url, limits=limits, headers=headers, body=body) as response:
            parts = [chunk async for chunk in response.chunks()]
        return OutgoingAnswer(
            status=response.status,
            headers=response.headers,
            body=b"".join(parts),
            took=timedelta(seconds=time.monotonic() - begun),
        )

    def _get_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=GuardedResolver(self._targets, self._resolver or OwnThreadsResolver()),
                ssl=self._tls,
                # An address is good for the connection it was checked for.
                use_dns_cache=False,
                limit=self._max_connections,
                limit_per_host=self._max_connections_a_host,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "maas"},
            )
        return self._session


class _Opening(AbstractAsyncContextManager[OutgoingResponse]):
    """A call from when it is sent until its answer is done with; a generator costs six times it."""

    __slots__ = ("_asking", "_limits", "_response")

    _response: aiohttp.ClientResponse

    def __init__(
        self, asking: Coroutine[Any, Any, aiohttp.ClientResponse], limits: OutgoingLimits
    ) -> None:
        self._asking = asking
        self._limits = limits

    @override
    async def __aenter__(self) -> OutgoingResponse:
        self._response = await self._asking
        return OutgoingResponse(self._response, self._limits)

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was not read is not waited for.
        self._response.close()


class GuardedResolver(AbstractResolver):
    """Resolves a name to addresses that may be connected to, or to none."""

    def __init__(self, targets: Targets, resolver: AbstractResolver) -> None:
        self._targets = targets
        self._resolver = resolver

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve a name.

        Raises:
            RefusedTargetError: one of its addresses is not public.
        """
        found = await self._resolver.resolve(host, port, family=family)
        self._targets.check_addresses(host, port, [each["host"] for each in found])
        return found

    @override
    async def close(self) -> None:
        await self._resolver.close()


def _believing(ca_file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(ca_file)
    return context


class _TellingBytes(aiohttp.BytesPayload):
    def __init__(self, body: bytes, on_sent: Callable[[], None]) -> None:
        super().__init__(body)
        self._on_sent = on_sent

    @override
    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self._on_sent()
        await super().write_with_length(writer, content_length)


class _TellingPieces(aiohttp.BytesIOPayload):
    def __init__(self, body: bytes, on_sent: Callable[[], None]) -> None:
        super().__init__(BytesIO(body))
        self._on_sent = on_sent

    @override
    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self._on_sent()
        await super().write_with_length(writer, content_length)


def _payload(body: bytes | None, on_sent: Callable[[], None] | None) -> Payload | None:
    """Have a long body sent piece by piece: the event loop has others to serve in between."""
    if body is None:
        return None
    is_long = len(body) > LONG_BODY_BYTES
    if on_sent is None:
        return BytesIO(body) if is_long else body
    return _TellingPieces(body, on_sent) if is_long else _TellingBytes(body, on_sent)


def _check_headers(headers: Mapping[str, str]) -> None:
    """Refuse those that would say another host or another length than is connected to and sent.

    Raises:
        ValueError: one of them is the client's own.
    """
    for name in headers:
        if name.lower() in _OWN_HEADERS:
            message = f"The client sets {name} itself."
            raise ValueError(message)


def _timeout(limits: OutgoingLimits) -> aiohttp.ClientTimeout:
    connect = limits.connect.total_seconds()
    return aiohttp.ClientTimeout(
        total=None if limits.total is None else limits.total.total_seconds(),
        connect=connect,
        sock_connect=connect,
        sock_read=max(limits.first_byte, limits.idle).total_seconds(),
    )
