"""A platform of its own for each check: the real `maas up`, on a fresh folder and a free port."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import httpx
import psutil

from maas.embedded.endpoints import find_running
from maas.embedded.folders import locate_data_folder
from maas.embedded.leftovers import find_spawned
from tests.pair import WIDE_LIMITS

READY_SECONDS = 90.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 0.02
PANEL_SECONDS = 20.0

Role: TypeAlias = Literal["serve", "worker", "beat", "valkey-server", "postgres"]


class PlatformError(Exception):
    """The platform under test did not do what a check needs before it can begin."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def clean_environment(**settings: str) -> dict[str, str]:
    """Take this environment without anybody's settings, and with these; limits are wide."""
    kept = {
        name: value for name, value in os.environ.items() if not re.match("MAAS_|MAKE|MFLAGS", name)
    }
    return kept | WIDE_LIMITS | settings


@dataclass(slots=True, kw_only=True)
class Platform:
    process: subprocess.Popen[bytes]
    data_dir: Path
    url: str
    output: Path
    given: Mapping[str, str]
    ready_seconds: float = 0.0

    def wait_until_ready(self, *, seconds: float = READY_SECONDS) -> float:
        """Wait for `/health/ready` to say 200, and tell for how long."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if self.process.poll() is not None:
                message = f"it ended with {self.process.returncode}: {self.tail()}"
                raise PlatformError(message)
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health/ready", timeout=2, trust_env=False).is_success:
                    return time.monotonic() - began
            time.sleep(LOOK_SECONDS)
        message = f"not ready after {seconds:.0f} s: {self.tail()}"
        raise PlatformError(message)

    def one_time_password(self) -> str:
        """Read the first administrator's password off the panel, which comes once all is up."""
        deadline = time.monotonic() + PANEL_SECONDS
        while time.monotonic() < deadline:
            output = self.output.read_text(encoding="utf-8", errors="replace")
            if found := re.search(r"One-time password: (\S+)", output):
                return found[1]
            time.sleep(LOOK_SECONDS)
        message = f"no one-time password was shown: {self.tail()}"
        raise PlatformError(message)

    def tail(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace").strip()[-600:]

    def processes(self) -> list[psutil.Process]:
        """List everything that runs for the data folder, wherever it hangs by now."""
        found = set(find_spawned(locate_data_folder(self.data_dir)))
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if Path(process.cwd()).is_relative_to(self.data_dir):
                    found.add(process)
        return [each for each in found if _is_alive(each)]

    def of_role(self, role: Role) -> list[psutil.Process]:
        """List the processes of one kind, the oldest first."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                is_server = process.name() == role and process.ppid() == self.process.pid
                if is_server or role in process.cmdline():
                    found.append(process)
        return sorted(found, key=psutil.Process.create_time)

    def kill(self, role: Role) -> bool:
        """Kill all processes of a kind with -9; tell whether there were any."""
        victims = self.of_role(role)
        for victim in victims:
            with suppress(psutil.Error):
                victim.kill()
        return bool(victims)

    def environment_of(self, role: Role) -> dict[str, str]:
        """Tell what a process was started with."""
        with suppress(psutil.AccessDenied):
            return dict(self.of_role(role)[0].environ())
        # It hides that from all but root; it is what was given, and what the folder lends.
        running = find_running(self.data_dir)
        return {**(running.environment() if running else {}), **self.given}

    def stop(self) -> float:
        """Stop it as Ctrl-C or an init system would, and tell how long that took."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(STOP_SECONDS)
        return time.monotonic() - began

    def sign_in(self) -> "Person":
        """Make an administrator as an operator would, and sign in."""
        name, password = f"person-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "maas.cli", "admin", "create"),
                *("--username", name, "--email", f"{name}@example.com", "--password-stdin"),
            ],
            input=password,
            env=clean_environment(MAAS_DATA_DIR=str(self.data_dir)),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            message = f"no administrator could be made: {done.stderr}"
            raise PlatformError(message)
        answer = httpx.post(
            f"{self.url}/api/v1/auth/login",
            json={"username": name, "password": password},
            trust_env=False,
        )
        token = answer.raise_for_status().json()["access_token"]
        return Person(url=self.url, name=name, token=token)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody signed in."""

    url: str
    name: str
    token: str

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(
            base_url=self.url, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield client


@contextmanager
def running(
    folder: Path,
    *,
    command: Sequence[str] = (sys.executable, "-m", "maas.cli", "up"),
    environment: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    identity: Mapping[str, int | list[int]] | None = None,
    cwd: Path | None = None,
) -> Iterator[Platform]:
    """Run a platform on `folder/data` until the block ends, and be sure that it has ended."""
    port = free_port()
    data_dir, output = folder / "data", folder / "output.txt"
    variables = {
        **(clean_environment() if environment is None else environment),
        "MAAS_PORT": str(port),
        "MAAS_DATA_DIR": str(data_dir),
        **(settings or {}),
    }
    with output.open("wb") as stream:
        began = time.monotonic()
        process = subprocess.Popen(  # type: ignore[call-overload]  # the identity is one mapping
            list(command),
            env=variables,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **(identity or {}),
        )
    platform = Platform(
        process=process,
        data_dir=data_dir,
        url=f"http://127.0.0.1:{port}",
        output=output,
        given=variables,
    )
    try:
        platform.wait_until_ready()
        platform.ready_seconds = time.monotonic() - began
        yield platform
    finally:
        with suppress(subprocess.TimeoutExpired):
            platform.stop()
        for left in platform.processes():
            with suppress(psutil.Error):
                left.kill()
        if process.poll() is None:
            process.kill()
            process.wait()
