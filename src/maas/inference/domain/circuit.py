"""When a target that fails is left alone, and how it is found well again.

Times are seconds of one monotonic clock, which is never read here.
"""

from dataclasses import dataclass
from random import Random
from typing import Final, Literal, TypeAlias

CircuitState: TypeAlias = Literal["closed", "open", "half-open"]

_WAIT_SPREAD: Final = 0.2
"""Waits differ by so much either way, so that processes do not try a target all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRules:
    """So many failures in a row open a circuit, or such a share of enough calls in a window.

    `wait_seconds` doubles with each try that failed, up to `longest_wait_seconds`.
    """

    failures_in_row: int = 5
    failing_share: float = 0.5
    least_calls: int = 20
    window_seconds: float = 30
    wait_seconds: float = 5
    longest_wait_seconds: float = 60


class Circuit:
    """Lets calls through while a target is well.

    After failures it is open for a while; then one call may try, and all others wait for what comes
    of it. Each call has a `Permit`, which must be ended or abandoned, whatever happens.
    """

    def __init__(self, rules: CircuitRules, random: Random) -> None:
        self._rules = rules
        self._random = random
        self._is_closed = True
        # Calls of an earlier time say nothing about the target as it is now.
        self._epoch = 0
        self._probe: Permit | None = None
        self._due = 0.0
        self._openings_in_row = 0
        self._forget_calls(0.0)

    def state(self, now: float) -> CircuitState:
        if self._is_closed:
            return "closed"
        return "half-open" if now >= self._due or self._probe is not None else "open"

    def admits(self, now: float) -> bool:
        """Tell whether `enter` would give a permit."""
        return self._is_closed or (self._probe is None and now >= self._due)

    def seconds_until_due(self, now: float) -> float:
        """Tell how long until a call may try, as far as that is known."""
        return 0.0 if self._is_closed else max(0.0, self._due - now)

    def enter(self, now: float) -> "Permit | None":
        if self._is_closed:
            return Permit(self, self._epoch)
        if not self.admits(now):
            return None
        self._probe = Permit(self, self._epoch)
        return self._probe

    def found_down(self, now: float, *, again_seconds: float) -> None:
        """Stay open at least until the next look at the target; no call need be spent on it."""
        if not self._is_closed:
            self._due = max(self._due, now + again_seconds)

    def _close(self, now: float) -> None:
        self._is_closed = True
        self._epoch += 1
        self._probe = None
        self._openings_in_row = 0
        self._forget_calls(now)

    def _open(self, now: float) -> None:
        rules = self._rules
        wait = min(rules.wait_seconds * 2.0**self._openings_in_row, rules.longest_wait_seconds)
        self._is_closed = False
        self._epoch += 1
        self._probe = None
        # Past this the wait is the longest anyway, and the power would grow for ever.
        self._openings_in_row = min(self._openings_in_row + 1, 30)
        self._due = now + wait * self._random.uniform(1 - _WAIT_SPREAD, 1 + _WAIT_SPREAD)

    def _forget_calls(self, now: float) -> None:
        self._failures_in_row = 0
        self._half_began = now
        self._calls = self._failures = 0
        self._earlier_calls = self._earlier_failures = 0

    def _count(self, now: float, *, is_failure: bool) -> bool:
        """Count a call of a closed circuit; tell whether that opened it."""
        rules = self._rules
        # Two halves that are dropped in turn are a window, without a list of its calls.
        if now - self._half_began >= rules.window_seconds / 2:
            is_next = now - self._half_began < rules.window_seconds
            self._earlier_calls = self._calls if is_next else 0
            self._earlier_failures = self._failures if is_next else 0
            self._calls = self._failures = 0
            self._half_began = now
        self._calls += 1
        if not is_failure:
            self._failures_in_row = 0
            return False
        self._failures += 1
        self._failures_in_row += 1
        calls = self._calls + self._earlier_calls
        failures = self._failures + self._earlier_failures
        if self._failures_in_row >= rules.failures_in_row or (
            calls >= rules.least_calls and failures >= calls * rules.failing_share
        ):
            self._open(now)
            return True
        return False


class Permit:
    """A call's way through a circuit. What is said after the end is not heard."""

    __slots__ = ("_circuit", "_epoch", "_has_ended")

    def __init__(self, circuit: Circuit, epoch: int) -> None:
        self._circuit = circuit
        self._epoch = epoch
        self._has_ended = False

    @property
    def is_probe(self) -> bool:
        return self._circuit._probe is self  # noqa: SLF001  the two are one thing

    def answered(self, now: float) -> None:
        """Note that the answer began: of a probe, that is proof enough."""
        circuit = self._circuit
        if self.is_probe and not self._has_ended:
            circuit._close(now)  # noqa: SLF001  as above
            self._epoch = circuit._epoch  # noqa: SLF001  as above

    def succeeded(self, now: float) -> None:
        self.answered(now)
        if self._ends():
            self._circuit._count(now, is_failure=False)  # noqa: SLF001  as above

    def failed(self, now: float) -> bool:
        """Note a failure that is the target's; tell whether that opened the circuit.

        A probe that fails keeps it open, which is no opening.
        """
        circuit, was_probe = self._circuit, self.is_probe
        if not self._ends():
            return False
        if was_probe:
            circuit._open(now)  # noqa: SLF001  as above
            return False
        return circuit._count(now, is_failure=True)  # noqa: SLF001  as above

    def abandon(self) -> None:
        """End without a word about the target; the next call may try in a probe's place."""
        was_probe = self.is_probe
        if self._ends() and was_probe:
            self._circuit._probe = None  # noqa: SLF001  as above

    def _ends(self) -> bool:
        """End, once; tell whether the circuit is still that of this call's time."""
        has_ended, self._has_ended = self._has_ended, True
        return not has_ended and self._epoch == self._circuit._epoch  # noqa: SLF001  as above
