"""What can go wrong with a backup, each with what to do about it in its words."""

from typing import ClassVar


class BackupError(Exception):
    """Nothing was done, or what was begun is gone again; the message says why, and what to do."""

    exit_code: ClassVar[int] = 1


class DamagedBackupError(BackupError):
    """The backup is not what was written, or is not whole."""

    exit_code = 4


class NotEmptyError(BackupError):
    """There is something already where the backup was to be restored."""

    exit_code = 5


class HalfRestoredError(BackupError):
    """A restore broke off: what is there is no platform, and does not pass for one."""

    exit_code = 6
