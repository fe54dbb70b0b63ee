"""One try: a call at one target, from when it has a place there until that is given back."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import structlog

from maas.inference.application.dispatch_failures import SOON, Failure
from maas.inference.application.ports import Try, UpstreamError, UpstreamFault, UpstreamResponse
from maas.inference.application.reports import AnswererKind, RoutingReports, TryOutcome
from maas.inference.application.target_states import TargetState
from maas.inference.domain.circuit import Permit
from maas.inference.domain.failures import BrokenAnswerError
from maas.inference.domain.route import RouteTarget
from maas.inference.domain.verdict import Verdict, judge, retry_after
from maas.inference.domain.wire import BrokenStreamError
from maas.shared.domain.clock import Clock

log = structlog.get_logger(__name__)

_OF_FAULTS: Final[Mapping[UpstreamFault, TryOutcome]] = {
    "refused-target": "refused",
    "busy": "unreachable",
    "dns": "unreachable",
    "connect": "unreachable",
    "connect-timeout": "connect-timeout",
    "tls": "unreachable",
    "first-byte-timeout": "first-byte-timeout",
    "idle-timeout": "idle-timeout",
    "total-timeout": "total-timeout",
    "protocol": "failed",
    "too-large": "failed",
}
_OF_VERDICTS: Final[Mapping[Verdict, TryOutcome]] = {
    "answered": "answered",
    "request-refused": "request-refused",
    "rate-limited": "rate-limited",
    "refused": "refused",
    "timed-out": "first-byte-timeout",
    "failed": "failed",
}
_LATE: Final[Mapping[UpstreamFault, TryOutcome]] = {
    "idle-timeout": "idle-timeout",
    "total-timeout": "total-timeout",
}
"""Of an answer that had begun; whatever else happens to it is that it broke off."""


class AnswerOnItsWay:
    """An answer whose first piece was read already; it notes how it ends."""

    __slots__ = ("_chunks", "_first", "_response", "fault")

    def __init__(self, response: UpstreamResponse, chunks: AsyncGenerator[bytes, None]) -> None:
        self._response = response
        self._first = b""
        self._chunks = chunks
        self.fault: UpstreamFault | None = None

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._chunks) as chunks:
            first, self._first = self._first, b""
            if first:
                yield first
            try:
                async for chunk in chunks:
                    yield chunk
            except UpstreamError as exc:
                self.fault = exc.fault
                raise

    async def read_first(self) -> bytes:
        self._first = await anext(self._chunks, b"")
        return self._first

    async def close(self) -> None:
        await self._chunks.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class TryPorts:
    """What each try needs; `on_failing` is told of a target whose circuit is not closed."""

    reports: RoutingReports
    clock: Clock
    seconds: Callable[[], float]
    on_failing: Callable[[RouteTarget, TargetState], None]


class TryUnderWay:
    """Holds a place and a permit, and gives both back in `close`, whatever happened."""

    def __init__(
        self, ports: TryPorts, target: RouteTarget, state: TargetState, permit: Permit
    ) -> None:
        self.target = target
        self.was_sent = False
        self._answer: AnswerOnItsWay | None = None
        self._has_failed = False
        self._ports = ports
        self._state = state
        self._permit = permit
        self._kind: AnswererKind = target.endpoint.provider_kind or "local"
        self._status: int | None = None
        self._fault: UpstreamFault | None = None
        self._begun = ports.seconds()
        self._took = 0.0
        self._opening: AbstractAsyncContextManager[UpstreamResponse] | None = None

    def told(self) -> Try:
        return Try(
            target_id=self.target.id,
            status=self._status,
            fault=self._fault,
            took=timedelta(seconds=self._took),
        )

    async def begin(
        self, opening: AbstractAsyncContextManager[UpstreamResponse]
    ) -> AnswerOnItsWay | Failure:
        """Send, and wait until the answer begins; a refusal of the request is an answer too."""
        try:
            response = await opening.__aenter__()
            self._opening, self.was_sent, self._status = opening, True, response.status
            verdict = judge(response.status, response.headers)
            if verdict in {"answered", "request-refused"}:
                return await self._take(response, is_refusal=verdict == "request-refused")
            if response.status < HTTPStatus.MULTIPLE_CHOICES:
                self._fault = "protocol"
            wait = retry_after(response.headers, self._ports.clock.now())
            return self._fail(_OF_VERDICTS[verdict], wait)
        except UpstreamError as exc:
            self.was_sent = self.was_sent or exc.was_sent
            self._fault = exc.fault
            return self._fail(_OF_FAULTS[exc.fault])

    @property
    def has_failed(self) -> bool:
        return self._has_failed

    def withdraw(self) -> None:
        """Give everything back before anything was done."""
        self._permit.abandon()
        self._state.places.leave()

    async def close(self, error: BaseException | None) -> None:
        """Give everything back; `error` is what ended the call from outside, if anything did."""
        try:
            if not self._has_failed:
                self._note_end(error)
            try:
                if self._answer is not None:
                    await self._answer.close()
            finally:
                # It knows this try, whom it tells when it is sent.
                opening, self._opening = self._opening, None
                if opening is not None:
                    await opening.__aexit__(None, None, None)
        finally:
            now = self._ports.seconds()
            self._state.held.add(now - self._begun, now)
            self._state.places.leave()

    async def _take(
        self, response: UpstreamResponse, *, is_refusal: bool
    ) -> AnswerOnItsWay | Failure:
        answer = AnswerOnItsWay(response, response.chunks())
        if not is_refusal and not await answer.read_first():
            self._fault = "protocol"
            return self._fail("failed")
        now = self._ports.seconds()
        self._took = now - self._begun
        self._permit.answered(now)
        self._answer = answer
        if not is_refusal:
            self._state.health.first_byte.add(self._took, now)
            self._ports.reports.answer_began(self._kind, self._took)
        return answer

    def _fail(self, outcome: TryOutcome, wait: timedelta | None = None) -> Failure:
        now = self._ports.seconds()
        self._took = now - self._begun
        self._has_failed = True
        health = self._state.health
        if outcome == "rate-limited" or wait is not None:
            health.rest((wait or SOON).total_seconds(), now)
        if outcome == "first-byte-timeout":
            # It takes that long at least, and calls are better sent elsewhere.
            health.first_byte.add(self._took, now)
        if outcome == "rate-limited":
            # Who counts calls is well.
            self._permit.answered(now)
            self._permit.abandon()
        elif self._fault == "busy":
            self._permit.abandon()
        else:
            self._note_failure(now)
        self._ports.reports.tried(self._kind, outcome)
        return Failure(outcome=outcome, retry_after=wait)

    def _note_end(self, error: BaseException | None) -> None:
        now, outcome = self._ports.seconds(), self._outcome(error)
        if self._answer is None:
            self._took = now - self._begun
        if outcome == "left":
            self._permit.abandon()
        elif outcome in {"answered", "request-refused"}:
            self._permit.succeeded(now)
        else:
            self._note_failure(now)
        self._ports.reports.tried(self._kind, outcome)

    def _outcome(self, error: BaseException | None) -> TryOutcome:
        if self._answer is None:
            return "left"
        fault = self._answer.fault
        if fault is not None:
            return _LATE.get(fault, "broke-off")
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            return "left"
        if self._answer.status >= HTTPStatus.BAD_REQUEST:
            # Its reader turns it into an error of its own.
            return "request-refused"
        if isinstance(error, BrokenStreamError | BrokenAnswerError):
            return "broke-off"
        return "answered" if error is None else "left"

    def _note_failure(self, now: float) -> None:
        if self._permit.failed(now):
            self._ports.reports.circuit_opened(self._kind)
            # Once each time: its supplier's words are not in it.
            log.warning(
                "circuit_opened",
                target_id=str(self.target.id),
                provider=self.target.origin.provider_name,
                status=self._status,
                fault=self._fault,
            )
        if self._state.health.circuit.state(now) != "closed":
            self._ports.on_failing(self.target, self._state)
