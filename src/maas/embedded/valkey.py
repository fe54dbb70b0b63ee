"""A private Valkey that confirms nothing before it is on the disk."""

import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maas.embedded import leftovers, processes, storage
from maas.embedded.accounts import ServerAccount
from maas.embedded.folders import DataFolder
from maas.embedded.logs import LogFile
from maas.embedded.processes import Launch, Pulse, SpawnedProcess, calm
from maas.embedded.stopping import wait_until

_READY_SECONDS = 120.0
_ANSWER_SECONDS = 1.0


@dataclass(slots=True, kw_only=True)
class ValkeyServer:
    binary: Path
    folder: DataFolder
    account: ServerAccount
    password: str
    name: str = "valkey"
    title: str = "Valkey"
    _server: SpawnedProcess | None = None

    @property
    def log(self) -> LogFile:
        return self.folder.log(self.name)

    @property
    def socket_path(self) -> Path:
        return self.folder.valkey_sockets / "s"

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def start(self, pulse: Pulse) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedError: it did not start; says why.
        """
        if self.socket_path.exists():
            leftovers.stop_working_in(self.folder.valkey)
        with storage.explained(self.folder.root):
            config = self._write_config()
        offset = self.log.size_bytes
        server = processes.spawn(
            Launch(
                arguments=[str(self.binary), str(config)],
                environment=processes.server_environment(self.folder.root),
                log=self.log,
                folder=self.folder.valkey,
                account=self.account,
            )
        )
        self._server = server
        wait_until(
            lambda: server.has_ended() or self._answers(), seconds=_READY_SECONDS, pulse=pulse
        )
        if server.has_ended() or not self._answers():
            self.stop(seconds=1.0)
            output = self.log.read_since(offset)
            raise storage.start_failure(
                "Valkey", folder=self.folder.root, log=self.log, output=output
            )

    @property
    def is_started(self) -> bool:
        return self._server is not None

    def has_ended(self) -> bool:
        return self._server is None or self._server.has_ended()

    def reap(self) -> int:
        return self._server.reap() if self._server else 0

    def stop(self, *, seconds: float, is_hurried: Callable[[], bool] = calm) -> None:
        if self._server is not None:
            plan = [(signal.SIGTERM, seconds)]
            processes.wind_down([self._server], plan, is_hurried=is_hurried)
            self._server.reap()
            self._server = None

    def _answers(self) -> bool:
        """Tell whether it lets us in and has loaded its data."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_ANSWER_SECONDS)
                connection.connect(str(self.socket_path))
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:  # noqa: PLR2004  one line for each command
                    received = connection.recv(256)
                    if not received:
                        return False
                    answer += received
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"

    def _write_config(self) -> Path:
        path = self.folder.config / "valkey.conf"
        settings = {
            # While it is down, anybody could listen on its port and be told the password.
            "port": "0",
            "unixsocket": _quoted(self.socket_path),
            "unixsocketperm": "700",
            "dir": _quoted(self.folder.valkey),
            "requirepass": self.password,
            "daemonize": "no",
            "logfile": '""',
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "set-proc-title": "no",
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        self.account.write_readable(path, text)
        return path


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
