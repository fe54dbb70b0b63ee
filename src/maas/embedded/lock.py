"""One supervisor per data folder."""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from maas.embedded import storage
from maas.embedded.errors import AlreadyRunningError

_NAMELESS_SECONDS = 1.0
_STEP_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds the data folder, and which private servers it runs."""

    pid: int
    url: str
    has_postgres: bool = False
    has_valkey: bool = False


class FolderLock:
    """A lock that the kernel drops with its holder, however that ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self.was_left_behind = False

    def __enter__(self) -> Self:
        """Take the lock; afterwards `was_left_behind` says whether the last holder crashed.

        Raises:
            AlreadyRunningError: somebody else holds it.
        """
        with storage.explained(self._path.parent):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._take(descriptor)
        except AlreadyRunningError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self.was_left_behind = os.fstat(descriptor).st_size > 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def tell(self, holder: Holder) -> None:
        """Write who holds the lock, for others who come to the same folder."""
        if self._descriptor is None:
            message = "The lock is not held."
            raise RuntimeError(message)
        with storage.explained(self._path.parent):
            text = json.dumps(asdict(holder)).encode()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)

    def _take(self, descriptor: int) -> None:
        """Take the lock; one that is held by nobody with a name may be a mere look at it."""
        deadline = time.monotonic() + _NAMELESS_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                holder = _read_holder(self._path)
                if holder or time.monotonic() > deadline:
                    raise self._already_running(holder) from exc
                time.sleep(_STEP_SECONDS)
            else:
                return

    def _already_running(self, holder: Holder | None) -> AlreadyRunningError:
        who = f"(process {holder.pid}, {holder.url})" if holder else "(it is just starting)"
        return AlreadyRunningError(
            f"MaaS is already running on {self._path.parent} {who}.",
            "Use that one, stop it first, or give this one a folder and a port of its own: "
            "maas up --data-dir DIR --port PORT",
        )


def find_holder(path: Path) -> Holder | None:
    """Return who holds the lock at this moment, if anybody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_holder(path)
    finally:
        os.close(descriptor)
    return None


def _read_holder(path: Path) -> Holder | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Holder(**content)
    except (ValueError, TypeError, OSError):
        # Being written, or by another release: the caller can do without it.
        return None
