"""Mail, as use cases send it."""

from dataclasses import dataclass
from typing import Protocol

from maas.shared.domain.errors import UnavailableError


class MailNotSentError(UnavailableError):
    code = "mail-not-sent"
    title = "The mail could not be sent"


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
            MailNotSentError: it was not taken; sending it again later may help.
        """
        ...
