"""`maas up`: private servers and the platform on them, from one process to one screen."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from maas.embedded import address, leftovers
from maas.embedded.accounts import get_server_account
from maas.embedded.children import Child, ChildCommand, default_children, stop_together
from maas.embedded.credentials import open_credentials
from maas.embedded.endpoints import Endpoints
from maas.embedded.errors import EmbeddedError, ServerStartError
from maas.embedded.folders import DataFolder, open_data_folder
from maas.embedded.guard import Guard
from maas.embedded.lock import FolderLock, Holder
from maas.embedded.screen import Screen
from maas.embedded.servers import find_servers
from maas.embedded.signing_key import ensure_audit_key, ensure_signing_key
from maas.embedded.stopping import StopRequested, StopSignals
from maas.embedded.supervisor import Supervisor

# With the servers' own limits, together at most ten seconds: what a container is given before it is
# killed.
_CHILDREN_STOP_SECONDS = 6.5

_READY_SECONDS = 90.0
_LOOK_SECONDS = 0.05
_MAX_API_FAILURES = 3
_PREPARE_STEP = "Migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    data_dir: Path
    host: str
    port: int
    start_postgres: bool
    start_valkey: bool
    make_signing_key: bool = False
    make_audit_key: bool = False
    api_workers: int = 1
    worker_concurrency: int = 2
    runtime_port: int | None = None
    """Where the runtime of own weights listens; none: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the migration did; a password is shown once and kept nowhere."""

    one_time_password: str | None = None
    admin_username: str | None = None
    notes: list[str] = field(default_factory=list)


Prepare = Callable[[Mapping[str, str]], Prepared]


def run_platform(
    options: UpOptions,
    *,
    prepare: Prepare,
    commands: Sequence[ChildCommand] | None = None,
) -> int:
    """Run the platform until a signal ends it, and return the exit code.

    `prepare` gets the settings once the servers run, while what answers requests loads. What it
    raises passes through, after everything that was started has been stopped.
    """
    screen = Screen()
    with StopSignals() as signals:
        try:
            with ExitStack() as stack:
                platform = _Platform(options, screen=screen, signals=signals)
                wanted = _default_commands(options) if commands is None else commands
                platform.start(stack, prepare, wanted)
                platform.watch()
        except EmbeddedError as exc:
            screen.fail(exc)
            return exc.exit_code
        except StopRequested:
            return signals.exit_code
        finally:
            screen.close()
    return 0


def _default_commands(options: UpOptions) -> Sequence[ChildCommand]:
    return default_children(
        host=options.host,
        port=options.port,
        api_workers=options.api_workers,
        worker_concurrency=options.worker_concurrency,
        runtime_port=options.runtime_port,
    )


class _Platform:
    """One run, from taking the data folder to leaving it."""

    def __init__(self, options: UpOptions, *, screen: Screen, signals: StopSignals) -> None:
        self._options = options
        self._screen = screen
        self._signals = signals
        self._url = address.url_of(options.host, options.port)
        self._supervisor = Supervisor(screen=screen, pulse=self._pulse)
        self._began_at = time.monotonic()
        self._account = get_server_account()
        self._prepared: Prepared | None = None

    def start(self, stack: ExitStack, prepare: Prepare, commands: Sequence[ChildCommand]) -> None:
        """Start everything; the stack stops in reverse what was started."""
        folder = open_data_folder(self._options.data_dir, self._account)
        lock = stack.enter_context(FolderLock(folder.lock_file))
        stack.callback(folder.tidy)
        lock.tell(Holder(pid=os.getpid(), url=self._url))
        if lock.was_left_behind:
            self._clear_leftovers(folder)
        address.check_free(self._options.host, self._options.port)
        endpoints = self._start_servers(stack, folder)
        lock.tell(
            Holder(
                pid=os.getpid(),
                url=self._url,
                has_postgres=endpoints.has_postgres,
                has_valkey=endpoints.has_valkey,
            )
        )
        # Registered before it is known: a start that fails later must still show the password.
        stack.callback(self._show_admin)
        settings = self._settings_of(endpoints)
        children = self._plan_children(stack, folder, {**os.environ, **settings}, commands)
        # What answers requests goes first, and loads while the migrations run: it is not ready
        # before they are done. The others would only take its time to start.
        serving = [child for child in children if child.command.answers_http]
        for child in serving:
            self._start_child(child)
        self._prepare(settings, prepare)
        for child in serving:
            self._await_ready(child)
        for child in children:
            if child not in serving:
                self._start_child(child)
        self._show_panel(endpoints)

    def watch(self) -> None:
        """Keep everything running until a stop is asked for."""
        # A server being started again just now breaks off its start.
        with suppress(StopRequested):
            while not self._signals.is_requested:
                self._supervisor.look_after_all()
                time.sleep(_LOOK_SECONDS)

    def _pulse(self) -> None:
        self._screen.tick()
        self._signals.pulse()

    def _clear_leftovers(self, folder: DataFolder) -> None:
        count = sum(
            (
                leftovers.stop_spawned(folder),
                leftovers.stop_working_in(folder.valkey),
                leftovers.stop_working_in(folder.postgres),
            )
        )
        if count:
            self._screen.say(f"Stopped {count} processes that an earlier run had left.")

    def _start_servers(self, stack: ExitStack, folder: DataFolder) -> Endpoints:
        may_generate = not folder.postgres.exists()
        opened = open_credentials(folder.secrets_file, may_generate=may_generate)
        if opened.was_exposed:
            self._screen.warn(
                f"Others could read {folder.secrets_file}. It is closed now (mode 0600), "
                f"but its secrets may be known."
            )
        if self._options.make_signing_key and ensure_signing_key(folder.signing_key_file):
            self._warn_of_known_key(folder.signing_key_file)
        if self._options.make_audit_key and ensure_audit_key(folder.audit_key_file):
            self._warn_of_known_key(folder.audit_key_file)
        servers = find_servers(
            folder,
            account=self._account,
            credentials=opened.credentials,
            with_postgres=self._options.start_postgres,
            with_valkey=self._options.start_valkey,
        )
        stack.callback(servers.stop, screen=self._screen, signals=self._signals)
        servers.start(screen=self._screen, pulse=self._pulse)
        for server in (servers.postgres, servers.valkey):
            if server:
                self._supervisor.watch(server)
        return Endpoints(
            folder=folder,
            credentials=opened.credentials,
            has_postgres=servers.postgres is not None,
            has_valkey=servers.valkey is not None,
            has_signing_key=self._options.make_signing_key,
            has_audit_key=self._options.make_audit_key,
        )

    def _warn_of_known_key(self, path: Path) -> None:
        self._screen.warn(
            f"Others could read {path}. It is closed now (mode 0600), "
            f"but the key may be known: to have a new one, move the file away."
        )

    def _settings_of(self, endpoints: Endpoints) -> dict[str, str]:
        settings = endpoints.environment()
        if "MAAS_SECRET_KEY" in os.environ:
            # The operator's own key counts: tokens signed elsewhere with it stay good.
            del settings["MAAS_SECRET_KEY"]
        if self._options.runtime_port is not None:
            settings["MAAS_RUNTIME__URL"] = f"http://127.0.0.1:{self._options.runtime_port}"
        return settings

    def _prepare(self, settings: Mapping[str, str], prepare: Prepare) -> None:
        self._screen.begin(_PREPARE_STEP)
        with self._screen.animated(), self._signals.interrupting():
            prepared = prepare(settings)
            self._prepared = prepared
        self._screen.done(_PREPARE_STEP)
        for note in prepared.notes:
            self._screen.say(note)

    def _plan_children(
        self,
        stack: ExitStack,
        folder: DataFolder,
        environment: Mapping[str, str],
        commands: Sequence[ChildCommand],
    ) -> list[Child]:
        guard = stack.enter_context(Guard())
        children = [
            Child(command=command, environment=environment, folder=folder, guard=guard)
            for command in commands
        ]
        stack.callback(self._stop_children, children)
        return children

    def _start_child(self, child: Child) -> None:
        child.log.rotate()
        child.start(self._pulse)
        self._supervisor.watch(child)

    def _await_ready(self, child: Child) -> None:
        self._screen.begin(child.title)
        deadline = time.monotonic() + _READY_SECONDS
        while not address.is_ready(self._options.host, self._options.port):
            self._supervisor.look_after_all()
            failures = self._supervisor.failures(child)
            if failures >= _MAX_API_FAILURES or time.monotonic() > deadline:
                raise ServerStartError(
                    f"{child.title} did not become ready"
                    + (f"; it ended {failures} times." if failures else "."),
                    f"The reason is in its log: {child.log.path}",
                )
            self._pulse()
        self._screen.done(child.title)

    def _stop_children(self, children: Sequence[Child]) -> None:
        titles = ", ".join(child.title for child in children if child.is_started)
        if titles:
            step = f"Stopping {titles}"
            self._screen.begin(step)
            stop_together(
                children,
                seconds=_CHILDREN_STOP_SECONDS,
                is_hurried=lambda: self._signals.is_hurried,
            )
            self._screen.done(step)

    def _show_panel(self, endpoints: Endpoints) -> None:
        folder = endpoints.folder
        rows = {"API": self._url, "Docs": f"{self._url}/docs", "Data": str(folder.root)}
        if endpoints.has_postgres:
            rows["PostgreSQL"] = f"socket in {folder.postgres_sockets}"
        if endpoints.has_valkey:
            rows["Valkey"] = f"socket in {folder.valkey_sockets}"
        rows["Logs"] = str(folder.root / "logs")
        rows |= self._take_admin_rows()
        seconds = time.monotonic() - self._began_at
        self._screen.show_panel(f"MaaS is up after {seconds:.1f} s", rows)

    def _show_admin(self) -> None:
        rows = self._take_admin_rows()
        if rows:
            self._screen.show_panel("The first administrator was made", rows)

    def _take_admin_rows(self) -> dict[str, str]:
        """Return what the first sign-in needs, the first time it is asked for."""
        prepared, self._prepared = self._prepared, None
        if prepared is None or prepared.one_time_password is None:
            return {}
        return {
            "Administrator": prepared.admin_username or "",
            "One-time password": f"{prepared.one_time_password}  (shown only now)",
        }
