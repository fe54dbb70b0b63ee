"""The usage ledger: what is settled is counted once, exactly, and stays."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure.usage_check import find_usage_differences
from maas.user.infrastructure.usage_upkeep import prepare_usage
from tests.conftest import WorkerDatabase
from tests.factories.usage import Connection, UsageRow, act_in, add_usage
from tests.servers import Servers

pytestmark = pytest.mark.integration

Superuser: TypeAlias = Connection

TABLES = ("usage", "usage_days", "usage_weeks", "usage_months", "usage_model_days")
OTHER = TenantId(new_id())
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = 'maas_app' AND wait_event_type = 'Lock'
"""
HARM = [
    ("usage_days", """
        UPDATE usage_days SET output_tokens = 1;
        UPDATE usage_weeks SET output_tokens = 1;
        UPDATE usage_months SET output_tokens = 1;
        UPDATE usage_model_days SET output_tokens = 1
    """),
    ("usage_weeks", "UPDATE usage_weeks SET requests = 2"),
    ("usage_months", "UPDATE usage_months SET cost_nanos = cost_nanos - 1"),
    ("usage_model_days", "DELETE FROM usage_model_days"),
    ("usage_model_days", """
        INSERT INTO usage_model_days
        SELECT (jsonb_populate_record(d, '{"model": "other"}')).* FROM usage_model_days AS d
    """),
    ("usage_days", "DELETE FROM usage"),
]  # fmt: skip
"""Ways to make sums wrong, and the table whose rows are then not what is below them."""


@pytest.fixture
async def app(
    servers: Servers, worker_database: WorkerDatabase, clean: None
) -> AsyncIterator[Connection]:
    connection = await servers.connect(worker_database.name, "maas_app")
    yield connection
    await connection.close()


@pytest.fixture
async def other_app(
    servers: Servers, worker_database: WorkerDatabase, clean: None
) -> AsyncIterator[Connection]:
    connection = await servers.connect(worker_database.name, "maas_app")
    yield connection
    await connection.close()


def now(clock: Clock | None = None) -> datetime:
    return (clock or SystemClock()).now()


def again(rows: list[UsageRow]) -> list[UsageRow]:
    return [replace(row, id=new_id()) for row in rows]


def some_rows(dice: random.Random, count: int, tenant_id: TenantId) -> list[UsageRow]:
    """Make rows of the last 25 days, of a few keys, models and currencies each, in no order."""
    keys, accounts = [None, *map(_id, range(3))], [None, *map(_id, range(10, 13))]
    rows = []
    for _ in range(count):
        currency = dice.choice([None, "USD", "CNY"])
        rows.append(
            UsageRow(
                at=now() - timedelta(hours=dice.randrange(600)),
                tenant_id=tenant_id,
                account_id=dice.choice(accounts),
                actor_kind=dice.choice(["account", "service_account"]),
                api_key_id=dice.choice(keys),
                model=dice.choice(["gemma", "qwen"]),
                input_tokens=dice.randrange(1000),
                cached_tokens=dice.randrange(10),
                output_tokens=dice.randrange(1000),
                reasoning_tokens=dice.randrange(10),
                storage_bytes=dice.randrange(-5, 5),
                cost_nanos=dice.randrange(10**12) if currency else 0,
                currency=currency,
                is_estimated=dice.random() < 0.1,
            )
        )
    return rows


def _id(number: int) -> UUID:
    return UUID(int=number + 1)


async def requests_of(superuser: Superuser, table: str) -> int:
    return int(await superuser.fetchval(f"SELECT coalesce(sum(requests), 0) FROM {table}"))


