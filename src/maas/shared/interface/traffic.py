"""How much a process serves at once: what it works on counts, what it waits for does not."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import Message, Receive

from maas.shared.domain.errors import UnavailableError

BODY_KEY = "maas.body"
"""Where the scope of a request with a body keeps its `IncomingBody`."""

ARRIVING_KEY = "maas.arriving"
"""Set in the scope of a request that the server has counted as arriving."""

FREE_BYTES = 64 * 1024
MAX_HELD_BYTES = 256 * 1024 * 1024

FEW = 24
"""So many are never too many, however long they take: most have a connection each."""

MAX_WAIT_SECONDS = 0.5
"""Who is let in should be through by then: two seconds of waiting for a connection end in 503.

A busy machine may become four times slower meanwhile.
"""

BURST_SECONDS = 0.5
"""For so long anybody is let in after a lull: clients that begin together come within that.

On a busy machine it is a hundred of them that take so long to be read. A crowd that grows for
longer is too much.
"""


@dataclass(slots=True, kw_only=True)
class Traffic:
    """How much this process is serving, and whether it has begun to stop."""

    max_in_flight: int
    in_flight: int = 0
    arriving: int = 0
    """Were let in by the server in this turn of its loop, and have not reached the edge yet."""
    held_bytes: int = 0
    """What is there of bodies that are not whole yet, past the first 64 KiB of each."""
    is_draining: bool = False
    _calm_at: float = 0.0
    _counted_since: float = 0.0
    _counted: int = 0
    _a_second: float = 0.0

    def has_room(self, now: float, *, own: int = 0) -> bool:
        """Tell whether one more may come in; `now` is in seconds, from whenever.

        A burst may fill the process. Where a crowd stands, no more are let in than half of what was
        served in the last second: the others would only wait, and fail in the end. A crowd is over
        at half of that: one step below the limit would be a lull after each answer, and a burst
        after each.

        `own` is the place that whoever asks has already.
        """
        others = self.in_flight + self.arriving - own
        if others >= self.max_in_flight:
            return False
        self._count(now, 0)
        served = max(self._a_second, self._counted)
        room = max(FEW, served * MAX_WAIT_SECONDS)
        if others < room / 2:
            self._calm_at = now
            return True
        return others < room or now - self._calm_at <= BURST_SECONDS

    def note_served(self, now: float) -> None:
        """Count what was worked on; a refusal costs next to nothing, and says nothing of room."""
        self._count(now, 1)

    def _count(self, now: float, served: int) -> None:
        passed = now - self._counted_since
        if passed >= 1:
            self._a_second = self._counted / passed
            self._counted, self._counted_since = 0, now
        self._counted += served

    def drain(self) -> None:
        """Answer `not ready` and close connections after their answers from now on."""
        self.is_draining = True


class IncomingBody:
    """Receives a request's body, and gives the request's place to others while it waits."""

    __slots__ = ("_held_bytes", "_is_whole", "_on_shed", "_receive", "_traffic")

    def __init__(self, receive: Receive, traffic: Traffic, on_shed: Callable[[], None]) -> None:
        self._receive = receive
        self._traffic = traffic
        self._on_shed = on_shed
        self._held_bytes = 0
        self._is_whole = False

    async def receive(self) -> Message:
        """Receive as ASGI has it; the place is taken again in any case, so a stream goes on."""
        if self._is_whole:
            return await self._receive()
        self._traffic.in_flight -= 1
        try:
            message = await self._receive()
        finally:
            self._traffic.in_flight += 1
        self._is_whole = not message.get("more_body", False)
        return message

    def hold(self, size: int) -> None:
        """Note how many bytes of the body are kept while the rest is awaited.

        Raises:
            UnavailableError: all that is kept of all bodies is too much.
        """
        held_bytes = max(0, size - FREE_BYTES)
        self._traffic.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes
        if held_bytes and self._traffic.held_bytes > MAX_HELD_BYTES:
            raise self._shed()

    def let_go(self) -> None:
        """Stop counting the bytes that were kept."""
        self._traffic.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def take_place(self) -> None:
        """Begin to work on a body that is whole.

        While it was awaited it did not count, so a crowd may have come by other heads since.

        Raises:
            UnavailableError: others have taken the place while the body was awaited.
        """
        if not self._traffic.has_room(time.perf_counter(), own=1):
            raise self._shed()

    def waiting_elsewhere(self) -> "_WaitingElsewhere":
        """Give the place to others for a `with` block: another server works on the request."""
        return _WaitingElsewhere(self._traffic)

    def _shed(self) -> UnavailableError:
        self._on_shed()
        return overloaded()


class _WaitingElsewhere:
    """A class, since each piece of each stream has one: a generator costs four times it."""

    __slots__ = ("_traffic",)

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def __enter__(self) -> None:
        self._traffic.in_flight -= 1

    def __exit__(self, *_: object) -> None:
        self._traffic.in_flight += 1


def overloaded() -> UnavailableError:
    return UnavailableError("Too many requests are being served at this moment. Retry shortly.")
