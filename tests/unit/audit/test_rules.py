"""Each rule on its scenario, and on what only looks like it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import process_time
from typing import Any
from uuid import UUID

import pytest

from maas.audit.domain.rules import (
    RULES,
    FailedLoginBurst,
    InvalidRuleParameterError,
    ManyAddresses,
    MassDeletion,
    NewAdmin,
    NightActivity,
    Rule,
    RuleNotFoundError,
    rule_type,
)
from maas.audit.domain.rules_clues import Subject, WatchedEvent
from maas.audit.domain.rules_settings import RuleSetting
from maas.audit.domain.watch import Burst, Point, Quiet, Verdict, judge
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ADA = new_id()


def event(action: str = "model.deleted", *, at: datetime = NOON, **fields: Any) -> WatchedEvent:
    values: dict[str, Any] = {
        "id": new_id(),
        "tenant_id": DEFAULT_TENANT_ID,
        "at": at,
        "actor_kind": "account",
        "actor_id": ADA,
        "action": action,
        "resource_kind": "model",
        "resource_id": "m",
        "outcome": "success",
        "reason": None,
        "actor_name": "ada",
        "address": "192.0.2.7",
    }
    return WatchedEvent(**{**values, **fields})


def failed_login(*, at: datetime = NOON, **fields: Any) -> WatchedEvent:
    values = {
        "actor_kind": "anonymous",
        "actor_id": None,
        "outcome": "failure",
        "reason": "invalid-credentials",
    }
    return event("auth.login", at=at, **{**values, **fields})


def verdicts(
    rule: Rule, events: Iterable[WatchedEvent], *, one_by_one: bool = False
) -> dict[Subject, list[Burst]]:
    """Judge events as the watch does: all at once, or each by itself."""
    found: dict[Subject, list[Burst]] = {}
    waiting: dict[Subject, list[Point]] = {}
    quiet: dict[Subject, list[Quiet]] = {}
    batches = [[each] for each in events] if one_by_one else [list(events)]
    for batch in batches:
        new: dict[Subject, list[Point]] = {}
        for each in batch:
            for clue in rule.clues(each):
                new.setdefault(clue.subject, []).append(Point(each.at, each.id, clue.points_to))
        for subject, points in new.items():
            verdict: Verdict = judge(
                rule,
                new=points,
                old=waiting.get(subject, []),
                quiet=quiet.get(subject, []),
            )
            waiting[subject] = verdict.waiting
            quiet.setdefault(subject, []).extend(verdict.quiet)
            if verdict.bursts:
                found.setdefault(subject, []).extend(verdict.bursts)
    return found


def spread(count: int, over: timedelta, *, since: datetime = NOON) -> list[datetime]:
    return [since + over * index / (count - 1) for index in range(count)]


BATCHES = pytest.mark.parametrize("one_by_one", [True, False])


@BATCHES
class TestFailedLoginBurst:
    RULE = FailedLoginBurst()
    ACCOUNT, ADDRESS = Subject("login", "ada"), Subject("address", "192.0.2.7")

    def test_five_within_an_hour_fire_once(self, *, one_by_one: bool) -> None:
        events = [failed_login(at=at) for at in spread(5, timedelta(hours=1))]

        found = verdicts(self.RULE, events, one_by_one=one_by_one)

        assert set(found) == {self.ACCOUNT, self.ADDRESS}
        (burst,) = found[self.ACCOUNT]
        assert burst.count == 5
        assert burst.event_ids == tuple(each.id for each in events)
        assert (burst.first_at, burst.last_at) == (events[0].at, events[-1].at)
        assert burst.trigger_id == events[-1].id

    def test_four_do_not(self, *, one_by_one: bool) -> None:
        events = [failed_login(at=at) for at in spread(4, timedelta(minutes=1))]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_five_in_a_second_more_do_not(self, *, one_by_one: bool) -> None:
        events = [failed_login(at=at) for at in spread(5, timedelta(hours=1, seconds=1))]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_five_of_different_accounts_from_different_addresses_do_not(
        self, *, one_by_one: bool
    ) -> None:
        events = [
            failed_login(actor_name=f"u{index}", address=f"192.0.2.{index}") for index in range(5)
        ]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_one_address_that_tries_many_names_fires(self, *, one_by_one: bool) -> None:
        events = [failed_login(actor_name=None) for _ in range(5)]

        assert set(verdicts(self.RULE, events, one_by_one=one_by_one)) == {self.ADDRESS}

    def test_one_account_tried_from_many_addresses_fires(self, *, one_by_one: bool) -> None:
        events = [failed_login(address=f"192.0.2.{index}") for index in range(5)]

        assert set(verdicts(self.RULE, events, one_by_one=one_by_one)) == {self.ACCOUNT}

    def test_the_right_password_is_no_guess(self, *, one_by_one: bool) -> None:
        events = [failed_login(reason="no-membership") for _ in range(5)]
        events += [failed_login(outcome="success", reason=None) for _ in range(5)]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_what_goes_on_is_told_again_after_an_hour(self, *, one_by_one: bool) -> None:
        events = [failed_login(at=NOON + timedelta(minutes=index)) for index in range(121)]

        found = verdicts(self.RULE, events, one_by_one=one_by_one)

        times = [burst.last_at - NOON for burst in found[self.ACCOUNT]]
        assert times == [timedelta(minutes=4), timedelta(minutes=68)]

    def test_late_ones_count_by_when_they_occurred(self, *, one_by_one: bool) -> None:
        events = [failed_login(at=at) for at in spread(5, timedelta(minutes=30))]
        late = [*events[1:], failed_login(at=NOON + timedelta(hours=9)), events[0]]

        found = verdicts(self.RULE, late, one_by_one=one_by_one)

        (burst,) = found[self.ACCOUNT]
        assert set(burst.event_ids) == {each.id for each in events}

    def test_ipv6_counts_by_its_site(self, *, one_by_one: bool) -> None:
        events = [
            failed_login(actor_name=None, address=f"2001:db8::{index}") for index in range(1, 6)
        ]

        found = verdicts(self.RULE, events, one_by_one=one_by_one)

        assert set(found) == {Subject("address", "2001:db8::/64")}


@BATCHES
class TestManyAddresses:
    RULE = ManyAddresses()

    def events(self, count: int, over: timedelta) -> list[WatchedEvent]:
        times = spread(count, over)
        return [
            event("model.created", at=at, address=f"192.0.2.{index}")
            for index, at in enumerate(times)
        ]

    def test_eleven_within_a_day_fire_once(self, *, one_by_one: bool) -> None:
        events = self.events(11, timedelta(days=1))

        found = verdicts(
            self.RULE, [*events, *self.events(3, timedelta(hours=1))], one_by_one=one_by_one
        )

        (burst,) = found[Subject.account(ADA)]
        assert burst.count == 11

    def test_ten_do_not_however_often(self, *, one_by_one: bool) -> None:
        events = self.events(10, timedelta(hours=1)) * 3

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_eleven_in_a_second_more_do_not(self, *, one_by_one: bool) -> None:
        events = self.events(11, timedelta(days=1, seconds=1))

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_an_address_counts_by_when_it_was_last_seen(self, *, one_by_one: bool) -> None:
        """The first is seen again, so that eleven lie within a day after all."""
        events = self.events(11, timedelta(days=1, seconds=1))
        again = replace(events[0], id=new_id(), at=NOON + timedelta(hours=3))
        ordered = sorted([*events, again], key=lambda each: each.at)

        assert len(verdicts(self.RULE, ordered, one_by_one=one_by_one)) == 1

    def test_those_of_different_actors_do_not(self, *, one_by_one: bool) -> None:
        events = [replace(each, actor_id=new_id()) for each in self.events(11, timedelta(hours=1))]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_one_site_of_ipv6_is_one(self, *, one_by_one: bool) -> None:
        events = [
            replace(each, address=f"2001:db8::{index}")
            for index, each in enumerate(self.events(20, timedelta(hours=1)), start=1)
        ]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_what_was_erased_counts_no_more(self, *, one_by_one: bool) -> None:
        events = self.events(11, timedelta(hours=1))
        events[3] = replace(events[3], address=None)

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}


def local(text: str) -> datetime:
    return datetime.fromisoformat(text)


class TestNightActivity:
    SHANGHAI = NightActivity(time_zone="Asia/Shanghai")
    BERLIN = NightActivity(time_zone="Europe/Berlin")

    @pytest.mark.parametrize(
        ("at", "is_night"),
        [
            ("2026-11-20T21:59:59+08:00", False),
            ("2026-11-20T22:00:00+08:00", True),
            ("2026-11-21T05:59:59+08:00", True),
            ("2026-11-21T06:00:00+08:00", False),
            ("2026-11-20T14:00:00+00:00", True),
            ("2026-11-20T22:00:00+00:00", False),
        ],
    )
    def test_night_is_by_the_clocks_of_the_zone(self, at: str, *, is_night: bool) -> None:
        assert bool(verdicts(self.SHANGHAI, [event(at=local(at))])) == is_night

    def test_a_night_fires_once_a_person(self) -> None:
        times = [
            "2026-11-20T22:00:00+08:00",
            "2026-11-21T01:00:00+08:00",
            "2026-11-21T05:59:59+08:00",
        ]

        found = verdicts(self.SHANGHAI, [event(at=local(at)) for at in times], one_by_one=True)

        assert [burst.count for burst in found[Subject.account(ADA)]] == [1]

    def test_the_next_night_fires_again(self) -> None:
        times = ["2026-11-20T23:00:00+08:00", "2026-11-21T22:00:00+08:00"]

        found = verdicts(self.SHANGHAI, [event(at=local(at)) for at in times], one_by_one=True)

        assert len(found[Subject.account(ADA)]) == 2

    def test_two_people_are_two(self) -> None:
        at = local("2026-11-20T23:00:00+08:00")

        assert len(verdicts(self.SHANGHAI, [event(at=at), event(at=at, actor_id=new_id())])) == 2

    @pytest.mark.parametrize(
        ("begins", "ends", "hours"),
        [
            ("2026-03-28T21:00:00+00:00", "2026-03-29T04:00:00+00:00", 7),  # clocks go on
            ("2026-10-24T20:00:00+00:00", "2026-10-25T05:00:00+00:00", 9),  # clocks go back
        ],
    )
    def test_nights_when_clocks_change_are_one_night(
        self, begins: str, ends: str, hours: int
    ) -> None:
        first, end = local(begins), local(ends)
        every_hour = [event(at=first + timedelta(hours=index)) for index in range(hours)]

        found = verdicts(self.BERLIN, every_hour, one_by_one=True)

        assert len(found[Subject.account(ADA)]) == 1
        assert self.BERLIN.quiet_until(first) == end
        assert self.BERLIN.is_night(end - timedelta(seconds=1))
        assert not self.BERLIN.is_night(end)
        assert not self.BERLIN.is_night(first - timedelta(seconds=1))

    def test_a_night_may_lie_within_a_day(self) -> None:
        siesta = NightActivity(since="12:00", until="14:00")

        assert siesta.is_night(NOON)
        assert not siesta.is_night(NOON + timedelta(hours=2))
        assert siesta.quiet_until(NOON) == NOON + timedelta(hours=2)

    @pytest.mark.parametrize(
        "fields",
        [
            {"action": "auth.login"},
            {"action": "profile.updated"},
            {"action": "password.changed"},
            {"action": "audit.read"},
            {"action": "model_file.downloaded"},
            {"outcome": "denied"},
            {"outcome": "failure"},
            {"actor_kind": "system", "actor_id": None},
        ],
    )
    def test_other_acts_do_not(self, fields: dict[str, Any]) -> None:
        at = local("2026-11-20T23:00:00+08:00")

        assert verdicts(self.SHANGHAI, [replace(event(at=at), **fields)]) == {}

    def test_it_is_off_by_default(self) -> None:
        assert [name for name, rule in RULES.items() if not rule.on_by_default] == [
            "night-activity"
        ]


def changing(
    action: str, before: dict[str, Any], after: dict[str, Any], **fields: Any
) -> WatchedEvent:
    changes = {"before": before, "after": after}
    return event(action, resource_kind="account", resource_id="b", changes=changes, **fields)


class TestNewAdmin:
    RULE = NewAdmin()

    @pytest.mark.parametrize(
        ("action", "before", "after"),
        [
            ("user.roles_changed", {"roles": ["user"]}, {"roles": ["admin", "user"]}),
            ("tenant.member_put", {}, {"roles": ["admin"], "status": "active"}),
            ("user.created", {}, {"roles": ["platform_admin"]}),
            ("account.registered", {}, {"roles": ["admin"]}),
            ("admin.created", {}, {"roles": ["admin", "platform_admin"]}),
            ("user.roles_changed", {"roles": []}, {"roles": {"items": 99, "sha256": "x"}}),
            ("role.updated", {"permissions": ["model:read"]}, {"permissions": ["*:*"]}),
            ("role.updated", {"permissions": []}, {"permissions": ["role:grant"]}),
            ("role.updated", {"permissions": []}, {"permissions": ["*:grant"]}),
            ("role.created", {}, {"permissions": ["role:*"]}),
            ("role.created", {}, {"permissions": ["platform:tenant-read"]}),
            ("role.updated", {"permissions": []}, {"permissions": {"items": 99, "sha256": "x"}}),
        ],
    )
    def test_a_grant_fires(
        self, action: str, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        found = verdicts(self.RULE, [changing(action, before, after)])

        assert {subject.shown_id for subject in found} == {"b"}
        assert [burst.count for bursts in found.values() for burst in bursts] == [1]

    @pytest.mark.parametrize(
        ("action", "before", "after"),
        [
            ("user.roles_changed", {"roles": ["admin"]}, {"roles": ["admin", "user"]}),
            ("user.roles_changed", {"roles": ["admin"]}, {"roles": ["user"]}),
            ("user.roles_changed", {"roles": []}, {"roles": ["administrator"]}),
            ("user.created", {}, {"roles": ["user"]}),
            ("user.updated", {}, {"roles": ["admin"]}),
            ("role.updated", {"permissions": ["*:*"]}, {"permissions": ["*:*", "model:read"]}),
            ("role.updated", {}, {"description": "admin"}),
            ("role.created", {}, {"permissions": ["model:*", "user:read"]}),
            ("role.deleted", {"permissions": ["*:*"]}, {}),
        ],
    )
    def test_what_grants_nothing_new_does_not(
        self, action: str, before: dict[str, Any], after: dict[str, Any]
    ) -> None:
        assert verdicts(self.RULE, [changing(action, before, after)]) == {}

    def test_a_refused_grant_does_not(self) -> None:
        granted = changing("user.roles_changed", {}, {"roles": ["admin"]}, outcome="denied")

        assert verdicts(self.RULE, [granted]) == {}

    def test_each_of_two_grants_fires(self) -> None:
        events = [
            changing(
                "user.roles_changed", {}, {"roles": ["admin"]}, at=NOON + timedelta(seconds=each)
            )
            for each in range(2)
        ]

        (bursts,) = verdicts(self.RULE, events).values()
        assert len(bursts) == 2

    def test_the_tenant_names_the_roles(self) -> None:
        rule = NewAdmin(roles=["chief"])

        assert verdicts(rule, [changing("user.created", {}, {"roles": ["chief"]})])
        assert verdicts(rule, [changing("user.created", {}, {"roles": ["admin"]})]) == {}


@BATCHES
class TestMassDeletion:
    RULE = MassDeletion()

    def test_twenty_one_within_ten_minutes_fire_once(self, *, one_by_one: bool) -> None:
        times = spread(21, timedelta(minutes=10))
        actions = ["model.deleted", "user.removed", "tenant.member_removed"]
        events = [event(actions[index % 3], at=at) for index, at in enumerate(times)]
        more = [event(at=NOON + timedelta(minutes=11)) for _ in range(5)]

        found = verdicts(self.RULE, [*events, *more], one_by_one=one_by_one)

        (burst,) = found[Subject.account(ADA)]
        assert burst.count == 21

    def test_twenty_do_not(self, *, one_by_one: bool) -> None:
        assert verdicts(self.RULE, [event() for _ in range(20)], one_by_one=one_by_one) == {}

    def test_twenty_one_in_a_second_more_do_not(self, *, one_by_one: bool) -> None:
        events = [event(at=at) for at in spread(21, timedelta(minutes=10, seconds=1))]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    @pytest.mark.parametrize(
        "fields",
        [{"outcome": "denied"}, {"action": "model.updated"}, {"actor_id": None}],
    )
    def test_others_do_not_count(self, fields: dict[str, Any], *, one_by_one: bool) -> None:
        events = [event() for _ in range(20)] + [replace(event(), **fields)]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}

    def test_those_of_two_people_do_not_add_up(self, *, one_by_one: bool) -> None:
        events = [event(actor_id=ADA if index % 2 else UUID(int=1)) for index in range(40)]

        assert verdicts(self.RULE, events, one_by_one=one_by_one) == {}


class TestParameters:
    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("failed-login-burst", {"failures": 1}),
            ("failed-login-burst", {"failures": 1_001}),
            ("failed-login-burst", {"failures": "5"}),
            ("failed-login-burst", {"failures": True}),
            ("failed-login-burst", {"failures": None}),
            ("failed-login-burst", {"minutes": 0}),
            ("failed-login-burst", {"threshold": 5}),
            ("many-addresses", {"hours": 169}),
            ("night-activity", {"time_zone": "Mars/Olympus"}),
            ("night-activity", {"time_zone": "../../etc/passwd"}),
            ("night-activity", {"time_zone": "/etc/passwd"}),
            ("night-activity", {"time_zone": "localtime"}),
            ("night-activity", {"time_zone": "posixrules"}),
            ("night-activity", {"time_zone": "Factory"}),
            ("night-activity", {"time_zone": "right/UTC"}),
            ("night-activity", {"time_zone": "Asia"}),
            ("night-activity", {"time_zone": "asia/shanghai"}),
            ("night-activity", {"time_zone": ""}),
            ("night-activity", {"time_zone": "x\x00"}),
            ("night-activity", {"time_zone": ["UTC"]}),
            ("night-activity", {"since": "24:00"}),
            ("night-activity", {"since": "9:00"}),
            ("night-activity", {"since": 22}),
            ("night-activity", {"since": "06:00"}),
            ("new-admin", {"roles": []}),
            ("new-admin", {"roles": "admin"}),
            ("new-admin", {"roles": [""]}),
            ("new-admin", {"roles": [" "]}),
            ("new-admin", {"roles": ["admin "]}),
            ("new-admin", {"roles": ["a\nb"]}),
            ("new-admin", {"roles": ["x"] * 51}),
            ("mass-deletion", {"deletions": 10_001}),
            ("budget-reached", {"percent": 79}),
            ("budget-reached", {"percent": 101}),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, name: str, parameters: dict[str, Any]) -> None:
        with pytest.raises(InvalidRuleParameterError) as refused:
            rule_type(name)().revised(parameters)

        assert refused.value.loc[:2] == ("body", "parameters")

    @pytest.mark.parametrize("kind", RULES.values())
    def test_what_a_rule_shows_can_be_set_again(self, kind: type[Rule]) -> None:
        rule = kind()

        assert rule.revised(rule.parameters) == rule

    def test_what_is_not_given_stays(self) -> None:
        rule = FailedLoginBurst(failures=3).revised({"minutes": 10})

        assert rule.parameters == {"failures": 3, "minutes": 10}

    def test_a_setting_that_cannot_be_read_any_more_can_be_put_right(self) -> None:
        setting = RuleSetting.untouched(DEFAULT_TENANT_ID, "night-activity", at=NOON)
        setting.parameters |= {"time_zone": "Gone/Away", "gone": 1}

        setting.revise(is_enabled=True, parameters={"time_zone": "UTC"}, at=NOON)

        assert setting.parameters == NightActivity().parameters
        assert (setting.is_enabled, setting.version) == (True, 1)

    def test_there_are_no_other_rules(self) -> None:
        with pytest.raises(RuleNotFoundError):
            rule_type("no-such-rule")


def test_an_alert_names_a_hundred_events_at_most() -> None:
    rule: Rule = MassDeletion(deletions=150)
    events: Sequence[WatchedEvent] = [event() for _ in range(151)]

    (burst,) = verdicts(rule, events)[Subject.account(ADA)]

    assert (burst.count, len(burst.event_ids)) == (151, 100)


class TestWhatWaits:
    """What a subject costs is bounded, by how long its points wait and by how many."""

    MANY = MassDeletion(deletions=10_000, minutes=1)

    def points(self, count: int, *, since: datetime, step: timedelta) -> list[Point]:
        return [Point(since + step * index, new_id(), f"a{index}") for index in range(count)]

    def test_seen_again_within_a_minute_is_not_noted_anew(self) -> None:
        rule = ManyAddresses()
        first, *others = (Point(NOON + timedelta(seconds=each), new_id(), "a") for each in (0, 59))
        later = Point(NOON + timedelta(minutes=1), new_id(), "a")

        assert judge(rule, new=others, old=[first], quiet=()).waiting == [first]
        assert judge(rule, new=[later], old=[first], quiet=()).waiting == [later]

    def judge(self, rule: Rule, new: Sequence[Point], old: Sequence[Point] = ()) -> Verdict:
        return judge(rule, new=new, old=old, quiet=[])

    def test_points_wait_a_window_and_a_day(self) -> None:
        edge = NOON - timedelta(days=1, minutes=1)
        old = [Point(edge, new_id()), Point(edge - timedelta(seconds=1), new_id())]
        new = [Point(NOON, new_id())]

        assert self.judge(self.MANY, new, old).waiting == [old[0], *new]

    def test_one_clock_that_ran_ahead_does_not_blind_the_rule(self) -> None:
        rule = FailedLoginBurst()
        ahead = self.judge(rule, [Point(NOON + timedelta(days=400), new_id())]).waiting
        for minute in range(4):
            new = [Point(NOON + timedelta(minutes=minute), new_id())]
            ahead = self.judge(rule, new, ahead).waiting

        assert self.judge(rule, [Point(NOON, new_id())], ahead).bursts

    def test_no_more_wait_than_the_threshold_and_some(self) -> None:
        old = self.points(20_000, since=NOON - timedelta(hours=20), step=timedelta(seconds=3))
        new = [Point(NOON, new_id())]

        waiting = self.judge(self.MANY, new, old).waiting

        assert waiting == [*old, *new][-11_001:]

    @pytest.mark.parametrize(
        ("rule", "since"),
        [(MANY, NOON - timedelta(hours=30)), (ManyAddresses(addresses=1_000), NOON)],
    )
    def test_a_slice_costs_as_much_as_it_has_points(self, rule: Rule, since: datetime) -> None:
        """Minutes of CPU, if each new point were held against each that waits."""
        old = self.points(40_000, since=NOON - timedelta(days=5), step=timedelta(seconds=10))
        old = [replace(point, points_to=f"b{index}") for index, point in enumerate(old)]
        new = self.points(2_000, since=since, step=timedelta(milliseconds=100))

        begun = process_time()
        self.judge(rule, new, old)

        assert process_time() - begun < 20
