"""Keeping secrets out of core dumps: what a process has in memory, no crash writes to a disk."""

import ctypes
import resource
import sys
from typing import Final

PR_SET_DUMPABLE: Final = 4


def forbid_core_dumps() -> None:
    """Let this process, and those it forks, leave no core when they crash.

    The limit covers files. Where the system hands cores to a program instead, the limit does not
    hold; what is not dumpable is not handed over, and its memory is read by nobody but root. After
    an `exec` it is to be called again.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
