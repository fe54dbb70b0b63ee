"""The event loop of Celery tasks: one thread per worker process, started when first needed."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

S = TypeVar("S")
R = TypeVar("R")

CLOSE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class _Running(Generic[S]):
    pid: int
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    services: S


class TaskLoop(Generic[S]):
    """Runs the async use cases of synchronous tasks on services that live as long as the process.

    Works in every pool: nothing is inherited over a fork, and threads share one loop. `build` is
    called inside the loop and must connect to nothing yet; `dispose` ends what it made.
    """

    def __init__(self, build: Callable[[], S], dispose: Callable[[S], Awaitable[None]]) -> None:
        self._build = build
        self._dispose = dispose
        self._lock = threading.Lock()
        self._running: _Running[S] | None = None

    def run(self, work: Callable[[S], Coroutine[Any, Any, R]], *, time_limit: timedelta) -> R:
        """Run one piece of work to its end, from any thread but the loop's own.

        Raises:
            TimeoutError: it took longer; the work is cancelled.
        """
        running = self._start()
        future = asyncio.run_coroutine_threadsafe(work(running.services), running.loop)
        try:
            return future.result(time_limit.total_seconds())
        except BaseException:
            # Also for Celery's soft time limit, which is raised right here: left alone, the
            # coroutine would run on with nobody waiting for it.
            future.cancel()
            raise

    def close(self) -> None:
        """End the services and the loop, if this process has any."""
        with self._lock:
            running, self._running = self._running, None
        if running is None or running.pid != os.getpid():
            return

        async def end() -> None:
            await self._dispose(running.services)

        try:
            asyncio.run_coroutine_threadsafe(end(), running.loop).result(CLOSE_SECONDS)
        finally:
            running.loop.call_soon_threadsafe(running.loop.stop)
            running.thread.join(CLOSE_SECONDS)

    def _start(self) -> _Running[S]:
        with self._lock:
            if self._running is None or self._running.pid != os.getpid():
                self._running = self._make()
            return self._running

    def _make(self) -> _Running[S]:
        loop = asyncio.new_event_loop()

        async def build() -> S:
            return self._build()

        def turn() -> None:
            loop.run_forever()
            loop.close()

        thread = threading.Thread(target=turn, name="maas-task-loop", daemon=True)
        thread.start()
        try:
            services = asyncio.run_coroutine_threadsafe(build(), loop).result(CLOSE_SECONDS)
        except BaseException:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSE_SECONDS)
            raise
        return _Running(os.getpid(), loop, thread, services)
