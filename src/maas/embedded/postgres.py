"""A private PostgreSQL: made on the first start, reached through a socket only."""

import contextlib
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maas.embedded import leftovers, processes, storage
from maas.embedded.accounts import ServerAccount
from maas.embedded.credentials import sync_folder
from maas.embedded.errors import DataFolderError
from maas.embedded.folders import DataFolder, make_folder
from maas.embedded.logs import LogFile
from maas.embedded.processes import Launch, Pulse, SpawnedProcess, calm
from maas.embedded.stopping import wait_until

SUPERUSER = "postgres"
PORT = 5432

_INITDB_SECONDS = 120.0
# Recovery after a crash replays what the last checkpoint left over, which may be a lot.
_READY_SECONDS = 600.0
_READY_LINE = 7
_MAX_PID_FILE_BYTES = 4096
# One flush of the disk, not one for each of a thousand files: seconds less on a busy disk.
_SYNC_METHOD = "syncfs" if sys.platform == "linux" else "fsync"

# Written into postgresql.conf when the cluster is made, so that an operator may change them.
_TUNABLES = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "password_encryption": "scram-sha-256",
    # Stretching protects weak passwords; these have 256 random bits, and a login is ten times
    # faster without it.
    "scram_iterations": "1",
    # The bundled server has no LLVM library.
    "jit": "off",
}
# Given on every start, because the promises of the platform rest on them.
_FIXED = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "logging_collector": "off",
}


