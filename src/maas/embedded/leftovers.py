"""What a supervisor that was killed may have left running on its data folder."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from maas.embedded.errors import EmbeddedError
from maas.embedded.folders import DataFolder
from maas.embedded.processes import FOLDER_MARK
from maas.embedded.sessions import read_note

_GRACE_SECONDS = 6.0
_KILL_SECONDS = 5.0
_STEP_SECONDS = 0.01


def stop_working_in(folder: Path) -> int:
    """Stop the servers whose working folder is this one; return how many processes there were.

    A server's working folder is its data, which no title it gives itself can hide.
    """
    return _stop(_find(lambda process: process.cwd() == str(folder)))


def stop_spawned(folder: DataFolder) -> int:
    """Stop all that a supervisor of this data folder spawned; return how many there were."""
    return _stop(find_spawned(folder))


def find_spawned(folder: DataFolder) -> list[psutil.Process]:
    """Find it by its mark, or by its session where the mark is hidden."""
    noted = [session for path in folder.session_notes() if (session := read_note(path))]

    def is_marked(process: psutil.Process) -> bool:
        return process.environ().get(FOLDER_MARK) == str(folder.root)

    def is_ours(process: psutil.Process) -> bool:
        try:
            return is_marked(process)
        except psutil.AccessDenied:
            is_own = process.uids().real == os.getuid()
            return is_own and process.cmdline()[:1] == [sys.executable]

    def is_meant(process: psutil.Process) -> bool:
        # First, because looking at a hidden mark is an error.
        return any(each.has(process, is_ours=is_ours) for each in noted) or is_marked(process)

    return _find(is_meant)


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
