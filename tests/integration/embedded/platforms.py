"""Real platforms on folders of their own, started as separate processes so that they can die."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil

from maas.embedded.folders import locate_data_folder
from maas.embedded.leftovers import find_spawned

DRIVER = str(Path(__file__).with_name("driver.py"))
SOURCE = Path(__file__).resolve().parents[3] / "src"
WAIT_SECONDS = 30.0
GRACE_SECONDS = 5.0


def wait_for(condition: Callable[[], object], *, what: str, seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"{what} did not happen within {seconds:.0f} s"
            raise AssertionError(message)
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return all that runs for a data folder, however it came to be there."""
    found = set(find_spawned(locate_data_folder(folder)))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid():
                found.add(process)
    return [each for each in found if runs(each)]


def _is_called(process: psutil.Process, role: str) -> bool:
    return any(Path(argument).name == role for argument in process.cmdline())


def runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for(lambda: not any(runs(each) for each in processes), what="the end of all processes")


@dataclass(slots=True, kw_only=True)
class Platform:
    """One `maas up`; its output goes to a file, as it would unattended."""

    folder: Path
    output_file: Path
    port: int
    popen: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)

    @property
    def output(self) -> str:
        return self.output_file.read_text(encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        content = self.folder.joinpath("environment.json").read_text(encoding="utf-8")
        environment: dict[str, str] = json.loads(content)
        return environment

    @property
    def has_ended(self) -> bool:
        return self.popen.poll() is not None

    def wait_for_output(self, text: str, *, seconds: float = WAIT_SECONDS) -> None:
        def is_there() -> bool:
            if text in self.output:
                return True
            if self.has_ended:
                message = f"it ended ({self.popen.returncode}) and never said {text!r}:\n"
                raise AssertionError(message + self.output)
            return False

        wait_for(is_there, what=f"{text!r} on the screen", seconds=seconds)

    def wait_until_up(self) -> None:
        self.wait_for_output("MaaS is up")

    def wait(self, *, seconds: float = WAIT_SECONDS) -> int:
        """Wait for its end, and return the exit code."""
        return self.popen.wait(seconds)

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(WAIT_SECONDS)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()

    def find_server(self, data: str) -> psutil.Process:
        """Return the main process whose data is that part of the folder."""
        inside = [each for each in processes_of(self.folder) if each.cwd().endswith(f"/{data}")]
        ids = {each.pid for each in inside}
        return next(each for each in inside if each.ppid() not in ids)

    def find_child(self, role: str) -> psutil.Process:
        children = psutil.Process(self.popen.pid).children()
        return next(each for each in children if _is_called(each, role))

    def is_gone(self) -> bool:
        return not processes_of(self.folder)

    async def connect(
        self, user: str, password: str, database: str = "maas"
    ) -> "asyncpg.Connection[asyncpg.Record]":
        host = str(self.folder / "run/postgres")
        return await asyncpg.connect(
            host=host, port=5432, user=user, password=password, database=database, timeout=5
        )

    @property
    def secrets(self) -> dict[str, str]:
        content = self.folder.joinpath("secrets.json").read_text(encoding="utf-8")
        values: dict[str, str] = json.loads(content)
        return values

    async def connect_as_superuser(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await self.connect("postgres", self.secrets["superuser_password"], "postgres")


def await_pool(platform: Platform, role: str = "worker") -> list[psutil.Process]:
    """Wait for a stand-in to tell which processes it has."""
    log = platform.folder / f"logs/{role}.log"
    wait_for(lambda: log.exists() and "pool" in log.read_text(), what="the worker's pool")
    ids: list[int] = json.loads(log.read_text())["pool"]
    return [psutil.Process(pid) for pid in ids]


class Launcher:
    """Starts platforms, and ends all they leave behind."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._platforms: list[Platform] = []

    def start(
        self,
        folder: Path,
        *,
        command: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        terminal: int | None = None,
        **wanted: object,
    ) -> Platform:
        port = port or free_port()
        request = json.dumps({"data_dir": str(folder), "port": port, **wanted})
        output_file = self._scratch / f"output-{len(self._platforms)}"
        with output_file.open("wb") as output:
            popen = subprocess.Popen(
                [*command, "-W", "error", DRIVER, request],
                stdout=output if terminal is None else terminal,
                stderr=output,
                env={
                    **os.environ,
                    "PYTHONPATH": str(SOURCE),
                    "TERM": "xterm-256color",
                    **(environment or {}),
                },
                start_new_session=True,
            )
        platform = Platform(folder=folder, output_file=output_file, port=port, popen=popen)
        self._platforms.append(platform)
        return platform

    def start_and_wait(self, folder: Path, **wanted: object) -> Platform:
        platform = self.start(folder, **wanted)  # type: ignore[arg-type]  # all are JSON values
        platform.wait_until_up()
        return platform

    def end_all(self) -> None:
        for platform in self._platforms:
            platform.popen.kill()
            platform.popen.wait(WAIT_SECONDS)
        # They end by themselves, and leave no shared memory behind; killed, they would.
        deadline = time.monotonic() + GRACE_SECONDS
        while not self._all_gone() and time.monotonic() < deadline:
            time.sleep(0.01)
        for platform in self._platforms:
            end_all(processes_of(platform.folder))

    def _all_gone(self) -> bool:
        return all(platform.is_gone() for platform in self._platforms)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a data folder with its owners, which `shutil` does not keep."""
    cp = shutil.which("cp") or "/bin/cp"
    subprocess.run([cp, "-a", "--reflink=auto", str(source), str(target)], check=True)
