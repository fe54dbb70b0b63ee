"""Every question about usage is answered with what its rows add up to, page by page."""

import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.domain.page import TextPageRequest
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.user.application.usage import Cost, UsageReport, UsageService, UsageSums
from maas.user.domain.usage import GROUPS, Group, GroupKey, UsageFilter, fields_of
from maas.user.infrastructure.usage_queries import PostgresUsageLedger
from tests.conftest import WorkerDatabase
from tests.factories.usage import Connection, UsageRow, add_usage
from tests.servers import Servers

pytestmark = pytest.mark.integration

KEYS, ACCOUNTS = [new_id() for _ in range(3)], [new_id() for _ in range(3)]
COMBINATIONS: list[tuple[Group, ...]] = [
    groups for size in range(1, 6) for groups in itertools.combinations(GROUPS, size)
]
FIGURES = (
    "requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
    "storage_bytes",
)  # fmt: skip
PAGED: list[tuple[Group, ...]] = [("day",), ("model", "key"), ("day", "user"), ("currency",)]
FILTERED: list[tuple[Group, ...]] = [("day",), ("model",), ("key", "user"), ("day", "key")]
FILTERS = [
    UsageFilter(model="qwen"),
    UsageFilter(api_key_id=KEYS[0]),
    UsageFilter(account_id=ACCOUNTS[0]),
    UsageFilter(model="gemma", api_key_id=KEYS[1], account_id=ACCOUNTS[1]),
    UsageFilter(model="no-such-model"),
]
SPANS = [(20, 5), (26, 26), (3, 1), (26, 60)]
"""How many days ago a span begins, and how many it has."""
ROWS = 300


def make_rows() -> list[UsageRow]:
    """Make rows of the last 25 days, in which a month may have begun."""
    dice = random.Random(9)  # noqa: S311  a dice, not a secret
    rows = []
    for _ in range(ROWS):
        currency, account = dice.choice([None, "USD", "CNY"]), dice.choice(ACCOUNTS)
        rows.append(
            UsageRow(
                at=SystemClock().now() - timedelta(hours=dice.randrange(600)),
                account_id=account,
                actor_kind="service_account" if account == ACCOUNTS[0] else "account",
                api_key_id=dice.choice([None, *KEYS]),
                model=dice.choice(["gemma", "qwen", "Qwen"]),
                input_tokens=dice.randrange(1000),
                cached_tokens=dice.randrange(10),
                output_tokens=dice.randrange(1000),
                reasoning_tokens=dice.randrange(10),
                storage_bytes=dice.randrange(-5, 5),
                cost_nanos=dice.randrange(2**61, 2**62) if currency else 0,
                currency=currency,
                is_estimated=dice.random() < 0.2,
            )
        )
    return rows


@pytest.fixture
async def rows(
    servers: Servers, worker_database: WorkerDatabase, database: Database
) -> AsyncIterator[list[UsageRow]]:
    connection: Connection = await servers.connect(worker_database.name, "maas_app")
    made = make_rows()
    for first in range(0, ROWS, 50):
        await add_usage(connection, made[first : first + 50])
    await add_usage(connection, [replace(made[0], id=new_id(), tenant_id=TenantId(new_id()))])
    yield made
    await connection.close()


@pytest.fixture
def usage(database: Database) -> UsageService:
    return UsageService(ledger=PostgresUsageLedger(database), clock=SystemClock())


def add_up(rows: Iterable[UsageRow]) -> UsageSums:
    costs: dict[str, int] = defaultdict(int)
    sums = dict.fromkeys((*FIGURES, "estimated"), 0)
    for row in rows:
        for name in FIGURES:
            sums[name] += getattr(row, name)
        sums["estimated"] += row.is_estimated
        if row.currency is not None:
            costs[row.currency] += row.cost_nanos
    return UsageSums(
        **sums,
        costs=[Cost(currency=name, cost_nanos=costs[name]) for name in sorted(costs)],
    )


def key_of(row: UsageRow, groups: Sequence[Group]) -> GroupKey:
    values = {"day": row.at.astimezone(UTC).date(), **{
        name: getattr(row, name)
        for name in ("model", "api_key_id", "account_id", "actor_kind", "currency")
    }}  # fmt: skip
    return GroupKey(**{field: values[field] for field in fields_of(groups)})


