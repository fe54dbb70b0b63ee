"""Where everything lies inside the data folder, and who may enter what."""

import errno
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from maas.embedded import storage
from maas.embedded.accounts import ServerAccount
from maas.embedded.errors import DataFolderError
from maas.embedded.logs import LogFile

# The kernel takes at most 107 bytes for a socket's path; the longest name below a socket folder is
# PostgreSQL's `postgres/.s.PGSQL.5432`.
_MAX_SOCKET_FOLDER_BYTES = 107 - len("/postgres/.s.PGSQL.5432")

_PRIVATE = 0o700
_PASSABLE = 0o711


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFolder:
    root: Path
    sockets: Path

    @property
    def lock_file(self) -> Path:
        return self.root / "maas.lock"

    @property
    def secrets_file(self) -> Path:
        return self.root / "secrets.json"

    @property
    def signing_key_file(self) -> Path:
        return self.root / "signing-key.pem"

    @property
    def audit_key_file(self) -> Path:
        return self.root / "audit-key.pem"

    @property
    def config(self) -> Path:
        """What the servers are told: theirs to read, and only ours to change."""
        return self.root / "config"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        return self.root / "valkey"

    @property
    def binaries(self) -> Path:
        return self.root / "binaries"

    @property
    def postgres_sockets(self) -> Path:
        return self.sockets / "postgres"

    @property
    def valkey_sockets(self) -> Path:
        return self.sockets / "valkey"

    def tidy(self) -> None:
        """Remove the socket folders where they lie outside the data folder."""
        if self.sockets.parent != self.root:
            shutil.rmtree(self.sockets, ignore_errors=True)

    def session_note(self, name: str) -> Path:
        return self.root / f"{name}.session"

    def session_notes(self) -> list[Path]:
        return list(self.root.glob("*.session"))

    def log(self, name: str) -> LogFile:
        return LogFile(self.root / "logs" / f"{name}.log")


def default_data_dir() -> Path:
    """Return the system's state folder for root, and the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/maas")
    state_home = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(state_home) if Path(state_home).is_absolute() else Path.home() / ".local/state"
    return base / "maas"


def locate_data_folder(root: Path) -> DataFolder:
    """Name the parts of a data folder without touching any of them."""
    # Resolved, because the kernel reports a process's folder without links.
    root = root.expanduser().resolve()
    sockets = root / "run"
    if len(os.fsencode(sockets)) > _MAX_SOCKET_FOLDER_BYTES:
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        # Not TMPDIR: a command in another shell must come to the same folder.
        sockets = Path("/tmp") / f"maas-{os.geteuid()}-{digest}"  # noqa: S108  its owner is checked
    return DataFolder(root=root, sockets=sockets)


def open_data_folder(root: Path, account: ServerAccount) -> DataFolder:
    """Make the folder and its parts, closed to everyone but us and the servers' account.

    Raises:
        DataFolderError: it cannot be written, or the servers' account cannot get to it.
        StorageFullError: the disk has no room.
    """
    folder = locate_data_folder(root)
    passable = _PASSABLE if account.is_switched else _PRIVATE
    with storage.explained(folder.root):
        folder.root.parent.mkdir(parents=True, exist_ok=True)
        folder.root.mkdir(mode=passable, exist_ok=True)
        _refuse_changeable(folder.root, account)
        _let_through(folder.root, account)
        _refuse_closed(folder.root, account)
        _make(folder.root / "logs", mode=_PRIVATE)
        for path in (folder.sockets, folder.config):
            _make(path, mode=passable)
        for path in (folder.postgres_sockets, folder.valkey_sockets, folder.valkey):
            make_folder(path, owner=account)
    return folder


def make_folder(path: Path, *, owner: ServerAccount) -> None:
    """Make a folder that only the servers' account can enter, or take the one that is there.

    Raises:
        DataFolderError: it is a link, no folder, or somebody else's.
    """
    _make(path, mode=_PRIVATE, owner=owner)


def _refuse_changeable(root: Path, account: ServerAccount) -> None:
    """Refuse a folder where others could lead us astray while we are root."""
    if not account.is_switched:
        return
    state = root.stat()
    is_ours = state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    changeable = root if not is_ours else account.find_changeable_folder(root.parent)
    if changeable is not None:
        raise DataFolderError(
            f"{changeable} can be changed by others, who could use what root does there.",
            f"Choose a folder of root's own, such as /var/lib/maas "
            f"(maas up --data-dir DIR, or MAAS_DATA_DIR), or close this one: "
            f"chown root {changeable} && chmod go-w {changeable}",
        )


def _let_through(root: Path, account: ServerAccount) -> None:
    """Let `nobody` pass through a data folder of root's own; all in it has a mode of its own."""
    state = root.stat()
    if account.is_switched and state.st_uid == os.geteuid():
        root.chmod(stat.S_IMODE(state.st_mode) | stat.S_IXOTH)


def _refuse_closed(root: Path, account: ServerAccount) -> None:
    blocked = account.find_closed_folder(root)
    if blocked is None:
        return
    raise DataFolderError(
        f"The data folder {root} lies under {blocked}, which the servers cannot enter: "
        f"started by root, they run as `nobody`.",
        f"Choose a folder that `nobody` can get to, such as /var/lib/maas "
        f"(maas up --data-dir DIR, or MAAS_DATA_DIR), or let others pass: chmod o+x {blocked}",
    )


def _make(path: Path, *, mode: int, owner: ServerAccount | None = None) -> None:
    """Make a folder or take an existing one, but never somebody else's."""
    path.mkdir(mode=mode, exist_ok=True)
    ours = {os.geteuid()} | ({owner.uid} if owner else set())
    try:
        # A link left by somebody else, as in the shared temporary folder, must not be followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (NotADirectoryError, PermissionError) as exc:
        raise _foreign(path) from exc
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        raise _foreign(path) from exc
    try:
        state = os.fstat(descriptor)
        if state.st_uid not in ours:
            raise _foreign(path)
        if stat.S_IMODE(state.st_mode) != mode:
            os.fchmod(descriptor, mode)
        if owner is not None and state.st_uid != owner.uid:
            owner.take_over(descriptor)
    finally:
        os.close(descriptor)


def _foreign(path: Path) -> DataFolderError:
    return DataFolderError(
        f"{path} is not a folder of the account that runs `maas up`.",
        "Run it as the account that made the folder, or move the folder away.",
    )
