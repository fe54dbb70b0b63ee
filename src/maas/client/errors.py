"""What can go wrong between a command and the API, said so that somebody can act on it."""

from typing import Final

EXIT_FAILED: Final = 1
EXIT_TO_BE_CONTINUED: Final = 3


class ClientError(Exception):
    """The command cannot do what it was asked; the message says why, for people."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class LineBrokenError(ClientError):
    """The line broke too often; what has arrived stays, and the same command goes on from there."""

    exit_code = EXIT_TO_BE_CONTINUED


class StrangeAnswerError(ClientError):
    """The server says something that a MaaS API would not."""

    def __init__(self, what: str) -> None:
        super().__init__(f"The server's answer is not one of a MaaS API: {what}.")


class RefusedError(ClientError):
    """The API refused, with a problem document or without."""

    def __init__(self, *, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class TransientError(Exception):
    """Something that may work in a moment: a broken line, a busy server.

    `retry_after`, in seconds, is what the server asked for.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
