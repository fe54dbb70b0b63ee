"""What can go wrong in `maas up`, each with what to do about it."""

from typing import ClassVar


class EmbeddedError(Exception):
    """Stop `maas up` with a message and a hint that a person can act on."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class AlreadyRunningError(EmbeddedError):
    """Another supervisor holds this data folder."""

    exit_code = 3


class PortTakenError(EmbeddedError):
    """The API could not listen on its address."""


class DataFolderError(EmbeddedError):
    """The data folder cannot be entered, read or written."""


class StorageFullError(DataFolderError):
    """The disk under the data folder has no room left."""


class DamagedSecretsError(EmbeddedError):
    """The file of generated secrets is missing, unreadable or incomplete."""


class BinaryNotFoundError(EmbeddedError):
    """No usable server binary is installed."""


class ServerStartError(EmbeddedError):
    """A server or a child ended, or stayed silent, while it was being started."""
