"""The outbox of mails: nothing lost while the mail server is down, nothing kept once it is sent."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from maas.shared.application.mail import Mail, MailNotSentError
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.mail import FolderSender, SmtpSender, make_sender
from maas.shared.infrastructure.settings import MailSettings, Settings
from maas.user.infrastructure.mail_queue import purge_sign_in
from maas.user.wiring import send_due_mails
from tests.conftest import MakeSettings

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
MAIL = Mail(recipient="ada@example.com", subject="Grüße", text="Hello\n.\nlink#token=abc\n")


@asynccontextmanager
async def mail_server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Speak just enough SMTP to take mails; yield the port and what was taken."""
    taken: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        while line := await reader.readline():
            if line.upper().startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                taken.append(await reader.readuntil(b"\r\n.\r\n"))
            writer.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 fine\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], taken


def smtp(port: int) -> MailSettings:
    return MailSettings(
        smtp_host="127.0.0.1", smtp_port=port, smtp_security="none", smtp_timeout_seconds=2
    )


async def ask(superuser: Superuser) -> None:
    """Make Ada, and let her ask for a new password."""
    now = datetime.now(UTC)  # noqa: TID251  the outbox is due by the real time
    await superuser.execute(
        """INSERT INTO accounts (id, username, email, password_hash, status, home_tenant_id,
                                 created_at, updated_at, version)
           VALUES ($1, 'ada', 'ada@example.com', 'x', 'active', $2, $3, $3, 1)""",
        new_id(),
        DEFAULT_TENANT_ID,
        now,
    )
    await superuser.execute(
        """INSERT INTO outgoing_mails (id, kind, recipient, created_at, due_at)
           VALUES ($1, 'reset-password', 'ada@example.com', $2, $2)""",
        new_id(),
        now - timedelta(seconds=1),
    )


class TestSenders:
    async def test_smtp_hands_the_mail_over(self) -> None:
        async with mail_server() as (port, taken):
            await SmtpSender(smtp(port), clock=SystemClock()).send(MAIL)

        (message,) = taken
        assert b"To: ada@example.com\r\n" in message
        assert b"Auto-Submitted: auto-generated\r\n" in message
        assert b"\r\n..\r\n" in message

    async def test_a_server_that_is_down_or_offers_no_tls_is_told_of(self) -> None:
        async with mail_server() as (port, taken):
            secured = smtp(port).model_copy(update={"smtp_security": "starttls"})
            with pytest.raises(MailNotSentError):
                await SmtpSender(secured, clock=SystemClock()).send(MAIL)
        with pytest.raises(MailNotSentError):
            await SmtpSender(smtp(port), clock=SystemClock()).send(MAIL)
        assert taken == []

    async def test_a_header_cannot_be_smuggled_in(self, tmp_path: Path) -> None:
        sender = FolderSender(tmp_path / "mail", MailSettings(), clock=SystemClock())
        mail = Mail(recipient="ada@example.com\r\nBcc: eve@example.com", subject="x", text="y")

        with pytest.raises(MailNotSentError):
            await sender.send(mail)

    async def test_the_log_tells_where_a_mail_lies_and_no_link(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sender = make_sender(MailSettings(), data_dir=tmp_path, clock=SystemClock())

        await sender.send(MAIL)

        (path,) = (tmp_path / "mail").glob("*.eml")
        told = capsys.readouterr().out
        assert "mail_written" in told
        assert "token=" not in told
        assert b"link#token=abc" in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("clean")
class TestOutbox:
    async def test_a_mail_waits_while_the_server_is_down_and_leaves_no_link(
        self, make_settings: MakeSettings, superuser: Superuser, tmp_path: Path
    ) -> None:
        await ask(superuser)
        down = make_settings(mail=smtp(1).model_dump())

        sent = await send_due_mails(down, data_dir=tmp_path, clock=SystemClock())

        assert sent == 0
        waiting = await superuser.fetchrow(
            "SELECT attempts, due_at - now() AS wait FROM outgoing_mails"
        )
        assert waiting is not None
        assert waiting["attempts"] == 1
        assert timedelta(seconds=50) < waiting["wait"] < timedelta(seconds=70)
        assert await superuser.fetchval("SELECT count(*) FROM link_tokens") == 0

        await superuser.execute("UPDATE outgoing_mails SET due_at = now()")
        async with mail_server() as (port, taken):
            up = make_settings(mail=smtp(port).model_dump())
            assert await send_due_mails(up, data_dir=tmp_path, clock=SystemClock()) == 1

        assert re.search(rb"reset-password#token=3?D?mlt_", taken[0].replace(b"=\r\n", b""))
        assert await superuser.fetchval("SELECT count(*) FROM outgoing_mails") == 0

    async def test_two_senders_at_once_send_one_mail(
        self, make_settings: MakeSettings, superuser: Superuser, tmp_path: Path
    ) -> None:
        await ask(superuser)
        async with mail_server() as (port, taken):
            settings = make_settings(mail=smtp(port).model_dump())

            counts = await asyncio.gather(
                *(
                    send_due_mails(settings, data_dir=tmp_path, clock=SystemClock())
                    for _ in range(4)
                )
            )

        assert sum(counts) == len(taken) == 1

    async def test_a_mail_a_day_old_is_given_up(
        self, settings: Settings, superuser: Superuser, tmp_path: Path
    ) -> None:
        await ask(superuser)
        await superuser.execute(
            "UPDATE outgoing_mails SET created_at = now() - interval '25 hours'"
        )

        assert await send_due_mails(settings, data_dir=tmp_path, clock=SystemClock()) == 0

        assert await superuser.fetchval("SELECT count(*) FROM outgoing_mails") == 0

    async def test_the_application_cannot_read_mails_or_make_links(
        self, superuser: Superuser
    ) -> None:
        rights = await superuser.fetchrow(
            """SELECT has_table_privilege('maas_app', 'outgoing_mails', 'SELECT') AS reads,
                      has_table_privilege('maas_app', 'link_tokens', 'INSERT') AS makes"""
        )

        assert rights is not None
        assert not any(rights.values())

    async def test_what_has_expired_is_purged(
        self, settings: Settings, superuser: Superuser
    ) -> None:
        for key, age in (("old", "25 hours"), ("new", "1 hour")):
            await superuser.execute(
                f"""INSERT INTO login_throttles
                    SELECT $1, 3, 0, now(), now(), now() - interval '{age}'""",
                key,
            )

        assert await purge_sign_in(settings.database, clock=SystemClock()) == 1

        assert await superuser.fetchval("SELECT key FROM login_throttles") == "new"