@dataclass(slots=True, kw_only=True)
class PostgresServer:
    binaries: Path
    folder: DataFolder
    account: ServerAccount
    password: str
    name: str = "postgres"
    title: str = "PostgreSQL"
    _initdb: SpawnedProcess | None = None
    _initdb_log_offset: int = 0
    _server: SpawnedProcess | None = None

    @property
    def log(self) -> LogFile:
        return self.folder.log(self.name)

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    @property
    def is_new(self) -> bool:
        return not (self._data / "PG_VERSION").exists()

    @property
    def _data(self) -> Path:
        return self.folder.postgres

    @property
    def _draft(self) -> Path:
        return self._data.with_name("postgres.draft")

    @property
    def _password_file(self) -> Path:
        return self.folder.config / "postgres-password"

    def begin(self) -> None:
        """Let `initdb` run on the first start, without waiting for it.

        It works in a draft that becomes the data by being renamed: what an interrupted one left
        is never mistaken for a database.
        """
        if not self.is_new:
            self._check_data()
            return
        self._refuse_foreign_data()
        with storage.explained(self.folder.root):
            self._clear_draft()
            make_folder(self._draft, owner=self.account)
            self.account.write_readable(self._password_file, self.password)
        self._initdb_log_offset = self.log.size_bytes
        self._initdb = processes.spawn(self._launch(self._initdb_arguments(), self._draft))

    def start(self, pulse: Pulse) -> None:
        """Finish `initdb` if it runs, start the server and wait until it takes connections.

        Raises:
            EmbeddedError: it did not start; says why.
        """
        if self._initdb is not None:
            self._finish_initdb(self._initdb, pulse)
        self._clear_stale_files()
        offset = self.log.size_bytes
        server = processes.spawn(self._launch(self._server_arguments(), self._data))
        self._server = server
        wait_until(
            lambda: self._is_ready(server.pid) or server.has_ended(),
            seconds=_READY_SECONDS,
            pulse=pulse,
        )
        if server.has_ended() or not self._is_ready(server.pid):
            self.stop(seconds=1.0)
            raise self._failure("PostgreSQL", offset)

    @property
    def is_started(self) -> bool:
        return self._server is not None or self._initdb is not None

    def has_ended(self) -> bool:
        return self._server is None or self._server.has_ended()

    def reap(self) -> int:
        return self._server.reap() if self._server else 0

    def stop(self, *, seconds: float, is_hurried: Callable[[], bool] = calm) -> None:
        """Shut down fast but cleanly, then at once, then by force; each is safe for the data."""
        if self._initdb is not None:
            processes.wind_down([self._initdb], [(signal.SIGTERM, 1.0)])
            self._initdb.reap()
            self._initdb = None
            with contextlib.suppress(OSError):
                self._clear_draft()
        if self._server is not None:
            plan = [(signal.SIGINT, seconds), (signal.SIGQUIT, 1.0)]
            processes.wind_down([self._server], plan, is_hurried=is_hurried)
            self._server.reap()
            self._server = None

    def _check_data(self) -> None:
        owner = self._data.stat().st_uid
        if owner != self.account.uid:
            raise DataFolderError(
                f"The database in {self._data} belongs to the account {owner}, "
                f"but PostgreSQL would run as {self.account.uid}.",
                "Run `maas up` as the account that made it, or choose another folder: "
                "maas up --data-dir DIR (or MAAS_DATA_DIR).",
            )

    def _refuse_foreign_data(self) -> None:
        if self._data.exists() and any(self._data.iterdir()):
            raise DataFolderError(
                f"{self._data} is not empty, and no database either: PG_VERSION is missing.",
                "Move it away to begin anew, or put the database back from a backup.",
            )

    def _clear_draft(self) -> None:
        self._password_file.unlink(missing_ok=True)
        if self._draft.exists():
            shutil.rmtree(self._draft)

    def _finish_initdb(self, initdb: SpawnedProcess, pulse: Pulse) -> None:
        wait_until(initdb.has_ended, seconds=_INITDB_SECONDS, pulse=pulse)
        failed = not initdb.has_ended() or initdb.reap() != 0
        if failed:
            # Explained first: clearing the draft makes room, and the reason would be gone.
            failure = self._failure("initdb, which makes the database,", self._initdb_log_offset)
            self.stop(seconds=1.0)
            raise failure
        self._initdb = None
        with storage.explained(self.folder.root):
            self._password_file.unlink()
            self._draft.rename(self._data)
            sync_folder(self.folder.root)

    def _clear_stale_files(self) -> None:
        """Remove what a killed server left, once nobody works on the data any more.

        PostgreSQL clears most of it itself, but not when the id it wrote down has been given to
        an unrelated process.
        """
        pid_file = self._data / "postmaster.pid"
        if not pid_file.exists():
            return
        leftovers.stop_working_in(self._data)
        with storage.explained(self.folder.root):
            socket = self.folder.postgres_sockets / f".s.PGSQL.{PORT}"
            for path in (pid_file, socket, socket.with_name(socket.name + ".lock")):
                path.unlink(missing_ok=True)

    def _is_ready(self, pid: int) -> bool:
        lines = _read_pid_file(self._data / "postmaster.pid").splitlines()
        return (
            len(lines) > _READY_LINE
            and lines[0].strip() == str(pid)
            and lines[_READY_LINE].strip() == "ready"
        )

    def _failure(self, what: str, offset: int) -> Exception:
        return storage.start_failure(
            what, folder=self.folder.root, log=self.log, output=self.log.read_since(offset)
        )

    def _launch(self, arguments: list[str], working_folder: Path) -> Launch:
        return Launch(
            arguments=arguments,
            environment=processes.server_environment(self.folder.root),
            log=self.log,
            folder=working_folder,
            death_signal=signal.SIGINT,
            account=self.account,
        )

    def _initdb_arguments(self) -> list[str]:
        settings = [f"--set={name}={value}" for name, value in _TUNABLES.items()]
        return [
            str(self.binaries / "initdb"),
            f"--pgdata={self._draft}",
            f"--username={SUPERUSER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            f"--sync-method={_SYNC_METHOD}",
            *settings,
        ]

    def _server_arguments(self) -> list[str]:
        settings = [f"--{name}={value}" for name, value in _FIXED.items()]
        return [
            str(self.binaries / "postgres"),
            f"-D{self._data}",
            f"-k{self.folder.postgres_sockets}",
            f"-p{PORT}",
            *settings,
        ]


def _read_pid_file(path: Path) -> str:
    """Read it as what it should be: whoever runs as the server's account can put anything there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return ""
        return os.read(descriptor, _MAX_PID_FILE_BYTES).decode(errors="replace")
    finally:
        os.close(descriptor)
