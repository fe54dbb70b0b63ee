"""Deliveries to a real receiver: in order, signed, and all of them once it is back."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from maas.audit.application.events import EventComposer
from maas.audit.application.flush import LogUnavailableError
from maas.audit.domain.webhooks import DELIVERY_LIFETIME, wait_after
from maas.audit.infrastructure import webhooks_sender
from maas.audit.infrastructure.deliveries import open_deliveries
from maas.audit.infrastructure.webhooks_sender import LIMITS
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Superuser, Trail
from tests.integration.audit.watching import NOW, Receiver, Watching, is_signed, receiving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(60),
    pytest.mark.usefixtures("clean"),
]

OTHER = TenantId(new_id())


@pytest.fixture
def watching(trail: Trail, settings: Settings, superuser: Superuser) -> Watching:
    return Watching(trail, settings, superuser)


async def queue(
    watching: Watching, webhook_id: UUID, count: int, *, tenant_id: TenantId = DEFAULT_TENANT_ID
) -> list[str]:
    """Queue alerts for a webhook as the watch does, and tell their ids in order."""
    alerts = []
    for _ in range(count):
        alert_id, at = new_id(), watching.clock.now()
        await watching.superuser.execute(
            "INSERT INTO audit_alerts VALUES"
            " ($1, $2, 'new-admin', 'account', 'x', 1, $3, $3, $4, $5, $3)",
            *(alert_id, tenant_id, at, new_id(), [new_id()]),
        )
        await watching.superuser.execute(
            "INSERT INTO audit_deliveries (id, tenant_id, webhook_id, alert_id, status, attempts,"
            " created_at) VALUES ($1, $2, $3, $4, 'pending', 0, $5)",
            *(new_id(), tenant_id, webhook_id, alert_id, at),
        )
        alerts.append(str(alert_id))
    return alerts


async def state(superuser: Superuser, webhook_id: UUID) -> dict[str, Any]:
    row = await superuser.fetchrow(
        "SELECT w.status, w.status_reason, w.version, q.failures, q.next_attempt_at"
        " FROM audit_webhooks w JOIN audit_webhook_queues q ON q.webhook_id = w.id"
        " WHERE w.id = $1",
        webhook_id,
    )
    assert row is not None
    return dict(row)


async def actions(watching: Watching) -> list[tuple[str, Any]]:
    events = await watching.raised_events()
    return [(event["action"], event["changes"]["after"]) for event in events]


class TestInOrder:
    async def test_from_the_log_to_the_receiver(self, watching: Watching, trail: Trail) -> None:
        """Nothing is planted here: events, the flush, the watch, the delivery."""
        async with receiving() as receiver:
            await watching.hook(receiver.url)
            events = [
                trail.make(
                    "user.roles_changed",
                    resource_kind="account",
                    resource_id=str(new_id()),
                    before={"roles": []},
                    after={"roles": ["admin"]},
                    at=NOW,
                )
                for _ in range(3)
            ]
            await watching.log(*events)
            await watching.watch()

            assert await watching.deliver(receiver) == 3

        bodies = [json.loads(body) for _, body in receiver.got]
        assert [body["data"]["event_ids"] for body in bodies] == [[str(e.id)] for e in events]
        assert {body["type"] for body in bodies} == {"audit.alert"}
        headers, body = receiver.got[0]
        assert headers["content-type"] == "application/json"
        assert headers["webhook-timestamp"] == str(int(NOW.timestamp()))
        assert is_signed(headers, body, watching.secret)
        assert not is_signed(headers, body + b" ", watching.secret)
        assert not is_signed(headers, body, bytes(32))

    async def test_a_receiver_that_was_down_for_an_hour_gets_everything_in_order(
        self, watching: Watching
    ) -> None:
        receiver = Receiver()
        async with receiving(receiver):
            webhook_id = await watching.hook(receiver.url)
            alerts = await queue(watching, webhook_id, 2)
            await watching.deliver(receiver)
        for _ in range(60):
            alerts += await queue(watching, webhook_id, 1)
            assert await watching.deliver(receiver) == 0
            watching.clock.move(timedelta(minutes=1))
        attempts = await watching.superuser.fetchval("SELECT max(attempts) FROM audit_deliveries")
        async with receiving(receiver):
            watching.clock.move(timedelta(minutes=5))
            assert await watching.deliver(receiver) == 60

        assert receiver.alerts == alerts
        # 5, 10, 20, 40, 80, 160 s at least, then each 300: no tick tried without its being due.
        assert attempts <= 6 + 12
        assert set(await watching.deliveries(webhook_id)) == {"delivered"}
        assert (await state(watching.superuser, webhook_id))["failures"] == 0

    async def test_the_second_waits_while_the_first_fails(self, watching: Watching) -> None:
        async with receiving(Receiver(status=500)) as receiver:
            webhook_id = await watching.hook(receiver.url)
            await queue(watching, webhook_id, 3)

            assert await watching.deliver(receiver) == 0

            assert receiver.refused == 1
            assert await watching.deliveries(webhook_id) == ["pending"] * 3

    async def test_one_that_is_down_holds_up_no_other(self, watching: Watching) -> None:
        dead = Receiver()
        async with receiving(dead):
            pass
        async with receiving() as well:
            await queue(watching, await watching.hook(dead.url), 2)
            alerts = await queue(watching, await watching.hook(well.url), 5)

            assert await watching.deliver(dead, well) == 5

        assert well.alerts == alerts

    async def test_one_that_does_not_answer_holds_up_no_other(
        self, watching: Watching, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient = replace(LIMITS, total=timedelta(minutes=1), idle=timedelta(minutes=1))
        monkeypatch.setattr(webhooks_sender, "LIMITS", patient)
        held = asyncio.Event()
        async with receiving(Receiver(hold=held)) as slow, receiving() as well:
            await queue(watching, await watching.hook(slow.url), 1)
            alerts = await queue(watching, await watching.hook(well.url), 5)
            delivering = asyncio.create_task(watching.deliver(slow, well))
            await watching.trail.until(lambda: len(well.got) == len(alerts), seconds=30)
            assert slow.got == []

            held.set()

            assert await delivering == 6

    async def test_it_waits_longer_each_time(self, watching: Watching) -> None:
        async with receiving(Receiver(status=503)) as receiver:
            webhook_id = await watching.hook(receiver.url)
            await queue(watching, webhook_id, 1)
            waits: list[float] = []
            for _ in range(9):
                await watching.deliver(receiver)
                due = (await state(watching.superuser, webhook_id))["next_attempt_at"]
                waits.append((due - watching.clock.now()).total_seconds())
                watching.clock.move(due - watching.clock.now() - timedelta(seconds=1))
                await watching.deliver(receiver)
                watching.clock.move(timedelta(seconds=1))

        assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
        assert receiver.refused == 9

    async def test_two_secrets_sign_while_one_replaces_the_other(self, watching: Watching) -> None:
        async with receiving() as receiver:
            webhook_id = await watching.hook(receiver.url)
            other = await watching.hook(receiver.url)
            old, watching.secret = watching.secret, bytes(range(32, 64))
            third = await watching.hook(receiver.url)
            # Sealed for another row: it must not open here.
            await watching.superuser.execute(
                "UPDATE audit_webhooks SET secret ="
                " (SELECT secret FROM audit_webhooks WHERE id = $2) WHERE id = $1",
                *(webhook_id, other),
            )
            await watching.replace(third, until=NOW + timedelta(seconds=1))
            await queue(watching, webhook_id, 1)
            await queue(watching, third, 2)

            await watching.deliver(receiver)
            assert len(receiver.got) == 2
            headers, body = receiver.got[0]
            assert len(headers["webhook-signature"].split(" ")) == 2
            assert is_signed(headers, body, watching.secret)
            assert not is_signed(headers, body, old)

        error = await watching.superuser.fetchval(
            "SELECT last_error FROM audit_deliveries WHERE webhook_id = $1", webhook_id
        )
        assert error == "secret-unreadable"


class TestTurns:
    async def due(self, watching: Watching) -> list[UUID]:
        composer = EventComposer(watching.clock)
        async with open_deliveries(watching.settings.database, composer=composer) as deliveries:
            assert deliveries is not None
            return [each.webhook_id for each in await deliveries.list_due(at=watching.clock.now())]

    @pytest.mark.parametrize("status", [200, 503])
    async def test_who_was_tried_stands_at_the_end(self, watching: Watching, status: int) -> None:
        async with receiving(Receiver(status=status)) as receiver:
            first = await watching.hook(receiver.url)
            await queue(watching, first, 1)
            await watching.deliver(receiver)
            await queue(watching, first, 1)
            second = await watching.hook(receiver.url)
            await queue(watching, second, 1)
            watching.clock.move(timedelta(minutes=1))
            await watching.superuser.execute(
                "UPDATE audit_webhook_queues SET failures = 3 WHERE webhook_id = $1", second
            )

            assert await self.due(watching) == [second, first]

    async def test_a_clock_that_was_ahead_freezes_no_queue(self, watching: Watching) -> None:
        async with receiving(Receiver(status=503)) as receiver:
            await queue(watching, await watching.hook(receiver.url), 1)
            watching.clock.move(timedelta(days=2))
            await watching.deliver(receiver)
            watching.clock.move(timedelta(days=-2))
            receiver.status = 200

            assert await watching.deliver(receiver) == 1

    async def test_no_answer_within_seconds_is_a_failure(self) -> None:
        assert LIMITS.total is not None
        assert LIMITS.total <= timedelta(seconds=5)


class TestTenants:
    async def test_nobody_puts_anything_into_anothers_queue(self, watching: Watching) -> None:
        """With SQL of his own, for no route could do it."""
        theirs = await watching.hook("https://alerts.example.com/", tenant_id=OTHER)
        own = await watching.hook("https://alerts.example.com/")
        (alert,) = await queue(watching, own, 1)
        (their_alert,) = await queue(watching, theirs, 1, tenant_id=OTHER)

        for webhook_id, alert_id in ((theirs, alert), (own, their_alert)):
            with pytest.raises(asyncpg.ForeignKeyViolationError):
                await _queue_as_the_application(watching.superuser, webhook_id, UUID(alert_id))


async def _queue_as_the_application(superuser: Superuser, webhook_id: UUID, alert_id: UUID) -> None:
    async with superuser.transaction():
        await superuser.execute("SET LOCAL ROLE maas_app")
        await superuser.execute(
            "SELECT set_config('maas.tenant_id', $1, true)", str(DEFAULT_TENANT_ID)
        )
        await superuser.execute(
            "INSERT INTO audit_deliveries (id, tenant_id, webhook_id, alert_id, status,"
            " attempts, created_at) VALUES ($1, $2, $3, $4, 'pending', 0, now())",
            *(new_id(), DEFAULT_TENANT_ID, webhook_id, alert_id),
        )


class TestAtLeastOnce:
    async def test_killed_after_sending_the_same_message_goes_again(
        self, watching: Watching
    ) -> None:
        async with receiving() as receiver:
            webhook_id = await watching.hook(receiver.url)
            alerts = await queue(watching, webhook_id, 2)

            with pytest.raises(ExceptionGroup):
                await watching.deliver(receiver, checkpoint=_cut)
            assert await watching.deliver(receiver) == 2

        assert receiver.alerts == [alerts[0], *alerts]
        ids = [headers["webhook-id"] for headers, _ in receiver.got]
        assert ids[0] == ids[1] != ids[2]
        assert receiver.got[0][1] == receiver.got[1][1]

    async def test_two_at_once_send_no_more_than_one(self, watching: Watching) -> None:
        async with receiving() as receiver:
            await queue(watching, await watching.hook(receiver.url), 1)
            async with watching.superuser.transaction():
                await watching.superuser.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended('maas.audit_deliver', 0))"
                )
                assert await watching.deliver(receiver) == 0

            assert await watching.deliver(receiver) == 1

    async def test_without_postgresql_it_says_so(self, settings: Settings) -> None:
        gone = type(settings.database.url)("postgresql+asyncpg://x@127.0.0.1:1/x")
        database = settings.database.model_copy(update={"system_url": gone})
        watching = Watching(None, settings.model_copy(update={"database": database}), None)  # type: ignore[arg-type]  # neither is looked at

        with pytest.raises(LogUnavailableError):
            await watching.deliver()


class TestGivingUp:
    async def test_after_three_days_it_is_given_up_and_told(self, watching: Watching) -> None:
        async with receiving(Receiver(status=500)) as receiver:
            webhook_id = await watching.hook(receiver.url)
            await queue(watching, webhook_id, 3)
            watching.clock.move(DELIVERY_LIFETIME)
            late = await queue(watching, webhook_id, 1)
            await watching.deliver(receiver)
            assert await watching.deliveries(webhook_id) == ["pending"] * 4

            watching.clock.move(timedelta(minutes=5))
            await watching.deliver(receiver)
            assert await watching.deliveries(webhook_id) == ["failed"] * 3 + ["pending"]
            assert await actions(watching) == [("audit.delivery_failed", {"failed_deliveries": 3})]
            receiver.status = 200
            watching.clock.move(timedelta(minutes=5))

            assert await watching.deliver(receiver) == 1

        assert receiver.alerts == late

    async def test_one_who_is_gone_turns_it_off(self, watching: Watching) -> None:
        async with receiving(Receiver(status=410)) as receiver:
            webhook_id = await watching.hook(receiver.url)
            await queue(watching, webhook_id, 2)

            await watching.deliver(receiver)
            watching.clock.move(timedelta(hours=1))
            await watching.deliver(receiver)

        assert receiver.refused == 1
        now = await state(watching.superuser, webhook_id)
        assert (now["status"], now["status_reason"], now["version"]) == ("disabled", "gone", 2)
        assert await actions(watching) == [("audit.webhook_disabled", {"status": "disabled"})]

    async def test_what_waits_for_one_that_is_off_goes_after_three_days(
        self, watching: Watching
    ) -> None:
        webhook_id = await watching.hook(Receiver(port=9).url)
        await queue(watching, webhook_id, 2)
        await watching.superuser.execute("UPDATE audit_webhooks SET status = 'disabled'")
        watching.clock.move(DELIVERY_LIFETIME)
        await watching.deliver()
        assert await watching.deliveries(webhook_id) == ["pending"] * 2

        watching.clock.move(timedelta(seconds=1))
        await watching.deliver()

        assert await watching.deliveries(webhook_id) == ["failed"] * 2
        assert await actions(watching) == [("audit.delivery_failed", {"failed_deliveries": 2})]

    async def test_the_log_is_kept_for_a_month(self, watching: Watching) -> None:
        async with receiving() as receiver:
            webhook_id = await watching.hook(receiver.url)
            await queue(watching, webhook_id, 1)
            await watching.deliver(receiver)
        watching.clock.move(timedelta(days=30))
        await watching.deliver()
        assert await watching.deliveries(webhook_id) == ["delivered"]

        watching.clock.move(timedelta(seconds=1))
        await watching.deliver()

        assert await watching.deliveries(webhook_id) == []


class TestGuard:
    @pytest.mark.parametrize(
        ("url", "error"),
        [
            ("https://127.0.0.1:1/x", "no-public-address"),
            ("https://[::ffff:127.0.0.1]/x", "no-public-address"),
            ("https://localhost/x", "no-public-address"),
            ("http://127.0.0.1:1/x", "no-public-address"),
        ],
    )
    async def test_a_url_that_came_past_the_api_is_refused_all_the_same(
        self, watching: Watching, url: str, error: str
    ) -> None:
        webhook_id = await watching.hook(url)
        await queue(watching, webhook_id, 1)

        await watching.deliver()

        row = await watching.superuser.fetchrow(
            "SELECT last_error, last_status, attempts FROM audit_deliveries"
        )
        assert row is not None
        assert tuple(row) == (error, None, 1)

    async def test_a_redirect_is_not_followed(self, watching: Watching) -> None:
        async with (
            receiving() as inner,
            receiving(Receiver(status=307, location=inner.url)) as receiver,
        ):
            await queue(watching, await watching.hook(receiver.url), 1)

            assert await watching.deliver(receiver, inner) == 0

        assert inner.got == []
        assert await watching.superuser.fetchval("SELECT last_error FROM audit_deliveries") == (
            "redirect"
        )


class TestSecrets:
    async def test_no_secret_and_no_answer_is_kept_or_logged(
        self, watching: Watching, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with receiving(Receiver(status=500)) as receiver:
            webhook_id = await watching.hook(receiver.url)
            await queue(watching, webhook_id, 1)
            await watching.deliver(receiver)

        texts: list[str] = ["".join(capfd.readouterr())]
        for table in ("audit_webhooks", "audit_deliveries", "audit_outbox"):
            rows: Sequence[Any] = await watching.superuser.fetch(
                f"SELECT t::text AS row FROM {table} t"
            )
            texts += [row["row"] for row in rows]
        for text in texts:
            assert watching.secret.hex() not in text
            assert "canary-of-the-answer" not in text
        assert "audit_delivery_put_off" in texts[0]
        assert receiver.url not in texts[0]


def test_waits_double_up_to_five_minutes() -> None:
    waits = [wait_after(failures).total_seconds() for failures in (0, 1, 2, 7, 8, 10**9)]

    assert waits == [5, 5, 10, 300, 300, 300]


class Cut(Exception):  # noqa: N818  not an error: a stop
    """Stands in for a kill."""


def _cut(at: str) -> None:
    if at == "after_send":
        raise Cut
