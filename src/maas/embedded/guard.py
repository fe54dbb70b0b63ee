"""A tiny process that ends the children's process groups when the supervisor is killed.

The kernel's death signal reaches a child, but not what the child has forked, and a child may take
its time over it. Run as a script, without the rest of the package, to stay small.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

_GRACE_SECONDS = 3.0
_STEP_SECONDS = 0.05


class Guard:
    """The supervisor's side: says which process groups are there."""

    def __init__(self) -> None:
        self._popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._popen = subprocess.Popen(  # noqa: S603  this very file
            [sys.executable, "-I", "-S", str(Path(__file__).absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        return self

    def __exit__(self, *exc: object) -> None:
        if self._popen is not None and self._popen.stdin is not None:
            self._popen.stdin.close()
            self._popen.wait()

    def watch(self, group: int) -> None:
        self._say(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Must be called before the group's leader is reaped, lest its id be given away."""
        self._say(f"-{group}\n")

    def _say(self, line: str) -> None:
        if self._popen is not None and self._popen.stdin is not None:
            # A guard that somebody killed is missed only if the supervisor is killed as well.
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.write(line.encode())
                self._popen.stdin.flush()


def main() -> None:
    """Read groups until the supervisor is gone, then end those that are left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while _alive(groups) and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)
    _signal(groups, signal.SIGKILL)


def _signal(groups: set[int], number: signal.Signals) -> None:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def _alive(groups: set[int]) -> bool:
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, 0)
            return True
    return False


if __name__ == "__main__":
    main()
