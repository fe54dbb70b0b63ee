"""The platform's application, and beside it a task that notes how long the event loop is held up.

Time in which the thread was ready and the machine gave it no core is taken off: that is the noise
of a shared machine, and would be there with any program.
"""

import asyncio
import json
import os
import threading
import time

from starlette.types import ASGIApp, Receive, Scope, Send

from maas import main

PATH = "/bench/loop"
INTERVAL_SECONDS = 0.001


class LoopProbe:
    """Answers `PATH` with the longest hold-up so far, in milliseconds; passes on the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._longest_ns = 0
        self._watch: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._watch is None:
            self._watch = asyncio.create_task(self._look())
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._app(scope, receive, send)
            return
        body = json.dumps({"longest_ms": self._longest_ns / 1e6}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _look(self) -> None:
        schedule = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        while True:
            began, kept_waiting = time.perf_counter_ns(), _kept_waiting_ns(schedule)
            await asyncio.sleep(INTERVAL_SECONDS)
            took = time.perf_counter_ns() - began - int(INTERVAL_SECONDS * 1e9)
            took -= _kept_waiting_ns(schedule) - kept_waiting
            self._longest_ns = max(self._longest_ns, took)


def _kept_waiting_ns(schedule: int) -> int:
    """Read how long the thread has been ready to run and not been running."""
    return int(os.pread(schedule, 128, 0).split()[1])


def make_app() -> ASGIApp:
    """Build it from the environment, for `uvicorn --factory`."""
    return LoopProbe(main.make_app())
