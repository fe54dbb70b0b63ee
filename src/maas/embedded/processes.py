"""Processes that never outlive their supervisor."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maas.embedded import storage
from maas.embedded.accounts import ServerAccount
from maas.embedded.errors import EmbeddedError
from maas.embedded.logs import LogFile

# In the environment of everything a supervisor spawns, with the data folder as its value. Not a
# MAAS_ name, because it is no setting.
FOLDER_MARK = "EMBEDDED_MAAS_FOLDER"

# Sleeps for a moment; raises to break off the wait it is called in.
Pulse = Callable[[], None]

_PR_SET_PDEATHSIG = 1
_STEP_SECONDS = 0.01
_HURRIED_SECONDS = 0.3
# Loaded here, because a forked child must not load libraries.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def calm() -> bool:
    """Tell that nobody is in a hurry."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start one process; `death_signal` is what it gets when the supervisor dies."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: LogFile
    folder: Path
    death_signal: signal.Signals = signal.SIGTERM
    account: ServerAccount | None = None


@dataclass(slots=True)
class SpawnedProcess:
    """A process that leads a session of its own, with all that it forks."""

    _popen: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def has_ended(self) -> bool:
        """Tell whether it ended, leaving it unreaped, so that its id is not given away yet."""
        if self._popen.returncode is not None:
            return True
        if sys.platform == "darwin":
            return self._popen.poll() is not None
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.pid, flags) is not None

    def send(self, number: signal.Signals) -> None:
        if not self.has_ended():
            os.kill(self.pid, number)

    def reap(self) -> int:
        """Kill it and what is left of its process group; return its exit code.

        The group goes before the leader is reaped: until then nobody else can get its id.
        """
        if self._popen.returncode is None:
            # Nobody left to signal, or (on macOS) only a leader that has already ended.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return self._popen.wait()


def spawn(launch: Launch) -> SpawnedProcess:
    """Start a process that the kernel ends when the supervisor dies.

    Raises:
        EmbeddedError: the program cannot be run, or not as the account it should run as.
    """
    # The kernel sends the death signal when the spawning *thread* ends.
    if threading.current_thread() is not threading.main_thread():
        message = "Processes are spawned from the main thread only."
        raise RuntimeError(message)
    account = launch.account if launch.account and launch.account.is_switched else None
    with storage.explained(launch.log.path.parent), launch.log.appending() as log:
        try:
            popen = subprocess.Popen(  # noqa: S603  our own programs
                launch.arguments,
                env=dict(launch.environment),
                cwd=launch.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=_follow_parent(launch.death_signal),  # noqa: PLW1509  nothing else sets it
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise EmbeddedError(
                f"{launch.arguments[0]} could not be run: {exc}.",
                "Check that it is installed, executable, and allowed to run here"
                + (" as `nobody`." if account else "."),
            ) from exc
    return SpawnedProcess(popen)


def wind_down(
    processes: Sequence[SpawnedProcess],
    plan: Sequence[tuple[signal.Signals, float]],
    *,
    is_hurried: Callable[[], bool] = calm,
) -> None:
    """Ask processes to end, each step of the plan a signal and the seconds it is given.

    In a hurry each step gets a moment only. To be followed by `reap`, which kills what is left.
    """
    for number, seconds in plan:
        began = time.monotonic()
        for process in processes:
            process.send(number)
        while not all(process.has_ended() for process in processes):
            waited = time.monotonic() - began
            if waited > (min(_HURRIED_SECONDS, seconds) if is_hurried() else seconds):
                break
            time.sleep(_STEP_SECONDS)


def _follow_parent(number: signal.Signals) -> Callable[[], None] | None:
    if _LIBC is None:
        return None
    libc, parent = _LIBC, os.getpid()

    def follow() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(number))
        # A parent that died before the call above will send nothing any more.
        if os.getppid() != parent:
            os._exit(1)

    return follow


def server_environment(root: Path) -> dict[str, str]:
    """Return what a server needs; PGDATA and its like, set for others, must not reach ours."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", FOLDER_MARK: str(root)}
