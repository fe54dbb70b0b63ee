"""The processes of the platform itself, run beside the servers."""

import contextlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maas.embedded import processes, sessions
from maas.embedded.folders import DataFolder
from maas.embedded.guard import Guard
from maas.embedded.logs import LogFile
from maas.embedded.processes import FOLDER_MARK, Launch, Pulse, SpawnedProcess, calm

_INTERPRETER = {
    # The last words of a child that crashes must reach its log.
    "PYTHONUNBUFFERED": "1",
    # Children run in the folder of whoever started us; modules lying there are none of ours. The
    # variable reaches what they spawn in turn.
    "PYTHONSAFEPATH": "1",
    # Each of glibc's arenas keeps what its threads once had: 11 MiB more where files go to S3.
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCommand:
    """A program to keep running; `answers_http` says that the API is reached through it."""

    name: str
    title: str
    arguments: Sequence[str]
    answers_http: bool = False


def default_children(
    *,
    host: str,
    port: int,
    api_workers: int,
    worker_concurrency: int,
    runtime_port: int | None = None,
) -> list[ChildCommand]:
    maas = (sys.executable, "-P", "-m", "maas.cli")
    serve = ("serve", "--host", host, "--port", str(port), "--workers", str(api_workers))
    children = [
        ChildCommand(name="api", title="API", arguments=(*maas, *serve), answers_http=True),
        ChildCommand(
            name="worker",
            title="Worker",
            arguments=(*maas, "worker", "--concurrency", str(worker_concurrency)),
        ),
        ChildCommand(name="beat", title="Scheduler", arguments=(*maas, "beat")),
    ]
    if runtime_port is not None:
        arguments = (*maas, "runtime", "--port", str(runtime_port))
        children.append(ChildCommand(name="runtime", title="Runtime", arguments=arguments))
    return children


@dataclass(slots=True, kw_only=True)
class Child:
    command: ChildCommand
    environment: Mapping[str, str]
    folder: DataFolder
    guard: Guard
    process: SpawnedProcess | None = None

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def title(self) -> str:
        return self.command.title

    @property
    def log(self) -> LogFile:
        return self.folder.log(self.name)

    def start(self, _pulse: Pulse) -> None:
        launch = Launch(
            arguments=self.command.arguments,
            environment={**self.environment, **_INTERPRETER, FOLDER_MARK: str(self.folder.root)},
            log=self.log,
            folder=Path.cwd(),
        )
        self.process = processes.spawn(launch)
        self.guard.watch(self.process.pid)
        sessions.note(self.folder.session_note(self.name), self.process.pid)

    @property
    def is_started(self) -> bool:
        return self.process is not None

    def has_ended(self) -> bool:
        return self.process is None or self.process.has_ended()

    def reap(self) -> int:
        """Collect an ended child, and kill what it left in its process group."""
        if self.process is None:
            return 0
        self.guard.forget(self.process.pid)
        exit_code = self.process.reap()
        with contextlib.suppress(OSError):
            self.folder.session_note(self.name).unlink()
        return exit_code


def stop_together(
    children: Sequence[Child], *, seconds: float, is_hurried: Callable[[], bool] = calm
) -> None:
    """Ask all children to stop at the same time; kill those that have not after `seconds`."""
    running = [child.process for child in children if child.process is not None]
    processes.wind_down(running, [(signal.SIGTERM, seconds)], is_hurried=is_hurried)
    for child in children:
        child.reap()
