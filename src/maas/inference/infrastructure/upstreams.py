"""Calls to what answers: suppliers through the guarded clients, our own runtime host through one.

The `Upstreams` port. Each reach has a client of its own, so that no address a tenant wrote leads to
the operator's targets, and none of a supplier to the runtime.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from types import TracebackType
from typing import Final

import aiohttp
from typing_extensions import override

from maas.inference.application.ports import UpstreamError, UpstreamFault, UpstreamResponse
from maas.inference.domain.route import Endpoint, TargetLimits
from maas.inference.public import CallKind
from maas.shared.infrastructure.outgoing import (
    OutgoingClient,
    OutgoingLimits,
    OutgoingResponse,
)
from maas.shared.infrastructure.outgoing_clients import ClientsByReach
from maas.shared.infrastructure.outgoing_faults import OutgoingError

MAX_ANSWER_BYTES: Final = 128 * 1024 * 1024
"""Of one answer, streamed or plain; of plain ones their reader takes less."""

_BEFORE_SENDING: Final = frozenset[UpstreamFault](
    {"refused-target", "busy", "dns", "connect", "connect-timeout"}
)


@dataclass(frozen=True, slots=True)
class _Response:
    opened: OutgoingResponse
    ends_at: float

    @property
    def status(self) -> int:
        return self.opened.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.opened.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self.opened.chunks()) as chunks:
                async for chunk in chunks:
                    yield chunk
        except OutgoingError as exc:
            fault = _fault(exc, "idle-timeout", ends_at=self.ends_at)
            raise UpstreamError(fault, was_sent=True) from exc


class OutgoingUpstreams:
    """Opens calls; `runtime` calls the operator's own runtime host and nothing else."""

    def __init__(self, clients: ClientsByReach, runtime: OutgoingClient | None = None) -> None:
        self._clients = clients
        self._runtime = runtime

    async def close(self) -> None:
        await self._clients.close()
        if self._runtime is not None:
            await self._runtime.close()

    def open(
        self,
        endpoint: Endpoint,
        kind: CallKind,
        body: bytes,
        limits: TargetLimits,
        *,
        on_sent: Callable[[], None],
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        def begin() -> AbstractAsyncContextManager[OutgoingResponse]:
            return self._reaching(endpoint).open(
                "POST",
                endpoint.urls[kind],
                limits=_limits(limits),
                headers={**endpoint.headers, "Content-Type": "application/json"},
                body=body,
                on_sent=on_sent,
            )

        return _Opening(begin, limits.total)

    async def is_there(self, endpoint: Endpoint, *, seconds: float) -> bool:
        """Ask without a call: any word will do, also that this is no way to ask.

        The `Lookout` port.
        """
        limit = timedelta(seconds=seconds)
        try:
            async with self._reaching(endpoint).open(
                "GET",
                next(iter(endpoint.urls.values())),
                limits=OutgoingLimits(
                    connect=limit, first_byte=limit, idle=limit, total=limit, max_bytes=0
                ),
                headers=endpoint.headers,
            ) as response:
                return response.status < HTTPStatus.INTERNAL_SERVER_ERROR
        except (OutgoingError, UpstreamError):
            return False

    def _reaching(self, endpoint: Endpoint) -> OutgoingClient:
        if endpoint.reach != "runtime":
            return self._clients.reaching(endpoint.reach)
        if self._runtime is None:
            raise UpstreamError("connect", was_sent=False)
        return self._runtime


class _Opening(AbstractAsyncContextManager[UpstreamResponse]):
    """A call as its errors are told; a generator costs six times it."""

    __slots__ = ("_begin", "_opening", "_total")

    _opening: AbstractAsyncContextManager[OutgoingResponse]

    def __init__(
        self, begin: Callable[[], AbstractAsyncContextManager[OutgoingResponse]], total: timedelta
    ) -> None:
        self._begin = begin
        self._total = total

    @override
    async def __aenter__(self) -> UpstreamResponse:
        ends_at = time.monotonic() + self._total.total_seconds()
        self._opening = self._begin()
        try:
            return _Response(await self._opening.__aenter__(), ends_at)
        except OutgoingError as exc:
            fault = _fault(exc, "first-byte-timeout", ends_at=ends_at)
            raise UpstreamError(fault, was_sent=fault not in _BEFORE_SENDING) from exc

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._opening.__aexit__(kind, error, trace)


def _limits(limits: TargetLimits) -> OutgoingLimits:
    return OutgoingLimits(
        connect=limits.connect,
        first_byte=limits.first_byte,
        idle=limits.idle,
        total=limits.total,
        max_bytes=MAX_ANSWER_BYTES,
    )


def _fault(exc: OutgoingError, phase: UpstreamFault, *, ends_at: float) -> UpstreamFault:
    """Tell which phase took too long, if that is the matter; `phase` is the one under way."""
    if exc.fault != "timeout":
        return exc.fault
    if isinstance(exc.__cause__, aiohttp.ConnectionTimeoutError):
        return "connect-timeout"
    return "total-timeout" if time.monotonic() >= ends_at else phase
