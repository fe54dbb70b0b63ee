"""Asks a process again and again whether it lives, on a connection of its own each time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx

PAUSE_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 10.0


@dataclass(slots=True)
class Lives:
    """Milliseconds of each answer; no answer counts as infinitely many."""

    milliseconds: list[float] = field(default_factory=list)


@contextmanager
def watch_liveness(url: str) -> Iterator[Lives]:
    lives, is_over = Lives(), threading.Event()

    def watch() -> None:
        while not is_over.wait(PAUSE_SECONDS):
            began = time.perf_counter()
            try:
                answer = httpx.get(
                    f"{url}/health/live", timeout=PATIENCE_SECONDS, trust_env=False
                ).is_success
            except httpx.HTTPError:
                answer = False
            took = (time.perf_counter() - began) * 1000
            lives.milliseconds.append(took if answer else float("inf"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lives
    finally:
        is_over.set()
        thread.join(PATIENCE_SECONDS)
