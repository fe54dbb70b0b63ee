"""What a process of the runtime host is to its host: told what to load, and never left behind.

It reads what to load from its standard input, tells on its standard output where it listens, and
ends as soon as its input does. It imports little, for each model starts one.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1


def run(load: Callable[[dict[str, Any]], str]) -> None:
    """Have a model loaded, tell its address, and go on until the host lets go or is gone."""
    wanted = json.loads(sys.stdin.buffer.readline())
    _follow(wanted["parent"])
    # Libraries write to where they like; the host reads one line, and it is ours.
    told = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    address = load(wanted)
    told.write(json.dumps({"address": address}) + "\n")
    told.close()
    # Nothing comes any more but the end.
    sys.stdin.buffer.read()
    # Ending in order would wait for answers that nobody is there to read.
    os._exit(0)


def _follow(parent: int) -> None:
    """Have the kernel end this process with its host, also while a model is being loaded."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            os._exit(1)
