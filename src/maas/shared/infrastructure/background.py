"""A coroutine that runs beside everything else: one thread, one event loop, until told to stop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any


class BackgroundLoop:
    """Runs what `main` makes, from `start` to `stop`; it is cancelled to end it.

    The thread is a daemon: what does not stop in time does not hold its process up.
    """

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], *, name: str) -> None:
        self._main = main
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        self._is_stopping = False
        self._thread = threading.Thread(target=self._turn, name=self._name, daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Cancel the work, and return at once."""
        with self._lock:
            self._is_stopping = True
            if self._loop is not None and self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)

    def stop(self, *, timeout_seconds: float = 2.0) -> None:
        """Cancel the work and wait for its end, so long at most."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _turn(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._run())

    async def _run(self) -> None:
        with self._lock:
            if self._is_stopping:
                return
            self._loop = asyncio.get_running_loop()
            self._task = asyncio.current_task()
        try:
            await self._main()
        finally:
            with self._lock:
                self._loop = self._task = None
