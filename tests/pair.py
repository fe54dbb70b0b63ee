"""Two API processes on one PostgreSQL and one Valkey, with a link of each to Valkey that can fail.

The PostgreSQL is somebody else's, told by its URLs. The Valkey is our own and keeps its data as the
one of `maas up` does: nothing is confirmed before it is on the disk.
"""

import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from os import environ
from pathlib import Path

import httpx

from maas.embedded.locator import find_valkey_binary
from tests.fault_proxy import FaultProxy

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
LOOK_SECONDS = 0.02
ADMIN = "root"
CHEAP_HASHING = {"MAAS_AUTH__ARGON2_MEMORY_KIB": "64", "MAAS_AUTH__ARGON2_TIME_COST": "1"}
WIDE_LIMITS = {
    "MAAS_RATE_LIMITS__UNAUTHENTICATED_PER_MINUTE": "1000000",
    "MAAS_RATE_LIMITS__REGISTRATIONS_PER_HOUR": "1000000",
    "MAAS_RATE_LIMITS__REQUESTS_PER_MINUTE": "1000000",
}
"""Requests are counted as anywhere else, and nobody is held up by it."""

WITHOUT_LIMITS = {**CHEAP_HASHING, "MAAS_AUTH__LOGIN_THROTTLE": "false"}
"""For clients that sign in all the time, and now and then wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrls:
    app: str
    owner: str
    system: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """One API process; `link` is its way to Valkey and nobody else's."""

    name: str
    url: str
    link: FaultProxy


class OwnValkey:
    """A Valkey that can be killed, and started again on what it kept or on what it kept before."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._old = folder / "valkey", folder / "valkey-old"
        self._folder.mkdir()
        self._config = folder / "valkey.conf"
        self.password = secrets.token_urlsafe(16)
        self.socket = self._folder / "s"
        self._config.write_text(
            f"port 0\nunixsocket {self.socket}\nunixsocketperm 700\ndir {self._folder}\n"
            f"requirepass {self.password}\nappendonly yes\nappendfsync always\nsave ''\n"
            f"maxmemory-policy noeviction\nlogfile {folder}/valkey.log\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://:{self.password}@{self.socket}?db=0"

    def start(self) -> None:
        command = [str(find_valkey_binary()), str(self._config)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        _wait_until(self._answers, "Valkey")

    def kill(self) -> None:
        """End it with -9, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def keep_copy(self) -> None:
        """Copy what is on the disk now, to be started on later."""
        shutil.rmtree(self._old, ignore_errors=True)
        shutil.copytree(self._folder / "appendonlydir", self._old)

    def put_copy_back(self) -> None:
        """Forget what was written since the copy; only while it does not run."""
        assert self._process is None
        shutil.rmtree(self._folder / "appendonlydir")
        shutil.copytree(self._old, self._folder / "appendonlydir")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            answer = connection.recv(64)
            while answer.count(b"\r\n") < 2 and (more := connection.recv(64)):
                answer += more
            return answer == b"+OK\r\n+PONG\r\n"
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Everything that runs; `password` is that of the administrator of it all."""

    apis: tuple[Api, Api]
    valkey: OwnValkey
    password: str
    database: DatabaseUrls
    processes: Mapping[str, "subprocess.Popen[bytes]"]
    folder: Path

    def dead(self) -> list[str]:
        """Name the processes that have ended though nobody ended them."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def log_tail(self, name: str) -> str:
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return text.strip()[-600:]


@contextmanager
def running_pair(
    database: DatabaseUrls, settings: Mapping[str, str], *, with_worker: bool = False
) -> Iterator[Pair]:
    """Run two API processes until the block ends, and a worker with its clock if asked for.

    `settings` are more variables for all of them.
    """
    folder = Path(tempfile.mkdtemp(prefix="maas-pair-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        valkey = OwnValkey(folder)
        stack.callback(valkey.kill)
        valkey.start()
        environment = _environment(database, valkey, folder, settings)
        password = secrets.token_urlsafe(24)
        processes: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(_stop, processes)
        apis = []
        for name in ("one", "other"):
            link = stack.enter_context(FaultProxy(valkey.socket))
            port = _free_port()
            redis = f"redis://:{valkey.password}@127.0.0.1:{link.port}/0"
            own = {"MAAS_REDIS__URL": redis, "MAAS_DATA_DIR": str(folder / name)}
            processes[name] = _spawn(
                ["serve", "--port", str(port)], {**environment, **own}, folder / f"{name}.log"
            )
            apis.append(Api(name=name, url=f"http://127.0.0.1:{port}", link=link))
        if with_worker:
            for name, words in {
                "worker": ["worker", "--concurrency", "1"],
                "beat": ["beat"],
            }.items():
                processes[name] = _spawn(words, environment, folder / f"{name}.log")
        _make_admin(environment, password)
        pair = Pair(
            apis=(apis[0], apis[1]),
            valkey=valkey,
            password=password,
            database=database,
            processes=processes,
            folder=folder,
        )
        _wait_until(lambda: all(_is_ready(api.url, pair) for api in apis), "the APIs")
        yield pair


def _environment(
    database: DatabaseUrls, valkey: OwnValkey, folder: Path, settings: Mapping[str, str]
) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not re.match("MAAS_", name)}
    return {
        **kept,
        "MAAS_ENVIRONMENT": "test",
        "MAAS_SECRET_KEY": secrets.token_urlsafe(48),
        "MAAS_LOG_LEVEL": "WARNING",
        "MAAS_DATABASE__URL": database.app,
        "MAAS_DATABASE__OWNER_URL": database.owner,
        "MAAS_DATABASE__SYSTEM_URL": database.system,
        "MAAS_REDIS__URL": valkey.url,
        "MAAS_REDIS__BROKER_URL": valkey.url,
        "MAAS_DATA_DIR": str(folder / "data"),
        **WIDE_LIMITS,
        **settings,
    }


def _spawn(
    words: Sequence[str], environment: Mapping[str, str], log: Path
) -> "subprocess.Popen[bytes]":
    Path(environment["MAAS_DATA_DIR"]).mkdir(exist_ok=True)
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "maas.cli", *words],
            env=dict(environment),
            # Away from a checkout whose `.env` would be read.
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _make_admin(environment: Mapping[str, str], password: str) -> None:
    Path(environment["MAAS_DATA_DIR"]).mkdir(exist_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-P", "-m", "maas.cli", "admin", "create"),
            *("--username", ADMIN, "--email", f"{ADMIN}@example.com", "--password-stdin"),
        ],
        input=password.encode(),
        env=dict(environment),
        cwd=environment["MAAS_DATA_DIR"],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _stop(processes: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes.values():
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(url: str, pair: Pair) -> bool:
    for name in pair.dead():
        message = f"{name} ended: {pair.log_tail(name)}"
        raise RuntimeError(message)
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health/ready", timeout=2, trust_env=False).is_success
    return False


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            message = f"{what} was not ready after {READY_SECONDS:.0f} s"
            raise RuntimeError(message)
        time.sleep(LOOK_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
