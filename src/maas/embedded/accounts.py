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

    def take_over(self, path: Path) -> None:
        """Make the account the owner of `path`, where it is not already."""
        if self.is_switched:
            os.chown(path, self.uid, self.gid)

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
