"""Mails over real SMTP: protected, refused, unanswered, and what becomes of those not taken."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from maas.doctor import examine
from maas.shared.application.mail import Mail, MailNotSentError, MailRefusedError
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.mail import SmtpSender
from maas.shared.infrastructure.settings import MailSettings
from maas.user.infrastructure.mail_queue import purge_sign_in
from maas.user.wiring import send_due_mails
from tests.conftest import MakeSettings
from tests.integration.user.test_mails import ask
from tests.smtp_server import Certificate, Security, SmtpServer, running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
MAIL = Mail(recipient="ada@example.com", subject="Grüße", text="Hello\n")
NO_SUCH_USER = "550 5.1.1 no such user"
PROTECTED = pytest.mark.parametrize("security", ["starttls", "tls"])


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate.make(tmp_path)


def settings_for(server: SmtpServer, **more: Any) -> MailSettings:
    values: dict[str, Any] = {
        "smtp_host": "127.0.0.1",
        "smtp_port": server.port,
        "smtp_security": server.security,
        "smtp_timeout_seconds": 2,
        **more,
    }
    return MailSettings(**values)


def sender_for(server: SmtpServer, **more: Any) -> SmtpSender:
    return SmtpSender(settings_for(server, **more), clock=SystemClock())


class TestProtected:
    @PROTECTED
    async def test_signs_in_and_hands_over_behind_tls(
        self, certificate: Certificate, security: Security
    ) -> None:
        async with running(SmtpServer(security=security, certificate=certificate)) as server:
            sender = sender_for(
                server,
                smtp_ca_file=certificate.path,
                smtp_username="maas",
                smtp_password="secret",
            )

            await sender.send(MAIL)

        assert len(server.taken) == 1
        assert server.credentials == [b"\0maas\0secret"]
        if security == "starttls":
            assert server.commands.index("STARTTLS") < server.commands.index("AUTH")

    @PROTECTED
    async def test_a_certificate_from_nowhere_gets_neither_password_nor_mail(
        self, certificate: Certificate, security: Security
    ) -> None:
        async with running(SmtpServer(security=security, certificate=certificate)) as server:
            with pytest.raises(MailNotSentError) as refused:
                await sender_for(server, smtp_username="maas", smtp_password="secret").send(MAIL)

        assert not isinstance(refused.value, MailRefusedError)
        assert (server.taken, server.credentials) == ([], [])

    async def test_a_server_without_starttls_gets_no_password_in_the_clear(self) -> None:
        async with running(SmtpServer()) as server:
            sender = sender_for(
                server, smtp_security="starttls", smtp_username="maas", smtp_password="secret"
            )
            with pytest.raises(MailNotSentError):
                await sender.send(MAIL)

        assert "AUTH" not in server.commands
        assert server.taken == []


class TestAnswers:
    @pytest.mark.parametrize(
        ("command", "answer", "is_final"),
        [
            ("RCPT", NO_SUCH_USER, True),
            ("RCPT", "450 4.2.0 greylisted", False),
            ("MESSAGE", "554 5.7.1 no such mail here", True),
            ("MESSAGE", "452 4.3.1 disk full", False),
            ("MAIL", "550 5.7.1 not your sender", False),
            ("DATA", "451 4.3.0 not now", False),
        ],
    )
    async def test_say_whether_it_is_worth_another_try(
        self, command: str, answer: str, *, is_final: bool
    ) -> None:
        async with running(SmtpServer(answers={command: answer})) as server:
            with pytest.raises(MailNotSentError) as refused:
                await sender_for(server).send(MAIL)

        assert isinstance(refused.value, MailRefusedError) == is_final
        if isinstance(refused.value, MailRefusedError):
            assert refused.value.reason == answer

    async def test_to_the_farewell_do_not_matter(self) -> None:
        async with running(SmtpServer(answers={"QUIT": "500 what?"})) as server:
            await sender_for(server).send(MAIL)

        assert len(server.taken) == 1

    async def test_that_never_come_are_not_waited_for(self) -> None:
        async with running(SmtpServer(is_silent=True)) as server:
            began = time.monotonic()
            with pytest.raises(MailNotSentError):
                await sender_for(server, smtp_timeout_seconds=0.3).send(MAIL)

        assert time.monotonic() - began < 5

    async def test_a_wrong_password_is_for_the_operator_to_mend(
        self, certificate: Certificate
    ) -> None:
        server = SmtpServer(
            security="starttls", certificate=certificate, answers={"AUTH": "535 5.7.8 no"}
        )
        async with running(server):
            sender = sender_for(
                server, smtp_ca_file=certificate.path, smtp_username="a", smtp_password="b"
            )
            with pytest.raises(MailNotSentError) as refused:
                await sender.send(MAIL)

        assert not isinstance(refused.value, MailRefusedError)


@pytest.mark.usefixtures("clean")
class TestGivenUp:
    async def test_a_refused_mail_is_put_aside_with_its_reason_and_not_tried_again(
        self, make_settings: MakeSettings, superuser: Superuser, tmp_path: Path
    ) -> None:
        await ask(superuser)
        async with running(SmtpServer(answers={"RCPT": NO_SUCH_USER})) as server:
            settings = make_settings(mail=settings_for(server).model_dump())

            first = await send_due_mails(settings, data_dir=tmp_path, clock=SystemClock())
            attempts = server.commands.count("RCPT")
            await superuser.execute("UPDATE outgoing_mails SET due_at = now()")
            await send_due_mails(settings, data_dir=tmp_path, clock=SystemClock())

        row = await superuser.fetchrow("SELECT * FROM undelivered_mails")
        assert row is not None
        assert (row["kind"], row["recipient"], row["attempts"], row["reason"]) == (
            "reset-password", "ada@example.com", 1, NO_SUCH_USER,
        )  # fmt: skip
        assert (first, attempts, server.commands.count("RCPT")) == (0, 1, 1)
        assert await superuser.fetchval("SELECT count(*) FROM outgoing_mails") == 0
        assert await superuser.fetchval("SELECT count(*) FROM link_tokens") == 0

    async def test_the_person_can_ask_again_afterwards(
        self, make_settings: MakeSettings, superuser: Superuser, tmp_path: Path
    ) -> None:
        await ask(superuser)
        async with running(SmtpServer(answers={"RCPT": NO_SUCH_USER})) as server:
            refusing = make_settings(mail=settings_for(server).model_dump())
            await send_due_mails(refusing, data_dir=tmp_path, clock=SystemClock())
        await superuser.execute(
            """INSERT INTO outgoing_mails (id, kind, recipient, created_at, due_at)
               VALUES ($1, 'reset-password', 'ada@example.com', now(), now())""",
            new_id(),
        )

        async with running(SmtpServer()) as server:
            taking = make_settings(mail=settings_for(server).model_dump())
            sent = await send_due_mails(taking, data_dir=tmp_path, clock=SystemClock())

        assert (sent, len(server.taken)) == (1, 1)

    async def test_a_mail_a_day_old_is_told_of_by_the_doctor_and_purged_in_a_month(
        self, make_settings: MakeSettings, superuser: Superuser, tmp_path: Path
    ) -> None:
        settings = make_settings()
        await ask(superuser)
        await superuser.execute(
            "UPDATE outgoing_mails SET created_at = now() - interval '25 hours'"
        )
        await send_due_mails(settings, data_dir=tmp_path, clock=SystemClock())

        told = [finding.text for finding in await examine(settings) if finding.level == "warning"]

        assert any("1 mails of the last 7 days could not be delivered" in text for text in told)
        assert any("Not delivered within 24 hours" in text for text in told)
        old = datetime.now(UTC) - timedelta(days=31)  # noqa: TID251  purged by the real time
        await superuser.execute("UPDATE undelivered_mails SET failed_at = $1", old)
        await purge_sign_in(settings.database, clock=SystemClock())
        assert await superuser.fetchval("SELECT count(*) FROM undelivered_mails") == 0


@pytest.mark.usefixtures("clean")
class TestDoctor:
    async def test_warns_while_an_administrator_keeps_a_password_that_was_given(
        self, make_settings: MakeSettings, superuser: Superuser
    ) -> None:
        settings = make_settings()
        await ask(superuser)
        await superuser.execute(
            "INSERT INTO memberships (tenant_id, account_id)"
            " SELECT home_tenant_id, id FROM accounts;"
            "INSERT INTO membership_roles"
            " SELECT home_tenant_id, id, 'platform_admin' FROM accounts"
        )

        async def warnings() -> list[str]:
            return [each.text for each in await examine(settings) if "never changed" in each.text]

        before = await warnings()
        await superuser.execute("UPDATE accounts SET password_change_required = true")

        assert before == []
        assert len(await warnings()) == 1
