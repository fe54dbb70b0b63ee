"""What a supervisor that was killed may have left running on its data folder."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from maas.embedded.errors import EmbeddedError
from maas.embedded.processes import FOLDER_MARK

_GRACE_SECONDS = 6.0
_KILL_SECONDS = 5.0
_STEP_SECONDS = 0.01


def stop_working_in(folder: Path) -> int:
    """Stop the servers whose working folder is this one; return how many processes there were.

    A server's working folder is its data, which no title it gives itself can hide.
    """
    return _stop(_find(lambda process: process.cwd() == str(folder)))


def stop_marked(root: Path) -> int:
    """Stop all that a supervisor of this data folder spawned; return how many there were."""
    return _stop(_find(lambda process: process.environ().get(FOLDER_MARK) == str(root)))


def _find(is_meant: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        # Gone meanwhile, or another account's, which cannot be ours.
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and is_meant(process):
                found.append(process)
    return found


def _stop(processes: Sequence[psutil.Process]) -> int:
    ids = {process.pid for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() != "postgres":
                process.terminate()
            elif process.ppid() not in ids:
                # The postmaster ends its own; SIGINT is its fast shutdown.
                process.send_signal(signal.SIGINT)
    for process in _wait(processes, seconds=_GRACE_SECONDS):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    alive = _wait(processes, seconds=_KILL_SECONDS)
    if alive:
        names = ", ".join(str(process.pid) for process in alive)
        raise EmbeddedError(
            f"Processes of an earlier run cannot be stopped: {names}.",
            "They may hang on a disk that does not answer. Stop them, or restart the machine.",
        )
    return len(processes)


def _wait(processes: Sequence[psutil.Process], *, seconds: float) -> list[psutil.Process]:
    """Return those that still run afterwards."""
    deadline = time.monotonic() + seconds
    alive = [process for process in processes if _runs(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)
        alive = [process for process in alive if _runs(process)]
    return alive


def _runs(process: psutil.Process) -> bool:
    # In a container whose first process reaps nobody, what has ended stays as a zombie.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