class TestCountedOnce:
    async def test_two_who_settle_the_same_keys_do_not_wait_for_each_other_in_a_circle(
        self, app: Connection, other_app: Connection, superuser: Superuser
    ) -> None:
        keys = sorted(new_id() for _ in range(30))
        rows = [UsageRow(api_key_id=key) for key in keys]
        await add_usage(app, rows)

        for _ in range(8):
            # Both are stopped amid their keys, with some in hand that the other may want.
            async with superuser.transaction():
                await superuser.execute(
                    "SELECT FROM usage_days WHERE api_key_id = $1 FOR UPDATE", keys[15]
                )
                settling = [
                    asyncio.create_task(add_usage(connection, again(rows)[::order]))
                    for connection, order in ((app, 1), (other_app, -1))
                ]
                while await superuser.fetchval(WAITING) < len(settling):  # noqa: ASYNC110  no event tells
                    await asyncio.sleep(0.01)
            await asyncio.gather(*settling)

        assert [await requests_of(superuser, table) for table in TABLES] == [17 * 30] * 5

    async def test_two_who_settle_at_once_neither_lose_nor_double(
        self, app: Connection, other_app: Connection, superuser: Superuser
    ) -> None:
        dice = random.Random(17)  # noqa: S311  a dice, not a secret
        batches = [
            some_rows(dice, dice.randint(1, 40), dice.choice([DEFAULT_TENANT_ID, OTHER]))
            for _ in range(60)
        ]

        async def settle(connection: Connection, mine: list[list[UsageRow]]) -> None:
            for rows in mine:
                await add_usage(connection, rows)

        await asyncio.gather(settle(app, batches[:40]), settle(other_app, batches[20:][::-1]))

        rows = {row.id for batch in batches for row in batch}
        assert [await requests_of(superuser, table) for table in TABLES] == [len(rows)] * 5
        assert await find_usage_differences(superuser) == []

    async def test_the_same_row_delivered_again_changes_nothing(
        self, app: Connection, superuser: Superuser
    ) -> None:
        row = UsageRow(input_tokens=7, cost_nanos=5, currency="USD")

        for _ in range(3):
            await add_usage(app, [row, UsageRow(id=row.id, at=row.at, input_tokens=900)])

        kept = await superuser.fetch("SELECT requests, input_tokens, cost_nanos FROM usage_days")
        assert [tuple(each) for each in kept] == [(1, 7, 5)]
        assert await find_usage_differences(superuser) == []

    async def test_what_is_undone_is_not_counted(
        self, app: Connection, superuser: Superuser
    ) -> None:
        transaction = app.transaction()
        await transaction.start()
        await add_usage(app, [UsageRow()])
        await transaction.rollback()

        assert [await requests_of(superuser, table) for table in TABLES] == [0] * 5

    async def test_days_and_months_are_those_of_utc_wherever_the_session_is(
        self, app: Connection, superuser: Superuser
    ) -> None:
        first = now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        await app.execute("SET timezone = 'Pacific/Kiritimati'")

        await add_usage(app, [UsageRow(at=first), UsageRow(at=first - timedelta(microseconds=1))])

        days = await superuser.fetch("SELECT day, requests FROM usage_days ORDER BY day")
        months = await superuser.fetch("SELECT month, requests FROM usage_months ORDER BY month")
        last_day = first.date() - timedelta(days=1)
        assert [tuple(row) for row in days] == [(last_day, 1), (first.date(), 1)]
        assert [tuple(row) for row in months] == [(last_day.replace(day=1), 1), (first.date(), 1)]

    async def test_sums_of_money_may_be_past_what_one_amount_can_be(
        self, app: Connection, superuser: Superuser
    ) -> None:
        most = 2**63 - 1

        await add_usage(app, [UsageRow(cost_nanos=most, currency="VND") for _ in range(3)])

        assert await superuser.fetchval("SELECT sum(cost_nanos) FROM usage_months") == 3 * most


