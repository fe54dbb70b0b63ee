"""Asks a process again and again whether it lives, on a connection of its own each time."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

PAUSE_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 10.0


@dataclass(slots=True)
class Lives:
    """Milliseconds of each answer; no answer counts as infinitely many."""

    milliseconds: list[float] = field(default_factory=list)


@contextmanager
def watch_liveness(url: str) -> Iterator[Lives]:
    lives, is_over = Lives(), threading.Event()
    port = int(url.rpartition(":")[2])

    def watch() -> None:
        while not is_over.wait(PAUSE_SECONDS):
            began = time.perf_counter()
            answer = _is_live(port)
            took = (time.perf_counter() - began) * 1000
            lives.milliseconds.append(took if answer else float("inf"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lives
    finally:
        is_over.set()
        thread.join(PATIENCE_SECONDS)


def _is_live(port: int) -> bool:
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)) as asking,
    ):
        asking.request("GET", "/health/live")
        return asking.getresponse().status == http.client.OK
    return False
