"""What the rollups say is what a count over the rows says, at any moment, by every grouping."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from maas.audit.application.events import QueuedEvent
from maas.audit.application.statistics import Statistics, StatisticsService
from maas.audit.application.verification import Verdict, VerificationService, VerifyOptions
from maas.audit.domain.statistics import Group
from maas.audit.infrastructure.rollup_check import find_rollup_differences
from maas.audit.infrastructure.signing import is_signed_by
from maas.audit.infrastructure.trail_reader import PostgresTrailReader
from maas.audit.public import Actor
from maas.audit.wiring import AuditContext
from maas.shared.domain.call import Outcome
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.clock import SystemClock
from tests.conftest import WorkerDatabase
from tests.integration.audit.helpers import Superuser, Trail
from tests.servers import Servers

pytestmark = pytest.mark.integration

OTHER_TENANT = TenantId(new_id())
PEOPLE = [Actor("account", UUID(int=number), f"p{number}") for number in range(1, 4)]
NOBODY = Actor("anonymous", None)
ACTIONS = ("auth.login", "auth.logout", "model.created", "usage.settled")
TODAY = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
BEGINNING = TODAY - timedelta(days=40)
EVENTS = 120

Row = Mapping[str, Any]


@pytest.fixture
def statistics(audit: AuditContext) -> StatisticsService:
    return cast("StatisticsService", audit.state["audit_statistics"])


@pytest.fixture
def dice(record_property: Any) -> random.Random:
    seed = random.randrange(2**32)  # noqa: S311  a dice, not a secret
    record_property("seed", seed)
    return random.Random(seed)  # noqa: S311  a dice, not a secret


def make_any(trail: Trail, dice: random.Random) -> QueuedEvent:
    outcome = dice.choice(["success", "success", "failure", "denied"])
    # On the hour, just before it, and anywhere, over two months and a turn of weeks.
    at = BEGINNING + timedelta(hours=dice.randrange(40 * 24))
    at += dice.choice([timedelta(), timedelta(microseconds=-1), timedelta(minutes=31)])
    return trail.make(
        dice.choice(ACTIONS),
        tenant_id=dice.choice([DEFAULT_TENANT_ID, DEFAULT_TENANT_ID, OTHER_TENANT]),
        actor=dice.choice([*PEOPLE, NOBODY]),
        outcome=outcome,
        at=at,
    )


@pytest.fixture
async def recorded(trail: Trail, dice: random.Random) -> Trail:
    """Events in batches of any size, some delivered again from the stream or the outbox."""
    events = [make_any(trail, dice) for _ in range(EVENTS)]
    given = 0
    while given < EVENTS:
        batch = events[given : given + dice.randint(1, 40)]
        given += len(batch)
        again = dice.sample(events[:given], k=min(given, 5))
        await trail.add(*batch, *again)
        await trail.keep(*dice.sample(batch, k=len(batch) // 2))
        await trail.flush(batch_size=dice.randint(1, 50)).run()
    assert await trail.count("audit_log") == EVENTS
    return trail


async def rows_of(trail: Trail, tenant_id: TenantId) -> Sequence[Row]:
    rows = await trail.superuser.fetch("SELECT * FROM audit_log WHERE tenant_id = $1", tenant_id)
    return cast("Sequence[Row]", rows)


def key_of(row: Row, group_by: Sequence[Group]) -> tuple[object, ...]:
    at: datetime = row["occurred_at"]
    hour = at.replace(minute=0, second=0, microsecond=0)
    keys: dict[str, object] = {
        "action": row["action"],
        "outcome": row["outcome"],
        "actor": (row["actor_kind"], row["actor_id"]),
        "hour": hour,
        "day": hour.replace(hour=0),
    }
    return tuple(keys[group] for group in group_by)


def counted(found: Statistics) -> Counter[tuple[object, ...]]:
    """What an answer says of each key; zeros are as good as nothing."""
    result: Counter[tuple[object, ...]] = Counter()
    for item in found.items:
        keys: dict[str, object] = {
            "action": item.action,
            "outcome": item.outcome,
            "actor": item.actor and (item.actor.kind, item.actor.id),
            "hour": item.at,
            "day": item.at,
        }
        result[tuple(keys[group] for group in found.group_by)] = item.events
        assert item.events == item.outcomes.events
    return +result


GROUPINGS: list[list[Group]] = [
    ["action"], ["outcome"], ["actor"], ["hour"], ["day"],
    ["day", "action"], ["day", "outcome"], ["actor", "day"], ["hour", "outcome"],
]  # fmt: skip


async def test_every_grouping_is_a_count_over_the_rows(
    statistics: StatisticsService, recorded: Trail, dice: random.Random
) -> None:
    spans = [
        (begun, begun + timedelta(minutes=dice.randrange(1, 30 * 24 * 60)))
        for begun in (BEGINNING + timedelta(hours=dice.randrange(-24, 30 * 24)) for _ in range(4))
    ]
    outcomes: list[Outcome | None] = [None, "success", "failure", "denied"]
    for tenant_id in (DEFAULT_TENANT_ID, OTHER_TENANT):
        rows = await rows_of(recorded, tenant_id)
        for group_by in GROUPINGS:
            for outcome, (since, until) in zip(outcomes, spans, strict=True):
                found = await statistics.count(
                    tenant_id,
                    group_by=group_by,
                    limit=20,
                    since=since,
                    until=until,
                    outcome=outcome,
                )

                assert found.since <= since
                assert found.until >= until
                wanted = [row for row in rows if is_meant(row, found, outcome)]
                assert counted(found) == Counter(key_of(row, group_by) for row in wanted)
                assert (found.total, found.other_events) == (len(wanted), 0)


def is_meant(row: Row, found: Statistics, outcome: Outcome | None) -> bool:
    is_within: bool = found.since <= row["occurred_at"] < found.until
    return is_within and outcome in {None, row["outcome"]}


@pytest.mark.parametrize("action", ["auth.login", "auth.*", "*", "nothing.*"])
async def test_an_action_or_its_beginning(
    action: str, statistics: StatisticsService, recorded: Trail
) -> None:
    rows = await rows_of(recorded, DEFAULT_TENANT_ID)
    prefix = action.removesuffix("*")

    found = await statistics.count(
        DEFAULT_TENANT_ID,
        group_by=["action"],
        limit=50,
        action=action,
        since=BEGINNING - timedelta(1),
    )

    wanted = Counter((row["action"],) for row in rows if row["action"].startswith(prefix))
    assert counted(found) == wanted
    assert found.total == wanted.total()


async def test_one_actor(statistics: StatisticsService, recorded: Trail) -> None:
    rows = await rows_of(recorded, DEFAULT_TENANT_ID)
    since = BEGINNING - timedelta(days=1)
    for group_by in (["actor"], ["day"], ["outcome"], ["day", "outcome"], ["actor", "day"]):
        found = await statistics.count(
            DEFAULT_TENANT_ID,
            group_by=cast("list[Group]", group_by),
            limit=1,
            since=since,
            actor_id=PEOPLE[0].id,
        )

        wanted = [row for row in rows if row["actor_id"] == PEOPLE[0].id]
        assert counted(found) == Counter(key_of(row, found.group_by) for row in wanted)
        assert found.total == len(wanted)


@pytest.mark.parametrize("group_by", [["outcome"], ["day"], ["day", "outcome"], ["actor"]])
async def test_one_id_of_two_kinds_is_counted_whole(
    statistics: StatisticsService, trail: Trail, group_by: list[Group]
) -> None:
    actors = [PEOPLE[0], PEOPLE[0], Actor("service_account", PEOPLE[0].id)]
    await trail.add(*(trail.make(actor=actor) for actor in actors))
    await trail.flush().run()

    found = await statistics.count(
        DEFAULT_TENANT_ID, group_by=group_by, limit=5, actor_id=PEOPLE[0].id
    )

    assert (found.total, found.other_events) == (3, 0)


class TestTopLists:
    async def test_name_the_most_frequent_first_and_say_what_others_have(
        self, statistics: StatisticsService, trail: Trail
    ) -> None:
        acts = [(PEOPLE[0], 1), (PEOPLE[1], 3), (NOBODY, 2), (PEOPLE[2], 1)]
        await trail.add(*(trail.make(actor=who) for who, count in acts for _ in range(count)))
        await trail.flush().run()

        found = await statistics.count(DEFAULT_TENANT_ID, group_by=["actor"], limit=2)
        by_day = await statistics.count(DEFAULT_TENANT_ID, group_by=["day", "actor"], limit=2)

        assert [(item.actor and item.actor.name, item.events) for item in found.items] == [
            ("p2", 3), (None, 2),
        ]  # fmt: skip
        assert (found.total, found.groups, found.other_events) == (7, 4, 2)
        assert (by_day.total, by_day.groups, by_day.other_events) == (7, 4, 2)
        assert {item.actor for item in by_day.items} == {item.actor for item in found.items}

    async def test_tell_the_newest_name_and_none_once_it_is_erased(
        self, statistics: StatisticsService, trail: Trail
    ) -> None:
        for name in ("old", "new"):
            await trail.add(trail.make(actor=Actor("account", UUID(int=1), name)))
            await trail.flush().run()

        found = await statistics.count(DEFAULT_TENANT_ID, group_by=["actor"], limit=1)
        await trail.superuser.execute("DELETE FROM audit_personal")
        erased = await statistics.count(DEFAULT_TENANT_ID, group_by=["actor"], limit=1)

        assert [item.actor and item.actor.name for item in found.items] == ["new"]
        assert [item.actor and item.actor.name for item in erased.items] == [None]


async def test_a_batch_that_fails_leaves_no_count(recorded: Trail) -> None:
    """The rollups are written where the rows are, so they are undone with them."""
    superuser = recorded.superuser
    await superuser.execute("ALTER TABLE audit_chain RENAME TO audit_chain_away")
    try:
        await recorded.add(recorded.make())
        await recorded.flush().run()
    finally:
        await superuser.execute("ALTER TABLE audit_chain_away RENAME TO audit_chain")

    assert await recorded.count("audit_log") == EVENTS
    assert await superuser.fetchval("SELECT sum(events) FROM audit_rollup_hours") == EVENTS
    assert await find_rollup_differences(superuser, 9) == []


async def test_retention_takes_out_what_one_partition_had(
    recorded: Trail, statistics: StatisticsService
) -> None:
    superuser = recorded.superuser
    await superuser.execute("SET session_replication_role = replica")
    await superuser.execute("DELETE FROM audit_log WHERE retention_class = 'security'")
    await superuser.execute("RESET session_replication_role")

    forgotten = await superuser.fetchval(
        "SELECT audit_rollup_forget('security', date_trunc('month', now(), 'UTC')::date)"
    )

    assert forgotten == EVENTS - await recorded.count("audit_log")
    assert forgotten > 0
    assert await find_rollup_differences(superuser, 9) == []


class TestVerify:
    @pytest.mark.parametrize(
        ("statement", "table"),
        [
            ("UPDATE audit_rollup_hours SET events = events + 1", "audit_rollup_hours"),
            ("UPDATE audit_rollup_hours SET failures = failures + 1", "audit_rollup_hours"),
            ("DELETE FROM audit_rollup_hours", "audit_rollup_hours"),
            ("UPDATE audit_rollup_days SET actor_id = gen_random_uuid()", "audit_rollup_days"),
            ("UPDATE audit_rollup_days SET newest_seq = newest_seq - 1", "audit_rollup_days"),
            ("DELETE FROM audit_rollup_days", "audit_rollup_days"),
            ("UPDATE audit_rollup_weeks SET denials = denials + 1", "audit_rollup_weeks"),
            ("UPDATE audit_rollup_weeks SET tenant_id = gen_random_uuid()", "audit_rollup_weeks"),
            ("DELETE FROM audit_rollup_weeks", "audit_rollup_weeks"),
        ],
    )  # fmt: skip
    async def test_names_the_first_rollup_that_was_changed(
        self, recorded: Trail, statement: str, table: str
    ) -> None:
        untouched = await verify(recorded.superuser)
        one = f"WHERE ctid = (SELECT ctid FROM {table} OFFSET 3 LIMIT 1)"
        await recorded.superuser.execute(f"{statement} {one}")

        verdict = await verify(recorded.superuser)

        assert untouched.is_sound, list(untouched.findings)
        assert next(iter(verdict.findings)).subject.startswith(table)

    async def test_in_a_hurry_does_not_look(self, recorded: Trail) -> None:
        await recorded.superuser.execute("DELETE FROM audit_rollup_weeks")

        assert (await verify(recorded.superuser, is_fast=True)).is_sound


async def verify(superuser: Superuser, **options: Any) -> Verdict:
    service = VerificationService(reader=PostgresTrailReader(superuser), is_signed=is_signed_by)
    return await service.verify(VerifyOptions(**options))


class TestProtection:
    @pytest.fixture(params=["maas_app", "maas_system"])
    async def server(
        self,
        request: pytest.FixtureRequest,
        servers: Servers,
        worker_database: WorkerDatabase,
        trail: Trail,
    ) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        await trail.add(trail.make(), trail.make(tenant_id=OTHER_TENANT))
        await trail.flush().run()
        connection = await servers.connect(worker_database.name, request.param)
        yield connection
        await connection.close()

    @pytest.mark.parametrize("table", ["hours", "days", "weeks"])
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_rollup_{0} SET events = 0",
            "DELETE FROM audit_rollup_{0}",
            "TRUNCATE audit_rollup_{0}",
            "INSERT INTO audit_rollup_{0} SELECT * FROM audit_rollup_{0}",
            "SELECT audit_rollup_forget('usage', '2026-01-01')",
        ],
    )
    async def test_who_serves_may_not(
        self, server: "asyncpg.Connection[asyncpg.Record]", statement: str, table: str
    ) -> None:
        async with server.transaction():
            await server.execute(f"SET LOCAL maas.tenant_id = '{DEFAULT_TENANT_ID}'")

            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with server.transaction():
                    await server.execute(statement.format(table))

    @pytest.mark.parametrize("server", ["maas_app"], indirect=True)
    @pytest.mark.parametrize("table", ["hours", "days", "weeks"])
    async def test_the_application_sees_its_own_tenant_only(
        self, server: "asyncpg.Connection[asyncpg.Record]", table: str
    ) -> None:
        with pytest.raises(asyncpg.PostgresError):
            await server.fetch(f"SELECT * FROM audit_rollup_{table}")
        counted = []
        for tenant_id in (DEFAULT_TENANT_ID, OTHER_TENANT, new_id()):
            async with server.transaction():
                await server.execute(f"SET LOCAL maas.tenant_id = '{tenant_id}'")
                counted.append(await server.fetchval(f"SELECT count(*) FROM audit_rollup_{table}"))

        assert counted == [1, 1, 0]
