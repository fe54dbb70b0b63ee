"""Calling a deployment: from a request that was read to an answer that is paid for."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from maas.inference.application.answer_cache import AnswerCache, KeptAnswer
from maas.inference.application.bills import (
    BROKEN_HERE,
    CLIENT_LEFT,
    Bill,
    Bills,
    TooManyCallsError,
)
from maas.inference.application.captures import AnswerTape, Capture, Captures, keep_for
from maas.inference.application.ports import (
    Attempt,
    Charge,
    Dispatch,
    Metering,
    NamedModel,
    NoAnswerError,
    NoteSending,
    Routes,
    UpstreamError,
)
from maas.inference.application.reading import RefusedRequestError, feed, read_whole
from maas.inference.application.refusals import Refusals
from maas.inference.application.replays import ReplayKey
from maas.inference.domain.answer_key import answer_key, may_keep
from maas.inference.domain.call import Ask
from maas.inference.domain.failures import (
    BrokenAnswerError,
    NoTargetError,
    ServerStoppedError,
    UnknownModelError,
)
from maas.inference.domain.limits import expect_allowed, expect_within
from maas.inference.domain.route import Route
from maas.inference.domain.wire import BrokenStreamError, NotTakenError, Wire
from maas.inference.public import DeploymentId
from maas.model.public import Protocol
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import MaasError
from maas.shared.domain.principal import Principal
from maas.user.public import Payer

MAX_KEPT_BODY_BYTES: Final = 512 * 1024
"""The answer to a longer request is not kept: to tell which one it is takes too long."""


def _note_nothing(*, is_under_way: bool) -> None: ...


def _is_gone() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, under which request id and Idempotency-Key, and the request as it came.

    A call that is cut while its caller `is_there` was not left, but stopped with the server.

    `on_sending` is called with true when the call leaves for a target, and with false when this
    one has failed: as long as nobody is at it, leaving costs nothing.
    """

    principal: Principal
    request_id: str
    body: bytes = field(repr=False)
    replay: ReplayKey | None = None
    is_there: Callable[[], bool] = _is_gone
    on_sending: NoteSending = _note_nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`is_hit` tells whether it was kept; it is null where the deployment keeps none."""

    body: bytes
    deployment_id: DeploymentId
    is_hit: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedAnswer:
    """An answer on its way: `first` has come, `rest` is to be closed whatever happens.

    `rest` raises a `MaasError` where the answer breaks off.
    """

    first: bytes
    rest: AsyncGenerator[bytes, None]
    deployment_id: DeploymentId


@dataclass(frozen=True, slots=True, kw_only=True)
class CallService:
    routes: Routes
    meter: Metering
    dispatch: Dispatch
    wires: Mapping[Protocol, Wire]
    bills: Bills = field(repr=False)
    refusals: Refusals
    kept: AnswerCache
    captures: Captures
    clock: Clock

    async def list_names(self, principal: Principal) -> Sequence[NamedModel]:
        """List what this caller can call, by name."""
        limits = principal.key_limits
        return [
            each
            for each in await self.routes.list_names(principal.tenant_id)
            if limits is None or limits.allows_model(each.name)
        ]

    async def get_name(self, principal: Principal, name: str) -> NamedModel:
        """Tell of one of them.

        Raises:
            UnknownModelError: the caller can call nothing of this name.
        """
        for each in await self.list_names(principal):
            if each.name == name:
                return each
        raise UnknownModelError

    async def answer(self, ask: Ask, caller: Caller) -> Answer:
        """Have a plain answer made, and paid for.

        A call that was sent goes on when its caller leaves: only its end tells what it cost.

        Raises:
            MaasError: there is none; what was used all the same is booked.
        """
        route = await self._route(ask, caller)
        is_short = len(caller.body) <= MAX_KEPT_BODY_BYTES
        key = answer_key(caller.principal.tenant_id, route, ask) if is_short else None
        kept = None if key is None else await self.kept.find(key)
        if kept is not None:
            await self._book_hit(route, ask, caller, kept)
            self._capture(route, ask, caller, kept.body)
            return Answer(body=kept.body, deployment_id=route.deployment_id, is_hit=True)
        body = await self._ask(route, ask, caller)
        if key is not None and route.cache_for is not None and may_keep(ask.kind, body):
            answer = KeptAnswer(body=body, request_id=caller.request_id, made_at=self.clock.now())
            self.kept.keep(key, answer, keep_for=route.cache_for)
        self._capture(route, ask, caller, body)
        is_hit = None if key is None else False
        return Answer(body=body, deployment_id=route.deployment_id, is_hit=is_hit)

    async def _ask(self, route: Route, ask: Ask, caller: Caller) -> bytes:
        async with self._charged(route, ask, caller) as bill:
            async with self.dispatch.open(route, ask.kind, bill.spell, bill) as attempt:
                bill.facts = attempt.facts
                wire = self._wire_of(attempt)
                # Here, so that what cannot be read is counted as the target's failure.
                bill.told = told = wire.read(ask, await read_whole(attempt, wire, bill))
            await bill.settle("success")
        return told.body

    async def stream(self, ask: Ask, caller: Caller) -> StreamedAnswer:
        """Have an answer streamed, which is paid for before its last piece.

        Raises:
            MaasError: there is none; what was used all the same is booked.
        """
        route = await self._route(ask, caller)
        pieces = self._pieces(route, ask, caller)
        if keep_for(route, caller.principal.tenant_id) is not None:
            pieces = self._taped(pieces, route, ask, caller)
        return StreamedAnswer(
            first=await anext(pieces), rest=pieces, deployment_id=route.deployment_id
        )

    async def _pieces(self, route: Route, ask: Ask, caller: Caller) -> AsyncGenerator[bytes, None]:
        async with self._charged(route, ask, caller) as bill:
            async with self.dispatch.open(route, ask.kind, bill.spell, bill) as attempt:
                bill.facts = attempt.facts
                wire = self._wire_of(attempt)
                if attempt.response.status >= HTTPStatus.BAD_REQUEST:
                    await read_whole(attempt, wire, bill)
                stream = bill.stream = wire.stream(ask)
                async with aclosing(feed(attempt, bill)) as pieces:
                    async for piece in pieces:
                        yield piece
                last = stream.end()
            await bill.settle("success")
            yield last

    async def _taped(
        self, pieces: AsyncGenerator[bytes, None], route: Route, ask: Ask, caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        """Take along what the client gets, and have it kept, whole or as far as it came."""
        tape, is_whole = AnswerTape(len(caller.body)), False
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    tape.add(piece)
                    yield piece
            is_whole = True
        finally:
            if tape.answer != b"":
                self._capture(route, ask, caller, tape.answer, is_whole=is_whole)

    def _capture(
        self,
        route: Route,
        ask: Ask,
        caller: Caller,
        answer: bytes | None,
        *,
        is_whole: bool = True,
    ) -> None:
        principal = caller.principal
        lasts = keep_for(route, principal.tenant_id)
        if lasts is None:
            return
        now = self.clock.now()
        self.captures.offer(
            Capture(
                tenant_id=principal.tenant_id,
                account_id=principal.account_id,
                request_id=caller.request_id,
                deployment_id=route.deployment_id,
                kind=ask.kind,
                is_stream=ask.is_stream,
                is_whole=is_whole,
                captured_at=now,
                keep_until=now + lasts,
                request=caller.body,
                answer=answer,
            )
        )

    async def _book_hit(self, route: Route, ask: Ask, caller: Caller, kept: KeptAnswer) -> None:
        payer = Payer.of(caller.principal)
        try:
            await self.meter.book_hit(
                payer=payer,
                route=route,
                ask=ask,
                request_id=caller.request_id,
                answer_of=kept.request_id,
                replay=caller.replay,
            )
        except MaasError as exc:
            self.refusals.note(exc, ask, payer, route)
            raise

    async def _route(self, ask: Ask, caller: Caller) -> Route:
        route: Route | None = None
        try:
            expect_allowed(caller.principal.key_limits, ask.model)
            route = await self.routes.get(caller.principal.tenant_id, ask.model)
            expect_within(route, ask, body_bytes=len(caller.body))
        except MaasError as exc:
            self.refusals.note(exc, ask, Payer.of(caller.principal), route)
            raise
        return route

    def _wire_of(self, attempt: Attempt) -> Wire:
        return self.wires[attempt.facts.target.endpoint.protocol]

    @asynccontextmanager
    async def _charged(self, route: Route, ask: Ask, caller: Caller) -> AsyncIterator[Bill]:
        """Set aside what the call may cost, and see that it is booked, however the block ends."""
        bill = self.bills.open(await self._begin(route, ask, caller), on_sending=caller.on_sending)
        try:
            yield bill
        except NoAnswerError as exc:
            await bill.settle_unanswered(exc.facts, exc.refusal.code)
            self._note_unsent(bill, exc.refusal)
            raise exc.refusal from exc
        except (UpstreamError, BrokenStreamError) as exc:
            await bill.break_off(BrokenAnswerError.code)
            raise BrokenAnswerError from exc
        except (NotTakenError, RefusedRequestError) as exc:
            await bill.settle_unanswered(bill.facts, exc.code)
            self._note_unsent(bill, exc)
            raise
        except TooManyCallsError as exc:
            await bill.break_off(exc.code)
            raise
        except MaasError:
            # The meter could not book it, and goes on trying.
            raise
        except (asyncio.CancelledError, GeneratorExit):
            is_stopped = caller.is_there()
            self.bills.abandon(bill, ServerStoppedError.code if is_stopped else CLIENT_LEFT)
            raise
        except Exception:
            self.bills.abandon(bill, BROKEN_HERE)
            raise
        finally:
            self.bills.close_bill(bill)

    def _note_unsent(self, bill: Bill, refusal: MaasError) -> None:
        if bill.facts is None:
            charge = bill.charge
            self.refusals.note(refusal, charge.ask, charge.payer, charge.route)

    async def _begin(self, route: Route, ask: Ask, caller: Caller) -> Charge:
        payer = Payer.of(caller.principal)
        try:
            # What nobody could answer has no price, and nothing is set aside for it.
            if not any(ask.kind in target.endpoint.urls for target in route.targets):
                raise NoTargetError
            self.bills.take_place(payer.tenant_id)
            try:
                return await self.meter.begin(
                    payer=payer,
                    route=route,
                    ask=ask,
                    request_id=caller.request_id,
                    replay=caller.replay,
                )
            except BaseException:
                self.bills.leave_place(payer.tenant_id)
                raise
        except MaasError as exc:
            self.refusals.note(exc, ask, payer, route)
            raise
