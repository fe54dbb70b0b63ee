"""Sending mail: over SMTP, or into a folder where there is no mail server."""

import asyncio
import smtplib
import ssl
from email.errors import MessageError
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from pathlib import Path

import structlog

from maas.shared.application.mail import EmailSender, Mail, MailNotSentError
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.settings import MailSettings

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


class SmtpSender:
    """Talks to a mail server, in a thread, one connection for each mail."""

    def __init__(self, settings: MailSettings, *, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        try:
            await asyncio.to_thread(self._deliver, mail)
        except (smtplib.SMTPException, MessageError, OSError, ValueError) as exc:
            raise MailNotSentError from exc

    def _deliver(self, mail: Mail) -> None:
        settings = self._settings
        message = _compose(mail, settings, self._clock)
        host, port = settings.smtp_host or "", settings.smtp_port
        timeout, context = settings.smtp_timeout_seconds, ssl.create_default_context()
        server: smtplib.SMTP
        if settings.smtp_security == "tls":
            server = smtplib.SMTP_SSL(host, port, timeout=timeout, context=context)
        else:
            server = smtplib.SMTP(host, port, timeout=timeout)
        with server:
            if settings.smtp_security == "starttls":
                server.starttls(context=context)
            if settings.smtp_username and settings.smtp_password:
                server.login(settings.smtp_username, settings.smtp_password.get_secret_value())
            server.send_message(message)


class FolderSender:
    """Writes each mail to a file that a mail program opens, readable by its owner only."""

    def __init__(self, folder: Path, settings: MailSettings, *, clock: Clock) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock

    async def send(self, mail: Mail) -> None:
        try:
            path = await asyncio.to_thread(self._write, mail)
        except (MessageError, OSError, ValueError) as exc:
            raise MailNotSentError from exc
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
