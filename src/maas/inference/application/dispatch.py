"""Sends a call to one target after another until one answers.

Whatever is tried again is tried before the first byte of an answer: once that is there, the call
stays with the target that sent it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

from maas.inference.application.dispatch_failures import (
    Failure,
    left_alone,
    queue_full,
    queue_late,
    refusal_after,
)
from maas.inference.application.ports import (
    Attempt,
    AttemptFacts,
    NoAnswerError,
    Sending,
    Try,
    Unanswered,
    Upstreams,
)
from maas.inference.application.queues import NoPlaceError
from maas.inference.application.reports import WaitOutcome
from maas.inference.application.target_states import TargetState, TargetStates
from maas.inference.application.tries import AnswerOnItsWay, TryPorts, TryUnderWay
from maas.inference.domain.failures import NoTargetError
from maas.inference.domain.route import Route, RouteTarget, TargetLimits
from maas.inference.domain.routing import Choice, choose
from maas.inference.domain.wire import NotTakenError
from maas.inference.public import CallKind
from maas.shared.domain.errors import MaasError

MOST_TRIES: Final = 4
"""Of one call, however many targets there are: each may take its time."""

PAUSE_SECONDS: Final = 0.1
"""Before the only target there is is asked again; half as much either way."""

_LEAST_SECONDS: Final = 0.001

_NOT_CONNECTED: Final = frozenset({"dns", "connect", "connect-timeout", "tls"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher:
    """The `Dispatch` port."""

    upstreams: Upstreams
    states: TargetStates
    ports: TryPorts

    @asynccontextmanager
    async def open(
        self,
        route: Route,
        kind: CallKind,
        spell: Callable[[RouteTarget], bytes],
        sending: Sending | None = None,
    ) -> AsyncIterator[Attempt]:
        search = _Search(self, route, kind, sending)
        try:
            while True:
                one, body = await search.find(spell)
                error: BaseException | None = None
                try:
                    target = one.target
                    opening = self.upstreams.open(
                        target.endpoint,
                        kind,
                        body,
                        search.limits(target),
                        on_sent=partial(search.note_sent, one),
                    )
                    begun = await one.begin(opening)
                    if isinstance(begun, AnswerOnItsWay):
                        yield Attempt(facts=search.facts(one), response=begun)
                        return
                except BaseException as exc:
                    error = exc
                    raise
                finally:
                    await one.close(error)
                await search.note_failure(one, begun)
        except BaseException:
            search.note_end()
            raise


class _Search:
    """A call on its way to an answer: whom it asked, and whom it may still ask."""

    def __init__(
        self, dispatcher: Dispatcher, route: Route, kind: CallKind, sending: Sending | None
    ) -> None:
        """Begin.

        Raises:
            NoAnswerError: no target takes this kind of call.
        """
        self._left = [target for target in route.targets if kind in target.endpoint.urls]
        if not self._left:
            raise NoAnswerError(NoTargetError())
        self._is_alone = len(self._left) == 1
        self._states, self._ports = dispatcher.states, dispatcher.ports
        route_state = self._states.of(route)
        # Of now: a route that changes meanwhile has other states, and this call keeps its own.
        self._known, self._budget = route_state.targets, route_state.budget
        self._ends_at: float | None = None
        self._turn_by: float | None = None
        self._begun = self._ports.seconds()
        self._budget.note_call(self._begun)
        self._is_granted = True
        self._decision = ""
        self._tries: list[Try] = []
        self._failures: list[Failure] = []
        self._sending = sending
        self._at: TryUnderWay | None = None
        self._was_sent = False
        self._last: RouteTarget | None = None
        self._last_decision = ""
        self._not_placed: MaasError | None = None
        self._not_taken: NotTakenError | None = None

    async def find(self, spell: Callable[[RouteTarget], bytes]) -> tuple[TryUnderWay, bytes]:
        """Find who is asked next, with a place there and a way through its circuit.

        Raises:
            NoAnswerError: there is nobody any more.
            NotTakenError: nobody takes this call.
        """
        while True:
            target, state = self._choose()
            if not await self._enter(target, state):
                self._left.remove(target)
                continue
            permit = state.health.circuit.enter(self._ports.seconds())
            if permit is None:
                # It opened, or another call tries it, while this one waited for its turn.
                state.places.leave()
                continue
            one = TryUnderWay(self._ports, target, state, permit)
            try:
                body = spell(target)
            except NotTakenError as exc:
                one.withdraw()
                self._not_taken = exc
                self._left.remove(target)
            except BaseException:
                one.withdraw()
                raise
            else:
                self._at = one
                return one, body

    def note_sent(self, one: TryUnderWay) -> None:
        one.was_sent = True
        if self._sending is not None:
            self._sending.note_sending(is_under_way=True)

    def note_end(self) -> None:
        """Tell how far the call had come, whoever ended it."""
        if self._sending is not None:
            self._sending.note_end(self._unanswered())

    def limits(self, target: RouteTarget) -> TargetLimits:
        """Give the first target all the time it has, and each other one what is left of that."""
        now, limits = self._ports.seconds(), target.limits
        if self._ends_at is None:
            self._ends_at = now + limits.total.total_seconds()
            return limits
        left = timedelta(seconds=max(self._ends_at - now, _LEAST_SECONDS))
        return limits if limits.total <= left else replace(limits, total=left)

    def facts(self, one: TryUnderWay) -> AttemptFacts:
        first_byte = timedelta(seconds=self._ports.seconds() - self._begun)
        told = one.told()
        return AttemptFacts(
            target=one.target,
            tries=(*self._tries, told),
            decision=self._decision,
            status=told.status,
            first_byte=first_byte,
        )

    async def note_failure(self, one: TryUnderWay, failure: Failure) -> None:
        """Note that a target gave no answer, and see to who else may."""
        told = one.told()
        self._tries.append(told)
        self._failures.append(failure)
        self._at = None
        self._was_sent = self._was_sent or one.was_sent
        self._last, self._last_decision, self._is_granted = one.target, self._decision, False
        if one.was_sent and self._sending is not None:
            self._sending.note_sending(is_under_way=False)
        is_again = self._is_alone and len(self._tries) == 1 and told.fault in _NOT_CONNECTED
        if not is_again or one.was_sent:
            self._left.remove(one.target)
        elif self._ports.seconds() - self._begun < PAUSE_SECONDS:
            # What was slow to fail needs no pause on top.
            await asyncio.sleep(PAUSE_SECONDS * self._states.random.uniform(0.5, 1.5))

    def _choose(self) -> tuple[RouteTarget, TargetState]:
        now = self._ports.seconds()
        if len(self._tries) >= MOST_TRIES or (self._ends_at is not None and now >= self._ends_at):
            raise self._no_answer(now)
        options = self._states.options(self._known, self._left)
        choice = choose(options, now=now, random=self._states.random)
        if choice is None:
            raise self._no_answer(now)
        if not self._is_granted:
            self._is_granted = self._budget.take(now)
            self._ports.reports.retried(is_granted=self._is_granted)
            if not self._is_granted:
                raise self._no_answer(now)
        target = self._left[choice.at]
        self._decision = _decision(choice, target, len(self._tries))
        return target, self._known[target.id]

    async def _enter(self, target: RouteTarget, state: TargetState) -> bool:
        """Take a place at a target, waiting for it if there is time; tell whether it has one."""
        limits, begun = target.limits, self._ports.seconds()
        if state.places.has_place:
            await state.places.take(max_waiting=0, seconds=0)
            return True
        if self._turn_by is None:
            self._turn_by = begun + limits.queue_for.total_seconds()
        outcome: WaitOutcome = "left"
        try:
            await state.places.take(
                max_waiting=self._states.share(limits.max_queued),
                seconds=max(self._turn_by - begun, 0.0),
                tenant_id=None if self._sending is None else self._sending.tenant_id,
            )
            outcome = "placed"
        except NoPlaceError as exc:
            outcome = "late" if exc.is_late else "full"
            turn_in = state.turn_in(self._ports.seconds())
            if exc.is_late:
                self._not_placed = queue_late(turn_in)
            elif self._not_placed is None:
                self._not_placed = queue_full(turn_in)
            return False
        finally:
            self._ports.reports.waited(outcome, self._ports.seconds() - begun)
        return True

    def _no_answer(self, now: float) -> NoAnswerError | NotTakenError:
        if self._failures:
            facts = self._facts_of_failure() if self._was_sent else None
            return NoAnswerError(refusal_after(self._failures), facts)
        if self._not_placed is not None:
            return NoAnswerError(self._not_placed)
        waits = [
            self._known[target.id].health.circuit.seconds_until_due(now) for target in self._left
        ]
        if not waits and self._not_taken is not None:
            return self._not_taken
        return NoAnswerError(left_alone(min(waits, default=0.0)))

    def _unanswered(self) -> Unanswered | None:
        one = self._at
        if one is not None and one.was_sent:
            told = one.told()
            facts = AttemptFacts(
                target=one.target,
                tries=(*self._tries, told),
                decision=self._decision,
                status=told.status,
                first_byte=None,
            )
            return Unanswered(facts=facts, has_failed=one.has_failed)
        failed = self._facts_of_failure() if self._was_sent else None
        return None if failed is None else Unanswered(facts=failed, has_failed=True)

    def _facts_of_failure(self) -> AttemptFacts | None:
        if self._last is None:
            return None
        return AttemptFacts(
            target=self._last,
            tries=tuple(self._tries),
            decision=self._last_decision,
            status=self._tries[-1].status,
            first_byte=None,
        )


def _decision(choice: Choice, target: RouteTarget, tries: int) -> str:
    told = f"{choice.reason}, priority {target.priority}"
    return f"{told}, after {tries} others" if tries else told
