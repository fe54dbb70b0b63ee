"""The stream's producing end: group commit, and a fast path nobody waits for."""

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import Final, TypeAlias

import structlog
from redis.exceptions import RedisError
from redis.typing import EncodableT

from maas.audit.public import ComposedEvent
from maas.shared.infrastructure.redis import KEY_PREFIX, RedisGate, RedisUnavailableError

STREAM: Final = f"{KEY_PREFIX}audit:events"
GROUP: Final = "flush"
FORMAT: Final = b"1"
"""The version of an entry's fields; the flush reads n and n-1."""

MAX_PIPELINE: Final = 500
MAX_WAITING: Final = 5_000
APPEND_SECONDS: Final = 0.25
OFFER_SECONDS: Final = 0.005
"""So long an event that nobody waits for looks out for others to share its pipeline."""

log = structlog.get_logger(__name__)

Kick: TypeAlias = Callable[[], None]
Waiting: TypeAlias = tuple[ComposedEvent, "asyncio.Future[None] | None"]


def entry_fields(event: ComposedEvent) -> dict[EncodableT, EncodableT]:
    fields: dict[EncodableT, EncodableT] = {
        b"v": FORMAT,
        b"id": str(event.id).encode(),
        b"payload": event.payload,
        b"personal": event.personal_json.encode(),
    }
    if event.duration_ms is not None:
        fields[b"duration_ms"] = str(event.duration_ms).encode()
    return fields


def _entry_command(event: ComposedEvent) -> list[EncodableT]:
    return [b"XADD", STREAM, b"*", *chain.from_iterable(entry_fields(event).items())]


class EventStream:
    """Appends events, those of one process together.

    One pipeline is under way at a time; what arrives meanwhile shares the next. So an event that is
    waited for goes at once, a busy process makes one round trip (and Redis one fsync) for many, and
    the order of arrival is kept. One of these serves one event loop.
    """

    def __init__(self, redis: RedisGate, *, kick: Kick | None, kick_at: int) -> None:
        """`kick` may block: it is called in a thread, after every `kick_at` appended events."""
        self._redis = redis
        self._kick = kick
        self._kick_at = kick_at
        self._since_kick = 0
        self._kicking: asyncio.Future[None] | None = None
        self._waiting: list[Waiting] = []
        self._sender: asyncio.Task[None] | None = None
        self._start: asyncio.TimerHandle | None = None

    async def append(self, event: ComposedEvent) -> None:
        """Return once Redis has it.

        Raises:
            RedisUnavailableError: it may or may not have it; append the same event elsewhere.
        """
        if self._redis.is_shut or len(self._waiting) >= MAX_WAITING:
            raise RedisUnavailableError
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        self._start_sender()
        try:
            # Also for those who wait behind a pipeline that is slow without failing.
            async with asyncio.timeout(APPEND_SECONDS):
                await future
        except TimeoutError as exc:
            raise RedisUnavailableError from exc

    def offer(self, event: ComposedEvent) -> None:
        """Append soon, and forget it if that fails: the outbox holds the event."""
        if self._redis.is_shut or len(self._waiting) >= MAX_WAITING:
            return
        self._waiting.append((event, None))
        if self._start is None and not self._is_sending:
            loop = asyncio.get_running_loop()
            self._start = loop.call_later(OFFER_SECONDS, self._start_sender)

    async def close(self) -> None:
        """Send what is left and wait for what is under way, a second at most."""
        if self._waiting:
            self._start_sender()
        under_way = [task for task in (self._sender, self._kicking) if task is not None]
        if under_way:
            await asyncio.wait(under_way, timeout=1)

    @property
    def _is_sending(self) -> bool:
        return self._sender is not None and not self._sender.done()

    def _start_sender(self) -> None:
        if self._start is not None:
            self._start.cancel()
            self._start = None
        if not self._is_sending:
            self._sender = asyncio.create_task(self._send_waiting())

    async def _send_waiting(self) -> None:
        while self._waiting:
            batch = self._waiting[:MAX_PIPELINE]
            del self._waiting[:MAX_PIPELINE]
            try:
                await self._send(batch)
            except Exception:
                # Nobody awaits this task: unsaid, what waits would go to the outbox for no reason
                # that anybody could find.
                log.exception("audit_stream_failed", events=len(batch))
            finally:
                for _, future in batch:
                    if future is not None and not future.done():
                        future.set_exception(RedisUnavailableError())

    async def _send(self, batch: list[Waiting]) -> None:
        commands = [_entry_command(event) for event, _ in batch]
        try:
            answers = await self._redis.send(commands, seconds=APPEND_SECONDS)
        except RedisUnavailableError:
            log.warning("audit_stream_unreachable", events=len(batch))
            return
        refused = 0
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, RedisError):
                refused += 1
            elif future is not None and not future.done():
                future.set_result(None)
        if refused:
            log.warning("audit_stream_refused", events=refused)
        self._count(len(batch) - refused)

    def _count(self, appended: int) -> None:
        self._since_kick += appended
        if self._kick is None or self._since_kick < self._kick_at:
            return
        if self._kicking is None or self._kicking.done():
            self._since_kick = 0
            self._kicking = asyncio.create_task(asyncio.to_thread(_kick, self._kick))


def _kick(kick: Kick) -> None:
    try:
        kick()
    except Exception:
        # Whatever Celery's client raises, a lost kick is harmless: the next tick flushes.
        log.warning("audit_kick_failed", exc_info=True)