def order_of(key: GroupKey) -> list[str]:
    """Nothing comes first."""
    return ["" if value is None else str(value) for value in (
        key.day, key.model, key.api_key_id, key.account_id, key.actor_kind, key.currency,
    )]  # fmt: skip


def expected(rows: Iterable[UsageRow], groups: Sequence[Group]) -> list[tuple[GroupKey, UsageSums]]:
    grouped: dict[GroupKey, list[UsageRow]] = defaultdict(list)
    for row in rows:
        grouped[key_of(row, groups)].append(row)
    return [(key, add_up(grouped[key])) for key in sorted(grouped, key=order_of)]


async def read_all(
    usage: UsageService, groups: Sequence[Group], *, limit: int = 200, **options: object
) -> tuple[list[tuple[GroupKey, UsageSums]], list[UsageReport]]:
    asked: dict[str, object] = {
        "since": SystemClock().now() - timedelta(days=30),
        "until": None,
        "wanted": UsageFilter(),
        **options,
    }
    reports: list[UsageReport] = []
    after = None
    while not reports or after is not None:
        page = TextPageRequest(limit=limit, after=after, include_total=True)
        report = await usage.report(DEFAULT_TENANT_ID, group_by=groups, page=page, **asked)  # type: ignore[arg-type]  # options of one kind each
        reports.append(report)
        after = report.next
    return [(item.key, item.sums) for report in reports for item in report.items], reports


# One filling serves many questions: it takes longer than all of them.
async def test_groups_are_what_their_rows_add_up_to(
    usage: UsageService, rows: list[UsageRow]
) -> None:
    for groups in COMBINATIONS:
        found, reports = await read_all(usage, groups)

        wanted = expected(rows, groups)
        assert found == wanted, groups
        assert {report.total for report in reports} == {len(wanted)}, groups
        assert all(report.sums == add_up(rows) for report in reports), groups


async def test_pages_of_three_are_the_same_as_one(
    usage: UsageService, rows: list[UsageRow]
) -> None:
    for groups in PAGED:
        found, reports = await read_all(usage, groups, limit=3)

        assert found == expected(rows, groups), groups
        assert all(0 < len(report.items) <= 3 for report in reports), groups


async def test_filters_leave_the_rest_out(usage: UsageService, rows: list[UsageRow]) -> None:
    for wanted, groups in itertools.product(FILTERS, FILTERED):
        found, (report, *_) = await read_all(usage, groups, wanted=wanted)

        meant = [
            row
            for row in rows
            if wanted.model in {None, row.model}
            and wanted.api_key_id in {None, row.api_key_id}
            and wanted.account_id in {None, row.account_id}
        ]
        assert found == expected(meant, groups), (wanted, groups)
        assert report.sums == add_up(meant), (wanted, groups)


async def test_spans_are_cut_at_days_wherever_the_months_are(
    usage: UsageService, rows: list[UsageRow]
) -> None:
    today = SystemClock().now().replace(hour=0, minute=0, second=0, microsecond=0)
    for (ago, days), groups in itertools.product(SPANS, FILTERED):
        first, last = today - timedelta(days=ago), today - timedelta(days=ago - days)

        found, (report, *_) = await read_all(usage, groups, since=first, until=last)

        meant = [row for row in rows if first <= row.at < last]
        assert found == expected(meant, groups), (ago, days, groups)
        assert (report.since, report.until) == (first, last)


async def test_money_is_exact_past_what_one_amount_can_be(
    usage: UsageService, rows: list[UsageRow]
) -> None:
    _, (report, *_) = await read_all(usage, ("currency",))

    assert all(cost.cost_nanos > 2**63 for cost in report.sums.costs)
    assert all(type(cost.cost_nanos) is int for cost in report.sums.costs)
    assert Decimal(report.sums.costs[0].cost_nanos) == sum(
        Decimal(row.cost_nanos) for row in rows if row.currency == "CNY"
    )


async def test_a_day_before_there_was_anything_is_no_error(
    usage: UsageService, rows: list[UsageRow]
) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC)

    found, (report,) = await read_all(usage, ("key",), since=at, until=at + timedelta(days=40))

    assert (found, report.sums, report.total) == ([], add_up([]), 0)
    assert report.since.date() == date(1970, 1, 1)