class TestProtected:
    async def test_another_tenant_sees_nothing_though_it_asks_for_all(
        self, app: Connection
    ) -> None:
        await add_usage(app, [UsageRow()])

        async def seen_by(tenant_id: TenantId) -> list[int]:
            async with app.transaction():
                await act_in(app, tenant_id)
                return [await app.fetchval(f"SELECT count(*) FROM {table}") for table in TABLES]

        assert await seen_by(DEFAULT_TENANT_ID) == [1] * 5
        assert await seen_by(OTHER) == [0] * 5

    async def test_without_a_tenant_it_is_an_error(self, app: Connection) -> None:
        for table in TABLES:
            with pytest.raises(
                asyncpg.PostgresError, match=r"maas\.tenant_id|invalid input syntax"
            ):
                await app.fetch(f"SELECT * FROM {table}")

    async def test_nobody_settles_for_another_tenant(self, app: Connection) -> None:
        async with app.transaction():
            await act_in(app, OTHER)
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
                async with app.transaction():
                    await app.execute(
                        "INSERT INTO usage (id, at, tenant_id, actor_kind, model, request_id,"
                        " requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,"
                        " storage_bytes, cost_nanos, is_estimated, is_overrun) VALUES (gen_random"
                        "_uuid(), now(), $1, 'account', 'm', 'r', 1, 0, 0, 0, 0, 0, 0, false, "
                        "false)",
                        DEFAULT_TENANT_ID,
                    )

    async def test_serving_roles_add_rows_and_change_nothing(self, superuser: Superuser) -> None:
        allowed = await superuser.fetch(
            """
            SELECT of_table, role, privilege FROM unnest($1::text[]) AS of_table,
                unnest('{maas_app,maas_system}'::text[]) AS role,
                unnest('{INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) AS privilege
            WHERE has_table_privilege(role, of_table, privilege) ORDER BY role
            """,
            TABLES,
        )

        assert [tuple(row) for row in allowed] == [
            ("usage", "maas_app", "INSERT"),
            ("usage", "maas_system", "INSERT"),
        ]

    async def test_not_even_who_owns_all_takes_a_row_back(
        self, app: Connection, superuser: Superuser
    ) -> None:
        await add_usage(app, [UsageRow()])

        for statement in ("UPDATE usage SET requests = 2", "DELETE FROM usage", "TRUNCATE usage"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await superuser.execute(statement)

    async def test_what_cannot_be_is_refused(self, app: Connection) -> None:
        wrong: list[dict[str, Any]] = [
            {"cost_nanos": 1},
            {"currency": "usd"},
            {"currency": "USDT"},
            {"input_tokens": -1},
            {"output_tokens": 10**12 + 1},
        ]
        for values in wrong:
            with pytest.raises(asyncpg.CheckViolationError):
                await add_usage(app, [UsageRow(**values)])


class TestPartitions:
    async def test_a_month_that_is_missing_is_made_by_who_settles(
        self, app: Connection, superuser: Superuser
    ) -> None:
        row = UsageRow(at=now() + timedelta(days=300))
        name = f"usage_{row.at:%Y_%m}"
        try:
            with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
                await add_usage(app, [row])

            made = [
                await app.fetchval("SELECT usage_ensure_partition($1)", row.at) for _ in range(2)
            ]
            await add_usage(app, [row])

            assert made == [name, name]
            assert await find_usage_differences(superuser) == []
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(f"SELECT * FROM {name}")
        finally:
            await superuser.execute("SET session_replication_role = replica")
            await superuser.execute(f"DROP TABLE IF EXISTS {name}")

    @pytest.mark.parametrize("days", [-500, 500])
    async def test_no_serving_role_fills_the_database_with_months(
        self, app: Connection, days: int
    ) -> None:
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await app.execute("SELECT usage_ensure_partition($1)", now() + timedelta(days=days))

    @pytest.mark.usefixtures("clean")
    async def test_the_upkeep_makes_what_is_missing_ahead(
        self, settings: Settings, superuser: Superuser
    ) -> None:
        ahead = await superuser.fetchval(
            "SELECT to_char(now() AT TIME ZONE 'UTC' + interval '3 months', '\"usage\"_YYYY_MM')"
        )
        await superuser.execute(f"DROP TABLE {ahead}")

        assert await prepare_usage(settings.database) == 5
        assert await prepare_usage(settings.database) == 5
        assert await superuser.fetchval("SELECT to_regclass($1) IS NOT NULL", ahead)


class TestCheck:
    async def test_a_rollup_that_was_tampered_with_is_named(
        self, app: Connection, superuser: Superuser
    ) -> None:
        await add_usage(app, [UsageRow(model="gemma", cost_nanos=9, currency="EUR")])
        assert await find_usage_differences(superuser) == []

        for table, harm in HARM:
            transaction = superuser.transaction()
            await transaction.start()
            await superuser.execute(f"SET LOCAL session_replication_role = replica; {harm}")
            found = await find_usage_differences(superuser)
            await transaction.rollback()

            assert [line.partition(":")[0] for line in found] == [table], harm
            assert str(DEFAULT_TENANT_ID) in found[0]
