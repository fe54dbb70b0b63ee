"""The operating-system account the servers run as."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from maas.embedded.errors import EmbeddedError

_UNPRIVILEGED_NAME = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccount:
    """Whom PostgreSQL and Valkey run as; `is_switched` when that is not who we are."""

    uid: int
    gid: int
    is_switched: bool

    def take_over(self, descriptor: int) -> None:
        """Make the account the owner of an open folder.

        A path would not do: in a folder that the account owns, whoever runs as it may have put a
        link to any file there by now.
        """
        if self.is_switched:
            os.fchown(descriptor, self.uid, self.gid)

    def write_readable(self, path: Path, text: str) -> None:
        """Write a file anew that the account may read, and nobody but us may change.

        Its folder must be our own.
        """
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            if self.is_switched:
                os.fchown(file.fileno(), -1, self.gid)
                os.fchmod(file.fileno(), 0o640)
            file.write(text)

    def find_changeable_folder(self, path: Path) -> Path | None:
        """Return the outermost folder on the way to `path` in which the account can swap things.

        In a folder with the sticky bit it can swap only what is its own.
        """
        if not self.is_switched:
            return None
        for folder in reversed([path, *path.parents]):
            if folder.is_dir() and self._can_change(folder.stat()):
                return folder
        return None

    def _can_change(self, state: os.stat_result) -> bool:
        if state.st_uid == self.uid:
            return True
        others = stat.S_IWOTH | (stat.S_IWGRP if state.st_gid == self.gid else 0)
        return bool(state.st_mode & others) and not state.st_mode & stat.S_ISVTX

    def find_closed_folder(self, path: Path) -> Path | None:
        """Return the outermost folder on the way to `path` that the account cannot enter."""
        if not self.is_switched:
            return None
        for folder in reversed([path, *path.parents]):
            if folder.is_dir() and not self._can_enter(folder):
                return folder
        return None

    def _can_enter(self, folder: Path) -> bool:
        state = folder.stat()
        if state.st_uid == self.uid:
            return bool(state.st_mode & stat.S_IXUSR)
        if state.st_gid == self.gid:
            return bool(state.st_mode & stat.S_IXGRP)
        return bool(state.st_mode & stat.S_IXOTH)


def get_server_account() -> ServerAccount:
    """Return `nobody` for root, whom PostgreSQL refuses to serve, and ourselves otherwise.

    Raises:
        EmbeddedError: we are root and the machine has no account `nobody`.
    """
    if os.geteuid() != 0:
        return ServerAccount(uid=os.geteuid(), gid=os.getegid(), is_switched=False)
    try:
        entry = pwd.getpwnam(_UNPRIVILEGED_NAME)
    except KeyError as exc:
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, and there is no account {_UNPRIVILEGED_NAME!r}.",
            f"Create that account, or run `maas up` as an ordinary user, "
            f"or give MAAS_DATABASE__URL and MAAS_REDIS__URL of servers of your own "
            f"(looked for {_UNPRIVILEGED_NAME!r} in the password database).",
        ) from exc
    return ServerAccount(uid=entry.pw_uid, gid=entry.pw_gid, is_switched=True)
