"""Redis or Valkey: short time-outs, and a breaker so that a dead server costs nothing."""

import asyncio
import hashlib
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from datetime import timedelta
from typing import Any, Final, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.typing import EncodableT

from maas.shared.domain.errors import UnavailableError
from maas.shared.infrastructure.redis_line import Command, RedisLine
from maas.shared.infrastructure.settings import RedisSettings

T = TypeVar("T")

KEY_PREFIX: Final = "maas:v1:"
"""Every key starts with this; the version is of the layout, and code reads n and n-1."""

COOL_DOWN_SECONDS: Final = 1.0

# uvloop tells of a connection that was reset before the first write by a bare RuntimeError, which
# redis-py passes on as it is.
OUTAGES: Final = (RedisError, OSError, TimeoutError, RuntimeError)

_RUN: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
_UPTIME: Final = re.compile(rb"^uptime_in_seconds:(\d+)", re.MULTILINE)


class RedisUnavailableError(UnavailableError):
    code = "redis-unavailable"
    title = "Redis does not answer"

    def __init__(self) -> None:
        super().__init__(retry_after=timedelta(seconds=COOL_DOWN_SECONDS))


class Script:
    """A Lua script, known to the server by its digest once it has run there."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisGate:
    """Guards calls to Redis: bounded in time, refused at once while it is known to be down.

    After a failure the gate stays shut for a second; then the next call tries again. `call` runs
    anything; `evaluate` runs scripts at a third of the CPU, for what every request needs.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._timeout_seconds = settings.timeout_ms / 1000
        self._pool = ConnectionPool.from_url(
            settings.url.get_secret_value(),
            max_connections=settings.pool_size,
            socket_timeout=self._timeout_seconds,
            socket_connect_timeout=self._timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            protocol=3,
        )
        self.client: Redis = Redis(connection_pool=self._pool)
        # Kept apart from the pool, whose bookkeeping costs more than a script does.
        self._line: RedisLine | None = None
        self._connecting: asyncio.Task[RedisLine] | None = None
        self._shut_until = 0.0
        self._run: bytes | None = None
        self._same_since = math.inf

    @property
    def is_shut(self) -> bool:
        return time.monotonic() < self._shut_until

    @property
    def server_age_seconds(self) -> float:
        """Tell for how long, at least, what `evaluate` reaches has been one and the same server.

        One that was restarted, or stepped in for another, may have forgotten the last it was told.
        """
        return time.monotonic() - self._same_since

    async def call(self, operation: Callable[[Redis], Awaitable[T]]) -> T:
        """Run one operation.

        Raises:
            RedisUnavailableError: it failed or timed out, now or within the last second.
        """
        if self.is_shut:
            raise RedisUnavailableError
        try:
            return await operation(self.client)
        except OUTAGES as exc:
            self._shut_after(exc)
            raise RedisUnavailableError from exc

    async def evaluate(
        self, script: Script, *, keys: Sequence[str], args: Sequence[EncodableT]
    ) -> Any:
        """Run a script in one round trip (two where the server does not know it yet).

        Raises:
            RedisUnavailableError: as `call` does.
        """
        if self.is_shut:
            raise RedisUnavailableError
        tail = (len(keys), *keys, *args)
        try:
            try:
                return await self._exchange("EVALSHA", script.digest, *tail)
            except NoScriptError:
                return await self._exchange("EVAL", script.text, *tail)
        except OUTAGES as exc:
            self._shut_and_forget(exc)
            raise RedisUnavailableError from exc

    async def send(self, commands: Sequence[Command], *, seconds: float) -> list[object]:
        """Send commands in one round trip; one that the server refuses is answered by its error.

        Raises:
            RedisUnavailableError: as `call` does; some of them may have been run.
        """
        if self.is_shut:
            raise RedisUnavailableError
        try:
            line = await self._get_line()
            return await line.ask(commands, seconds=min(seconds, self._timeout_seconds))
        except OUTAGES as exc:
            self._shut_and_forget(exc)
            raise RedisUnavailableError from exc

    def _shut_and_forget(self, error: BaseException) -> None:
        self._shut_after(error)
        # Whoever waits there still may be answered yet.
        self._forget_line()

    def _shut_after(self, error: BaseException) -> None:
        """Refuse for a second; an error that is no outage goes on its way."""
        if isinstance(error, RuntimeError) and "closed" not in str(error):
            raise error
        self._shut_until = time.monotonic() + COOL_DOWN_SECONDS

    async def _exchange(self, *command: EncodableT) -> Any:
        line = await self._get_line()
        [answer] = await line.ask((command,), seconds=self._timeout_seconds)
        if isinstance(answer, RedisError):
            raise answer
        return answer

    async def _get_line(self) -> RedisLine:
        line = self._line
        if line is not None and line.is_open:
            return line
        if self._connecting is None:
            # It outlives the caller who happens to be the first.
            self._connecting = asyncio.create_task(self._connect(), context=Context())
            self._connecting.add_done_callback(self._take_line)
        return await asyncio.shield(self._connecting)

    def _take_line(self, connecting: "asyncio.Task[RedisLine]") -> None:
        self._connecting = None
        # Asked for in any case: whoever waited for it may have left.
        if not connecting.cancelled() and connecting.exception() is None:
            self._line = connecting.result()

    async def _connect(self) -> RedisLine:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # the library's own
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await connection.connect()  # type: ignore[no-untyped-call]  # likewise
                # Its own time limits would cost a task for each answer.
                connection.socket_timeout = None
                await self._meet(connection)
            return RedisLine(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    async def _meet(self, connection: AbstractConnection) -> None:
        """Ask a new connection's server who it is; a restart ends all connections before it."""
        met_at = time.monotonic()
        await connection.send_command("INFO", "server")
        try:
            told = await connection.read_response(timeout=math.inf)
        except ResponseError:
            # It may not tell us: then each connection is as good as another server.
            told = b""
        run, uptime = _RUN.search(told), _UPTIME.search(told)
        if run is None or uptime is None:
            self._run, self._same_since = None, met_at
        elif self._run is None:
            # Whole seconds, of which the first may have been short.
            self._run, self._same_since = run[1], met_at - max(int(uptime[1]) - 1, 0)
        elif self._run != run[1]:
            # Its uptime says nothing: a replica that steps in has been up for long.
            self._run, self._same_since = run[1], met_at

    def _forget_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.retire()

    async def close(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        self._forget_line()
        await self.client.aclose(close_connection_pool=True)
