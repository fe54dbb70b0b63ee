"""Sending mail: over SMTP, or into a folder where there is no mail server."""

import asyncio
import smtplib
import ssl
from contextlib import suppress
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from pathlib import Path

import structlog

from maas.shared.application.mail import EmailSender, Mail, MailNotSentError, MailRefusedError
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.settings import MailSettings

PERMANENT = 500
"""Answers of a mail server from here on are for good (RFC 5321, section 4.2.1)."""

ANSWERS_WAITED_FOR = 3
MAX_REASON_CHARS = 300

log = structlog.get_logger(__name__)


def _compose(mail: Mail, settings: MailSettings, clock: Clock) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = settings.sender
    message["To"] = mail.recipient
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(clock.now())
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2].strip("<> "))
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    return message


def _final_reason(error: Exception) -> str | None:
    """Tell why no server will ever take the mail (5xx about it); `None` if one yet may.

    What a server says of us, of our login or of our sender, is for the operator to mend.
    """
    answers: list[tuple[int, bytes | str]] = []
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        answers = list(error.recipients.values())
    elif isinstance(error, smtplib.SMTPDataError):
        answers = [(error.smtp_code, error.smtp_error)]
    if not answers or any(code < PERMANENT for code, _ in answers):
        return None
    code, text = answers[0]
    words = text.decode("ascii", errors="replace") if isinstance(text, bytes) else text
    return f"{code} {words}"[:MAX_REASON_CHARS]


class SmtpSender:
    """Talks to a mail server, in a thread, one connection for each mail."""

    def __init__(self, settings: MailSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        try:
            # The time-out below is one answer's; a server that drips would have many of them.
            async with asyncio.timeout(ANSWERS_WAITED_FOR * self._settings.smtp_timeout_seconds):
                await asyncio.to_thread(self._deliver, mail)
        except (smtplib.SMTPException, OSError) as exc:
            reason = _final_reason(exc)
            if reason is None:
                raise MailNotSentError from exc
            raise MailRefusedError(reason) from exc
        except (MessageError, ValueError) as exc:
            raise MailRefusedError("The mail cannot be written as one.") from exc

    def _deliver(self, mail: Mail) -> None:
        settings = self._settings
        message = _compose(mail, settings, self._clock)
        host, port = settings.smtp_host or "", settings.smtp_port
        timeout = settings.smtp_timeout_seconds
        context = ssl.create_default_context(cafile=settings.smtp_ca_file)
        server: smtplib.SMTP
        if settings.smtp_security == "tls":
            server = smtplib.SMTP_SSL(host, port, timeout=timeout, context=context)
        else:
            server = smtplib.SMTP(host, port, timeout=timeout)
        try:
            if settings.smtp_security == "starttls":
                server.starttls(context=context)
            if settings.smtp_username and settings.smtp_password:
                server.login(settings.smtp_username, settings.smtp_password.get_secret_value())
            server.send_message(message)
            # The mail is taken: a farewell that fails must not have it sent again.
            with suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            server.close()


class FolderSender:
    """Writes each mail to a file that a mail program opens, readable by its owner only."""

    def __init__(self, folder: Path, settings: MailSettings, *, clock: Clock) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        try:
            path = await asyncio.to_thread(self._write, mail)
        except OSError as exc:
            raise MailNotSentError from exc
        except (MessageError, ValueError) as exc:
            raise MailRefusedError("The mail cannot be written as one.") from exc
        # Where it lies, and nothing of what it says: the link in it is as good as a password.
        log.info("mail_written", path=str(path), subject=mail.subject)

    def _write(self, mail: Mail) -> Path:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{new_id()}.eml"
        path.touch(mode=0o600)
        path.write_bytes(_compose(mail, self._settings, self._clock).as_bytes())
        return path


def make_sender(settings: MailSettings, *, data_dir: Path, clock: Clock) -> EmailSender:
    """Choose the way out: SMTP where a server is named, else the folder `mail`."""
    if settings.smtp_host is not None:
        return SmtpSender(settings, clock=clock)
    return FolderSender(data_dir / "mail", settings, clock=clock)
