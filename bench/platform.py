"""A platform of its own for a benchmark: `maas up` on a fresh folder and a free port."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

READY_SECONDS = 60
USERNAME = "bench"
WIDE_LIMITS = {
    "MAAS_RATE_LIMITS__UNAUTHENTICATED_PER_MINUTE": "1000000",
    "MAAS_RATE_LIMITS__REQUESTS_PER_MINUTE": "1000000",
}
"""Requests are counted, as in production, and none is held up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPlatform:
    """A platform that answers; `process` is its supervisor."""

    url: str
    port: int
    data_dir: Path
    process: subprocess.Popen[bytes]
    ready_after_seconds: float

    def api_process(self) -> psutil.Process:
        """Find the process that serves requests."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(child for child in children if "serve" in child.cmdline())

    def sign_in(self) -> str:
        """Make an administrator and return an access token."""
        password = secrets.token_urlsafe(24)
        name = f"{USERNAME}-{secrets.token_hex(4)}"
        subprocess.run(
            [
                sys.executable, "-m", "maas.cli", "admin", "create", "--username", name,
                "--email", f"{name}@example.com", "--password-stdin",
            ],
            input=password.encode(), env=environment(self.data_dir), check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        answer = httpx.post(
            f"{self.url}/api/v1/auth/login", json={"username": name, "password": password}
        )
        return str(answer.raise_for_status().json()["access_token"])


def cpu_ms_of(supervisor: psutil.Process) -> float:
    """Add up what the processes below used: a busy machine leaves that alone."""
    total = 0.0
    for child in supervisor.children(recursive=True):
        # PostgreSQL's own helpers come and go.
        with suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            total += times.user + times.system
    return total * 1000


def spent_ms(root: psutil.Process) -> float:
    """Add up what a process and all below it used, those that ended included."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total * 1000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data_dir: Path) -> dict[str, str]:
    """Take this environment without settings of somebody's own platform."""
    kept = {name: value for name, value in os.environ.items() if not re.match("MAAS_", name)}
    own = {"MAAS_DATA_DIR": str(data_dir), "MAAS_LOG_LEVEL": "WARNING"}
    return {**kept, **own, **WIDE_LIMITS}


@contextmanager
def run_platform(
    data_dir: Path, *options: str, cwd: Path | None = None, **settings: str
) -> Iterator[RunningPlatform]:
    """Run `maas up` on this folder, with these options and variables, until the block ends."""
    port = free_port()
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "maas.cli", "up", "--port", str(port), *options],
        env={**environment(data_dir), **settings}, cwd=cwd,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_answering(f"{url}/health/ready", process)
        yield RunningPlatform(
            url=url, port=port, data_dir=data_dir, process=process,
            ready_after_seconds=time.monotonic() - began,
        )  # fmt: skip
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_until_answering(
    url: str, process: subprocess.Popen[bytes], *, seconds: float = READY_SECONDS
) -> None:
    """Wait for a 200, as long as the process lives."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            message = f"the server ended with code {process.returncode}"
            raise RuntimeError(message)
        try:
            if httpx.get(url, timeout=1).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            time.sleep(0.02)
    message = "the server was not ready in time"
    raise RuntimeError(message)


@contextmanager
def run_bare() -> Iterator[tuple[int, psutil.Process]]:
    """Serve the bare route as the platform is served: same loop, same parser, no access log."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "uvicorn", "bench.bare:app", "--port", str(port), "--loop",
            "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
        ],
        cwd=Path(__file__).resolve().parent.parent,
    )  # fmt: skip
    try:
        wait_until_answering(f"http://127.0.0.1:{port}/bare", process)
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
