"""The watch over the real log: every alert once, whatever happens in between."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from maas.audit.application.events import QueuedEvent
from maas.audit.application.flush import LogUnavailableError
from maas.audit.application.watch import SliceTooLongError, WatchService
from maas.audit.infrastructure.watch import open_watch
from maas.audit.public import Actor
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, TenantId, new_id
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Superuser, Trail, names
from tests.integration.audit.watching import NOW, Receiver, Watching, receiving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(60),
    pytest.mark.usefixtures("clean"),
]

ADA = AccountId(new_id())
OTHER = TenantId(new_id())


@pytest.fixture
def watching(trail: Trail, settings: Settings, superuser: Superuser) -> Watching:
    return Watching(trail, settings, superuser)


def failed_logins(trail: Trail, count: int, **fields: Any) -> list[QueuedEvent]:
    values: dict[str, Any] = {"outcome": "failure", "reason": "invalid-credentials"}
    actor = fields.pop("actor", Actor("anonymous", None, "ada"))
    step = fields.pop("step", timedelta(minutes=1))
    return [
        trail.make("auth.login", actor=actor, at=NOW + step * index, **{**values, **fields})
        for index in range(count)
    ]


def deletions(trail: Trail, count: int, **fields: Any) -> list[QueuedEvent]:
    actor = Actor("account", fields.pop("actor_id", ADA), "ada")
    step = fields.pop("step", timedelta(seconds=1))
    return [
        trail.make("model.deleted", actor=actor, at=NOW + step * index, **fields)
        for index in range(count)
    ]


def moves(trail: Trail, count: int, **fields: Any) -> list[QueuedEvent]:
    return [
        trail.make(
            "model.read",
            actor=Actor("account", ADA, "ada"),
            address=f"192.0.2.{index}",
            at=NOW + timedelta(minutes=index),
            **fields,
        )
        for index in range(count)
    ]


def grant(trail: Trail, roles: Sequence[str], **fields: Any) -> QueuedEvent:
    return trail.make(
        "user.roles_changed",
        actor=Actor("account", new_id(), "ada"),
        resource_kind="account",
        resource_id=str(ADA),
        before={"roles": ["user"]},
        after={"roles": [*roles]},
        at=NOW,
        **fields,
    )


def reached(trail: Trail, share: int, **fields: Any) -> QueuedEvent:
    return trail.make(
        "quota.reached",
        actor=Actor("system", None, "budgets"),
        resource_kind="tenant",
        resource_id=str(DEFAULT_TENANT_ID),
        after={"scope": "tenant", "share": share},
        at=NOW,
        **fields,
    )


def night_act(trail: Trail, hour: int) -> QueuedEvent:
    at = NOW.astimezone(ZoneInfo("Asia/Shanghai")).replace(hour=hour)
    return trail.make("model.created", actor=Actor("account", ADA, "ada"), at=at)


async def set_rule(
    superuser: Superuser, rule: str, *, is_enabled: bool = True, **parameters: object
) -> None:
    await superuser.execute(
        "INSERT INTO audit_rule_settings VALUES ($1, $2, $3, $4, clock_timestamp(), 1)",
        *(DEFAULT_TENANT_ID, rule, is_enabled, json.dumps(parameters)),
    )


class TestEachRule:
    """On its scenario once, and not on its near miss; the fine print is in the unit tests."""

    async def test_failed_logins(self, watching: Watching, trail: Trail) -> None:
        await watching.log(*failed_logins(trail, 4))
        assert await watching.watch() == 0

        await watching.log(*failed_logins(trail, 1))
        assert await watching.watch() == 1
        await watching.log(*failed_logins(trail, 3))
        assert await watching.watch() == 0

        (alert,) = await watching.alerts()
        assert (alert["rule"], alert["count"]) == ("failed-login-burst", 5)
        assert (alert["subject_kind"], alert["subject_id"]) == ("login", None)

    async def test_failed_logins_just_too_far_apart(self, watching: Watching, trail: Trail) -> None:
        await watching.log(*failed_logins(trail, 5, step=timedelta(minutes=15, seconds=1)))

        assert await watching.watch() == 0

    async def test_many_addresses(self, watching: Watching, trail: Trail) -> None:
        await watching.log(*moves(trail, 10))
        assert await watching.watch() == 0

        await watching.log(*moves(trail, 12)[10:])
        assert await watching.watch() == 1

        (alert,) = await watching.alerts()
        assert (alert["rule"], alert["count"], alert["subject_id"]) == (
            "many-addresses",
            11,
            str(ADA),
        )

    async def test_addresses_that_were_erased_count_no_more(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        events = moves(trail, 11)
        await watching.log(*events[:10])
        await watching.watch()
        await superuser.execute("DELETE FROM audit_personal WHERE event_id = $1", events[0].id)

        await watching.log(events[10])

        assert await watching.watch() == 0

    async def test_a_new_admin(self, watching: Watching, trail: Trail) -> None:
        await watching.log(grant(trail, ["user", "developer"]))
        assert await watching.watch() == 0

        await watching.log(grant(trail, ["user", "admin"]))
        assert await watching.watch() == 1

        (alert,) = await watching.alerts()
        assert (alert["subject_kind"], alert["subject_id"]) == ("account", str(ADA))

    async def test_a_role_of_another_name_that_allows_as_much(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        roles = (("watched-helper", "{role:*}"), ("watched-reader", "{model:read}"))
        await superuser.executemany(
            "INSERT INTO roles (tenant_id, name, permissions) VALUES ($1, $2, $3::text::text[])",
            [(DEFAULT_TENANT_ID, name, permissions) for name, permissions in roles],
        )
        try:
            await watching.log(grant(trail, ["watched-reader"]))
            await watching.log(grant(trail, ["watched-helper"], tenant_id=OTHER))
            assert await watching.watch() == 0

            await watching.log(grant(trail, ["user", "watched-helper"]))
            assert await watching.watch() == 1
        finally:
            await superuser.execute("DELETE FROM roles WHERE name LIKE 'watched-%'")

    async def test_mass_deletion(self, watching: Watching, trail: Trail) -> None:
        await watching.log(*deletions(trail, 20))
        assert await watching.watch() == 0

        events = deletions(trail, 30)
        await watching.log(*events)
        assert await watching.watch() == 1

        (alert,) = await watching.alerts()
        assert (alert["rule"], alert["count"]) == ("mass-deletion", 21)

    async def test_a_budget_that_is_used_up(self, watching: Watching, trail: Trail) -> None:
        await watching.log(reached(trail, 80), reached(trail, 100))

        assert await watching.watch() == 2
        assert await watching.watch() == 0

        for alert in await watching.alerts():
            assert (alert["rule"], alert["count"]) == ("budget-reached", 1)
            assert (alert["subject_kind"], alert["subject_id"]) == (
                "tenant",
                str(DEFAULT_TENANT_ID),
            )

    async def test_night_activity_where_it_is_on(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await watching.log(night_act(trail, 23))
        assert await watching.watch() == 0

        await set_rule(superuser, "night-activity", time_zone="Asia/Shanghai")
        await watching.log(night_act(trail, 21))
        assert await watching.watch() == 0
        await watching.log(night_act(trail, 22), night_act(trail, 23))
        assert await watching.watch() == 1

    async def test_reads_of_the_same_minute_hide_nothing(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await set_rule(superuser, "night-activity", since="00:00", until="23:59")
        read = trail.make("model.read", actor=Actor("account", ADA, "ada"), at=NOW)

        await watching.log(read, *deletions(trail, 21))

        assert await watching.watch() == 2
        assert sorted(await watching.rules()) == ["mass-deletion", "night-activity"]

    async def test_a_tenants_own_numbers(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await set_rule(superuser, "mass-deletion", deletions=2, minutes=1)
        await watching.log(*deletions(trail, 3))
        await watching.log(*deletions(trail, 3, actor_id=new_id(), tenant_id=OTHER))

        await watching.watch()

        (alert,) = await watching.alerts()
        assert alert["tenant_id"] == DEFAULT_TENANT_ID

    async def test_old_parameters_make_nothing_quiet(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await set_rule(superuser, "mass-deletion", deletions=1, minutes=1_440)
        await watching.log(*deletions(trail, 2))
        assert await watching.watch() == 1
        await watching.log(*deletions(trail, 2))
        assert await watching.watch() == 0

        await superuser.execute("UPDATE audit_rule_settings SET version = 2, parameters = '{}'")
        await watching.log(*deletions(trail, 21))

        assert await watching.watch() == 1

    async def test_a_rule_that_is_off(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await set_rule(superuser, "mass-deletion", is_enabled=False)
        await watching.log(*deletions(trail, 21))

        assert await watching.watch() == 0

    async def test_a_setting_nobody_can_read_stops_nothing(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await set_rule(superuser, "night-activity", time_zone="Gone/Away")
        await set_rule(superuser, "no-such-rule")
        await watching.log(*deletions(trail, 21))

        assert await watching.watch() == 1

    async def test_tenants_and_people_do_not_add_up(self, watching: Watching, trail: Trail) -> None:
        await watching.log(*deletions(trail, 20), *deletions(trail, 20, tenant_id=OTHER))
        await watching.log(*deletions(trail, 20, actor_id=new_id()))

        assert await watching.watch() == 0


class TestOnce:
    async def test_two_subjects_of_one_event_are_one_alert(
        self, watching: Watching, trail: Trail
    ) -> None:
        await watching.log(*failed_logins(trail, 5))

        assert await watching.watch() == 1
        assert await watching.watch() == 0
        assert [event["action"] for event in await watching.raised_events()] == ["audit.alert"]

    @pytest.mark.parametrize("spread", [1, 7])
    async def test_many_guesses_do_not_hide_behind_some_at_ones_own_account(
        self, watching: Watching, trail: Trail, spread: int
    ) -> None:
        """However the log is cut into slices, each of the two is told once."""
        own = failed_logins(trail, 7, step=timedelta(seconds=1))
        others = [
            event
            for index in range(5)
            for event in failed_logins(trail, 1, actor=Actor("anonymous", None, f"v{index}"))
        ]
        for at in range(0, 7, spread):
            await watching.log(*own[at : at + spread])
            await watching.watch()
        assert [alert["subject_kind"] for alert in await watching.alerts()] == ["login"]

        await watching.log(*others)

        assert await watching.watch() == 1
        assert await watching.watch() == 0
        kinds = {alert["subject_kind"]: alert["count"] for alert in await watching.alerts()}
        assert set(kinds) == {"login", "address"}
        assert kinds["login"] == 5

    async def test_events_that_cost_too_much_are_judged_one_by_one(
        self, watching: Watching, trail: Trail, settings: Settings
    ) -> None:
        await watching.log(*deletions(trail, 21))
        async with open_watch(settings.database, key=bytes(32), clock=watching.clock) as log:
            with pytest.raises(SliceTooLongError):
                await log.watch_slice(2, patience=0)
            assert await WatchService(log=log, slice_seconds=0, run_seconds=50).run() == 1

    async def test_small_slices_see_what_a_big_one_sees(
        self, watching: Watching, trail: Trail, settings: Settings
    ) -> None:
        await watching.log(*deletions(trail, 25), *failed_logins(trail, 6), *moves(trail, 12))

        async with open_watch(settings.database, key=bytes(32), clock=watching.clock) as log:
            assert await WatchService(log=log, slice_events=1).run() == 3

        assert sorted(await watching.rules()) == [
            "failed-login-burst",
            "many-addresses",
            "mass-deletion",
        ]

    async def test_a_run_that_takes_too_long_stops_and_goes_on_later(
        self, watching: Watching, trail: Trail, settings: Settings
    ) -> None:
        await watching.log(*deletions(trail, 21))
        async with open_watch(settings.database, key=bytes(32), clock=watching.clock) as log:
            runs = [
                await WatchService(log=log, slice_events=10, run_seconds=0).run() for _ in range(3)
            ]

        assert runs == [0, 0, 1]

    @pytest.mark.parametrize("point", ["after_judging", "before_commit"])
    async def test_cut_off_before_the_commit_nothing_had_happened(
        self, watching: Watching, trail: Trail, point: str
    ) -> None:
        async with receiving() as receiver:
            webhook_id = await watching.hook(receiver.url)
        await watching.log(*deletions(trail, 21))

        with pytest.raises(Cut):
            await watching.watch(checkpoint=cutting(point))

        assert await watching.alerts() == []
        assert await watching.raised_events() == []
        assert await watching.deliveries(webhook_id) == []
        assert await watching.watch() == 1
        assert await watching.deliveries(webhook_id) == ["pending"]
        assert len(await watching.raised_events()) == 1

    async def test_cut_off_after_the_commit_it_does_not_happen_again(
        self, watching: Watching, trail: Trail
    ) -> None:
        await watching.log(*deletions(trail, 21))

        with pytest.raises(Cut):
            await watching.watch(checkpoint=cutting("after_commit"))

        assert await watching.watch() == 0
        assert len(await watching.alerts()) == len(await watching.raised_events()) == 1

    async def test_two_at_once_do_no_more_than_one(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await watching.log(*deletions(trail, 21))
        async with superuser.transaction():
            await superuser.execute("SELECT FROM audit_watch FOR UPDATE")
            assert await watching.watch() == 0

        assert await watching.watch() == 1

    async def test_alerts_raise_no_alerts(self, watching: Watching, trail: Trail) -> None:
        await watching.log(*(grant(trail, ["admin"]) for _ in range(30)))
        assert await watching.watch() == 30
        await trail.age()
        await trail.flush().run()

        assert await watching.watch() == 0
        logged = await trail.superuser.fetchval(
            "SELECT count(*) FROM audit_log WHERE action = 'audit.alert'"
        )
        assert logged == 30

    async def test_late_events_complete_a_window_that_lies_behind(
        self, watching: Watching, trail: Trail
    ) -> None:
        late, *events = failed_logins(trail, 5)
        await watching.log(*events)
        await watching.watch()
        await watching.log(trail.make(at=NOW + timedelta(hours=8)))
        await watching.watch()

        await watching.log(late)

        assert await watching.watch() == 1
        (alert,) = await watching.alerts()
        assert {str(each) for each in alert["event_ids"]} == set(names(late, *events))

    async def test_what_the_upgrade_found_in_the_log_raises_nothing(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await watching.log(*deletions(trail, 40), *failed_logins(trail, 9))
        await superuser.execute("UPDATE audit_watch SET seq = (SELECT seq FROM audit_head)")
        await watching.log(*deletions(trail, 1), *failed_logins(trail, 1))

        assert await watching.watch() == 0


class TestWhatIsKept:
    async def test_an_alert_holds_nothing_personal(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        actor = Actor("anonymous", None, "canary-name")
        await watching.log(*failed_logins(trail, 5, actor=actor, email="canary@example.com"))

        await watching.watch()

        (event,) = await watching.raised_events()
        assert event["actor"] == {"kind": "system", "id": None}
        assert event["changes"]["after"] == {
            "count": 5,
            "rule": "failed-login-burst",
            "subject_id": None,
            "subject_kind": "login",
        }
        for table in ("audit_alerts", "audit_watch_points", "audit_watch_quiet", "audit_outbox"):
            rows = await superuser.fetch(f"SELECT t::text AS row FROM {table} t")
            for row in rows:
                assert "canary" not in row["row"]
                assert "192.0.2.7" not in row["row"]

    async def test_points_and_quiet_spans_go_within_days(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        await watching.log(*failed_logins(trail, 5), *deletions(trail, 3))
        await watching.watch()
        assert await trail.count("audit_watch_points") > 0
        assert await trail.count("audit_watch_quiet") > 0
        for table in ("audit_watch_points", "audit_watch_quiet"):
            await superuser.execute(f"UPDATE {table} SET noted_at = noted_at - interval '8 days'")

        await watching.watch()

        assert await trail.count("audit_watch_points") == 0
        assert await trail.count("audit_watch_quiet") == 0

    async def test_a_webhook_hears_what_it_asked_for(
        self, watching: Watching, trail: Trail, superuser: Superuser
    ) -> None:
        url = Receiver(port=9).url
        everything, deleting = await watching.hook(url), await watching.hook(url)
        off, foreign = await watching.hook(url), await watching.hook(url, tenant_id=OTHER)
        await superuser.execute(
            "UPDATE audit_webhooks SET rules = '{mass-deletion}' WHERE id = $1", deleting
        )
        await superuser.execute("UPDATE audit_webhooks SET status = 'disabled' WHERE id = $1", off)
        await watching.log(*deletions(trail, 21), *failed_logins(trail, 5))

        await watching.watch()

        assert await watching.deliveries(everything) == ["pending", "pending"]
        assert await watching.deliveries(deleting) == ["pending"]
        assert await watching.deliveries(off) == []
        assert await watching.deliveries(foreign) == []

    async def test_of_a_storm_the_last_says_that_there_may_be_more(
        self, watching: Watching, trail: Trail, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maas.audit.infrastructure.watch_alerts.MAX_ALERTS_AN_HOUR", 3)
        webhook_id = await watching.hook(Receiver(port=9).url)
        await watching.log(*(grant(trail, ["admin"]) for _ in range(2)))
        assert await watching.watch() == 2
        await watching.log(*(grant(trail, ["admin"]) for _ in range(4)), *deletions(trail, 21))
        assert await watching.watch() == 2

        alerts = await watching.alerts()
        muted = [(alert["rule"], alert["muted_until"]) for alert in alerts if alert["muted_until"]]
        assert muted == [("new-admin", NOW + timedelta(hours=1))]
        told = [event["changes"]["after"] for event in await watching.raised_events()]
        assert [each["muted_until"] for each in told if "muted_until" in each] == [
            "2026-11-20T13:00:00.000000Z"
        ]
        assert await watching.deliveries(webhook_id) == ["pending"] * 4
        watching.clock.move(timedelta(hours=1))
        await watching.log(grant(trail, ["admin"]))
        assert await watching.watch() == 1

    async def test_a_full_queue_takes_no_more(
        self, watching: Watching, trail: Trail, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maas.audit.infrastructure.watch_alerts.MAX_PENDING", 2)
        webhook_id = await watching.hook(Receiver(port=9).url)
        await watching.log(*(grant(trail, ["admin"]) for _ in range(3)))

        await watching.watch()

        assert await watching.deliveries(webhook_id) == ["pending", "pending", "failed"]


async def test_without_postgresql_it_says_so(settings: Settings) -> None:
    gone = settings.database.model_copy(
        update={"system_url": type(settings.database.url)("postgresql+asyncpg://x@127.0.0.1:1/x")}
    )
    watching = Watching(None, settings.model_copy(update={"database": gone}), None)  # type: ignore[arg-type]  # neither is looked at

    with pytest.raises(LogUnavailableError):
        await watching.watch()


class Cut(Exception):  # noqa: N818  not an error: a stop
    """Stands in for a kill."""


def cutting(point: str) -> Any:
    def cut(at: str) -> None:
        if at == point:
            raise Cut

    return cut
