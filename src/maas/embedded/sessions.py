"""Which sessions a supervisor began, kept so that the next one finds what is left of them.

What a process holds in its environment is hidden from its own account once it forbids core dumps.
Of which session it is, and when it began, anybody may read.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BEGAN_FIELD: Final = 19
"""Of `/proc/PID/stat`, counted from what follows the program's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session by its leader's id, and by when that began: ids are given again."""

    leader: int
    boot: str
    began: float

    @classmethod
    def of(cls, leader: int) -> "Session":
        return cls(leader=leader, boot=_boot(), began=_began(leader))

    def has(self, process: psutil.Process, *, is_ours: Callable[[psutil.Process], bool]) -> bool:
        """Tell whether a process descends from the leader.

        Without the leader nothing tells this session from a later one of the same id, so that what
        is in it must be `is_ours` as well.
        """
        if os.getsid(process.pid) != self.leader or _boot() != self.boot:
            return False
        if psutil.pid_exists(self.leader):
            return _began(self.leader) == self.began
        return _began(process.pid) >= self.began and is_ours(process)


def note(path: Path, leader: int) -> None:
    """Keep which session was begun, in place of the one before.

    A note that cannot be written stops nothing: it is wanted only if the supervisor is killed.
    """
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(asdict(Session.of(leader))), encoding="utf-8")


def read_note(path: Path) -> Session | None:
    try:
        return Session(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError):
        # Half written when the power went, or gone meanwhile.
        return None


def _boot() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip() if sys.platform == "linux" else ""


def _began(pid: int) -> float:
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    # In ticks since the boot: a time of day would move when the clock is set.
    status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return float(status.rpartition(")")[2].split()[_BEGAN_FIELD])
