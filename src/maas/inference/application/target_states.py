"""What this process knows of the targets it calls; other processes have their own knowledge."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random, SystemRandom
from typing import Final

from maas.inference.application.queues import Places
from maas.inference.domain.circuit import Circuit, CircuitRules, CircuitState
from maas.inference.domain.route import Route, RouteTarget
from maas.inference.domain.routing import MovingAverage, Option, RetryBudget, TargetHealth
from maas.inference.public import DeploymentId, TargetId

FORGOTTEN_AFTER_SECONDS: Final = 600.0
"""A deployment nobody calls for so long is not kept in memory."""

SWEEP_SECONDS: Final = 60.0
LATEST_TURN_SECONDS: Final = 60.0


class TargetState:
    """One target. It outlives changes of its route, for calls may be under way."""

    __slots__ = ("health", "held", "places")

    def __init__(self, health: TargetHealth) -> None:
        self.health = health
        self.places = Places()
        # How long calls stay.
        self.held = MovingAverage()

    def turn_in(self, now: float) -> timedelta:
        """Guess when a call that came now would have its turn."""
        held, limit = self.held.believed(now) or 0.0, self.places.limit or 1
        return timedelta(seconds=min(held * (self.places.waiting + 1) / limit, LATEST_TURN_SECONDS))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetNow:
    """A target as this process sees it at the moment."""

    circuit: CircuitState
    seconds_until_due: float
    in_flight: int
    waiting: int
    first_byte_seconds: float | None
    rests_seconds: float


UNTRIED: Final = TargetNow(
    circuit="closed",
    seconds_until_due=0.0,
    in_flight=0,
    waiting=0,
    first_byte_seconds=None,
    rests_seconds=0.0,
)
"""A target of which this process knows nothing."""


class RouteState:
    """A deployment's targets and its retry budget."""

    def __init__(self, now: float) -> None:
        self.budget = RetryBudget(now)
        self.targets: dict[TargetId, TargetState] = {}
        self.used_at = now
        # Not the route itself: it holds keys, and this is kept for longer than those may be.
        self.shape: Sequence[tuple[TargetId, int | None]] = ()

    @property
    def is_idle(self) -> bool:
        return all(state.places.is_idle for state in self.targets.values())


class TargetStates:
    """The states of all routes in use.

    `processes` share what a target may have under way at a time: each has its part, and at least
    one place.
    """

    def __init__(
        self,
        *,
        processes: int,
        rules: CircuitRules | None = None,
        random: Random | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = processes
        self._rules = rules or CircuitRules()
        # Each process draws by itself; where calls go is no secret.
        self._random = random or Random(SystemRandom().random())  # noqa: S311  as said above
        self._seconds = seconds
        self._routes: dict[DeploymentId, RouteState] = {}
        self._swept_at = seconds()

    def __len__(self) -> int:
        return len(self._routes)

    @property
    def random(self) -> Random:
        return self._random

    def of(self, route: Route) -> RouteState:
        """Find the state of a route, as the route is now: what it lost is forgotten."""
        now = self._seconds()
        state = self._routes.get(route.deployment_id)
        if state is None:
            self._sweep(now)
            state = self._routes[route.deployment_id] = RouteState(now)
        state.used_at = now
        shape = [(target.id, target.limits.max_concurrent) for target in route.targets]
        if state.shape != shape:
            self._follow(state, shape)
        return state

    def options(
        self, known: Mapping[TargetId, TargetState], targets: Sequence[RouteTarget]
    ) -> list[Option]:
        """Tell the standing of targets, in their order."""
        return [
            Option(target.priority, target.weight, one.health, one.places.has_place)
            for target in targets
            for one in (known[target.id],)
        ]

    def share(self, limit: int) -> int:
        """Tell this process's part of what all of them together may do."""
        return max(1, limit // self._processes) if limit else 0

    def look(self, deployment_id: DeploymentId) -> Mapping[TargetId, TargetNow]:
        """Tell how each target stands that calls here go to, or are still under way at."""
        state, now = self._routes.get(deployment_id), self._seconds()
        if state is None:
            return {}
        wanted = {target_id for target_id, _ in state.shape}
        return {
            target_id: _now(one, now)
            for target_id, one in state.targets.items()
            if target_id in wanted or not one.places.is_idle
        }

    def _follow(self, state: RouteState, shape: Sequence[tuple[TargetId, int | None]]) -> None:
        """Take a route as it was read anew.

        A target that is gone is forgotten as soon as nobody is there any more: it may come back
        while calls are under way, and they count.
        """
        known = state.targets
        state.targets = {key: one for key, one in known.items() if not one.places.is_idle}
        for target_id, limit in shape:
            one = known.get(target_id) or TargetState(
                TargetHealth(Circuit(self._rules, self._random))
            )
            one.places.limit_to(None if limit is None else self.share(limit))
            state.targets[target_id] = one
        state.shape = shape

    def _sweep(self, now: float) -> None:
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        self._routes = {
            key: state
            for key, state in self._routes.items()
            if now - state.used_at < FORGOTTEN_AFTER_SECONDS or not state.is_idle
        }


def _now(one: TargetState, now: float) -> TargetNow:
    health, places = one.health, one.places
    return TargetNow(
        circuit=health.circuit.state(now),
        seconds_until_due=health.circuit.seconds_until_due(now),
        in_flight=places.taken,
        waiting=places.waiting,
        first_byte_seconds=health.first_byte.believed(now),
        rests_seconds=max(0.0, health.rests_until - now),
    )
