"""Mail, as use cases send it."""

from dataclasses import dataclass
from typing import Protocol

from maas.shared.domain.errors import UnavailableError


class MailNotSentError(UnavailableError):
    code = "mail-not-sent"
    title = "The mail could not be sent"


class MailRefusedError(MailNotSentError):
    """The mail server will never take this mail; `reason` says why, in its words."""

    code = "mail-refused"
    title = "The mail was refused for good"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One plain-text message to one person."""

    recipient: str
    subject: str
    text: str


class EmailSender(Protocol):
    async def send(self, mail: Mail) -> None:
        """Hand the mail over.

        Raises:
            MailRefusedError: it was not taken, and never will be.
            MailNotSentError: it was not taken; sending it again later may help.
        """
        ...
