"""Processes of the cluster under test: started, killed, frozen, and looked after."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

import psutil

START_SECONDS = 60.0
LOOK_SECONDS = 0.02


class StartError(Exception):
    """A program of the cluster did not come up."""


@dataclass(kw_only=True)
class Program:
    """One program, in a session of its own, so that all it forked can be ended with it."""

    name: str
    command: Sequence[object]
    environment: Mapping[str, str]
    log: Path
    is_ready: Callable[[], bool] = lambda: True
    account: Mapping[str, object] = field(default_factory=dict)
    wanted: bool = False
    """Whether somebody sees to it that it runs; a fault that needs it gone says no."""

    starts: int = 0
    started_at: float = 0.0
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.is_running and self.process is not None else None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # type: ignore[call-overload]  # the account is one mapping
                [str(part) for part in self.command],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self.account,
            )
        self.starts += 1
        self.started_at = time.monotonic()
        self.wanted = True

    def start(self) -> None:
        """Start it and wait until it serves.

        Raises:
            StartError: it ended, or was not ready in time; the end of its log says why.
        """
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self, *, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not self.is_ready():
            if time.monotonic() > deadline or not (self.is_running or self.wanted):
                raise StartError(f"{self.name} is not ready: {self.tail()}")
            time.sleep(LOOK_SECONDS)

    def send(self, number: Signals) -> None:
        """Signal the program itself and nothing it forked."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)

    def send_to_all(self, number: Signals) -> None:
        """Signal the program and all it forked."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the program and all it forked."""
        self.send_to_all(SIGKILL)
        self.reap()

    def kill_a_child(self, index: int) -> bool:
        """SIGKILL one of its children; tell whether there was one."""
        if self.pid is None:
            return False
        with suppress(psutil.Error):
            children = psutil.Process(self.pid).children()
            if children:
                children[index % len(children)].kill()
                return True
        return False

    def stop(self, *, seconds: float = 15.0) -> float:
        """Ask it to end, as an init system does, and tell how long it took."""
        self.wanted = False
        began = time.monotonic()
        self.send(SIGTERM)
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        took = time.monotonic() - began
        self.kill()
        return took

    def reap(self, *, seconds: float = 10.0) -> None:
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)

    def tail(self) -> str:
        if not self.log.exists():
            return "(no output)"
        return self.log.read_text(encoding="utf-8", errors="replace")[-1500:]
