"""Usage added up from the rollups, as `maas_app`; all statements of an answer see one moment."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from typing import Final
from uuid import UUID

import asyncpg

from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database, PooledConnection
from maas.user.application.usage import Cost, UsageSums, UsageTally
from maas.user.domain.usage import GroupKey, UsageQuestion, fields_of

# Plans are made for the values, and never by an index from row to row: days lie together, and that
# costs three times as much as to collect the pages first. To compile takes longer than all of it.
_ONE_MOMENT: Final = """
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL plan_cache_mode = force_custom_plan;
    SET LOCAL enable_indexscan = off; SET LOCAL jit = off
"""
_FIGURES: Final = (
    "requests", "estimated", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
    "storage_bytes",
)  # fmt: skip
_SUMS: Final = ", ".join(f"sum({name})::bigint AS {name}" for name in _FIGURES)
_OF_CALL: Final = "model, api_key_id, account_id, actor_kind"
_KEPT: Final = f"currency, cost_nanos, {', '.join(_FIGURES)}"

# Rows of a page are sorted by these; what is null comes first, as no real value does.
_SORTED: Final = {
    "day": "day",
    "model": "model",
    "api_key_id": "coalesce(api_key_id, '00000000-0000-0000-0000-000000000000')",
    "account_id": "coalesce(account_id, '00000000-0000-0000-0000-000000000000')",
    "actor_kind": "actor_kind",
    "currency": "coalesce(currency, '')",
}
_NIL: Final = UUID(int=0)
_NULLS: Final = {"api_key_id": _NIL, "account_id": _NIL, "currency": ""}

_NAMES: Final = """
    SELECT id, name FROM api_keys WHERE tenant_id = $1 AND id = ANY ($2::uuid[])
    UNION ALL
    SELECT id, name FROM service_accounts WHERE tenant_id = $1 AND id = ANY ($3::uuid[])
    UNION ALL
    SELECT a.id, a.username FROM memberships m JOIN accounts a ON a.id = m.account_id
    WHERE m.tenant_id = $1 AND m.account_id = ANY ($3::uuid[])
"""


class PostgresUsageLedger:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, tenant_id: TenantId, question: UsageQuestion) -> UsageTally:
        async with self._database.tenant(tenant_id) as connection:
            await connection.execute(_ONE_MOMENT)
            rows = await _read_page(connection, tenant_id, question)
            is_all = question.after is None and len(rows) <= question.limit
            sums = None if is_all else await _add_up(connection, tenant_id, question)
            total = None
            if question.include_total:
                total = await _count_groups(connection, tenant_id, question)
            keys = [_key(question, row) for row in rows]
            names = await _read_names(connection, tenant_id, keys)
        found = [(key, _sums(row)) for key, row in zip(keys, rows, strict=True)]
        sums = sums or _add([of_group for _, of_group in found])
        return UsageTally(sums=sums, rows=found, total=total, names=names)


class _Query:
    """Puts conditions and their values together; every word of it is one of ours."""

    def __init__(self, tenant_id: TenantId) -> None:
        self.values: list[object] = [tenant_id]

    def value(self, value: object, kind: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    def source(self, question: UsageQuestion, *, is_by_caller: bool) -> str:
        """Name the rows to add up: the fewest that tell what is asked for."""
        whole = (question.since, question.until)
        if question.is_of_whole_tenant and not is_by_caller:
            rows = self._span("usage_model_days", "day", whole, question)
            return f"(SELECT day, model, {_KEPT} FROM {rows}) AS kept"  # noqa: S608  fixed words, no input
        columns = f"{_OF_CALL}, {_KEPT}"
        if "day" in question.groups or not question.is_of_whole_tenant:
            # Of one caller there are few rows, and an index that leads to them.
            rows = self._span("usage_days", "day", whole, question)
            return f"(SELECT day, {columns} FROM {rows}) AS kept"  # noqa: S608  likewise
        parts = [
            f"SELECT {columns} FROM "  # noqa: S608  likewise
            + self._span(f"usage_{piece.of}s", piece.of, (piece.since, piece.until), question)
            for piece in question.pieces()
        ]
        return f"({' UNION ALL '.join(parts)}) AS kept"

    def day_by_day(self, question: UsageQuestion) -> tuple[str, str]:
        """Name the days, and the rows to add up of each: what is beyond the page is not read."""
        days = (
            f"generate_series({self.value(question.since, 'date')}::timestamp,"
            f" {self.value(question.until, 'date')} - 1, interval '1 day') AS d (at)"
        )
        conditions = " AND ".join(["tenant_id = $1", "day = d.at::date", *self._wanted(question)])
        return days, f"usage_days WHERE {conditions}"

    def _span(
        self, table: str, period: str, span: tuple[date, date], question: UsageQuestion
    ) -> str:
        conditions = [
            "tenant_id = $1",
            f"{period} >= {self.value(span[0], 'date')}",
            f"{period} < {self.value(span[1], 'date')}",
            *self._wanted(question),
        ]
        return f"{table} WHERE {' AND '.join(conditions)}"

    def _wanted(self, question: UsageQuestion) -> list[str]:
        wanted = question.wanted
        conditions = []
        if wanted.model is not None:
            conditions.append(f"model = {self.value(wanted.model, 'text')}")
        if wanted.api_key_id is not None:
            conditions.append(f"api_key_id = {self.value(wanted.api_key_id, 'uuid')}")
        if wanted.account_id is not None:
            conditions.append(f"account_id = {self.value(wanted.account_id, 'uuid')}")
        return conditions

    def beyond(self, question: UsageQuestion) -> str:
        """Leave out what was on the pages before."""
        if question.after is None:
            return ""
        fields = fields_of(question.groups)
        kinds = {"day": "date", "api_key_id": "uuid", "account_id": "uuid"}
        last = []
        for field in fields:
            value = getattr(question.after, field)
            value = _NULLS.get(field) if value is None else value
            last.append(self.value(value, kinds.get(field, "text")))
        sorted_by = ", ".join(_SORTED[field] for field in fields)
        return f"WHERE ({sorted_by}) > ({', '.join(last)})"


async def _add_up(
    connection: PooledConnection, tenant_id: TenantId, question: UsageQuestion
) -> UsageSums:
    """Add up all there is in the span, page or no page."""
    query = _Query(tenant_id)
    source = query.source(question, is_by_caller=False)
    rows = await connection.fetch(
        f"SELECT currency, {_SUMS}, sum(cost_nanos) AS cost FROM {source}"  # noqa: S608  likewise
        " GROUP BY currency ORDER BY currency",
        *query.values,
    )
    return UsageSums(
        **{name: sum(row[name] for row in rows) for name in _FIGURES},
        costs=_costs([row["currency"] for row in rows], [row["cost"] for row in rows]),
    )


async def _read_page(
    connection: PooledConnection, tenant_id: TenantId, question: UsageQuestion
) -> Sequence[asyncpg.Record]:
    if question.after is not None and question.after.day is not None:
        question = replace(question, since=max(question.since, question.after.day))
    query = _Query(tenant_id)
    fields = fields_of(question.groups)
    places = ", ".join(_SORTED[field] for field in fields)
    is_day_by_day = "day" in question.groups and question.is_by_caller
    if is_day_by_day:
        days, source = query.day_by_day(question)
    else:
        days, source = "", query.source(question, is_by_caller=question.is_by_caller)
    beyond = query.beyond(question)
    if is_day_by_day:
        beyond = beyond.replace("WHERE", "AND")
    keys = ", ".join(fields)
    limit = f"LIMIT {query.value(question.limit + 1, 'bigint')}"
    grouped = f"""
        SELECT {keys}, {_SUMS}, array_agg(coin ORDER BY coin) AS currencies,
            array_agg(cost ORDER BY coin) AS costs
        FROM (
            SELECT {keys}, currency AS coin, {_SUMS}, sum(cost_nanos) AS cost
            FROM {source} {beyond} GROUP BY {keys}, coin
        ) AS by_currency
        GROUP BY {keys} ORDER BY {places} {limit}
    """  # noqa: S608  likewise
    if is_day_by_day:
        # Rows come in the order of the days, for nothing but the loop over them can be planned.
        grouped = f"SELECT of_day.* FROM {days} CROSS JOIN LATERAL ({grouped}) AS of_day {limit}"  # noqa: S608  likewise
    rows: Sequence[asyncpg.Record] = await connection.fetch(grouped, *query.values)
    return rows


async def _count_groups(
    connection: PooledConnection, tenant_id: TenantId, question: UsageQuestion
) -> int:
    query = _Query(tenant_id)
    source = query.source(question, is_by_caller=question.is_by_caller)
    keys = ", ".join(fields_of(question.groups))
    total: int = await connection.fetchval(
        f"SELECT count(*) FROM (SELECT DISTINCT {keys} FROM {source}) AS found",  # noqa: S608  likewise
        *query.values,
    )
    return total


async def _read_names(
    connection: PooledConnection, tenant_id: TenantId, keys: Iterable[GroupKey]
) -> dict[UUID, str]:
    api_keys = {key.api_key_id for key in keys} - {None}
    accounts = {key.account_id for key in keys} - {None}
    if not api_keys and not accounts:
        return {}
    rows = await connection.fetch(_NAMES, tenant_id, list(api_keys), list(accounts))
    return {row["id"]: row["name"] for row in rows}


def _key(question: UsageQuestion, row: asyncpg.Record) -> GroupKey:
    return GroupKey(**{field: row[field] for field in fields_of(question.groups)})


def _sums(row: asyncpg.Record) -> UsageSums:
    return UsageSums(
        **{name: row[name] for name in _FIGURES}, costs=_costs(row["currencies"], row["costs"])
    )


def _add(groups: Sequence[UsageSums]) -> UsageSums:
    costs: Counter[str] = Counter()
    for group in groups:
        costs.update({cost.currency: cost.cost_nanos for cost in group.costs})
    return UsageSums(
        **{name: sum(getattr(group, name) for group in groups) for name in _FIGURES},
        costs=[Cost(currency=name, cost_nanos=costs[name]) for name in sorted(costs)],
    )


def _costs(currencies: Sequence[str | None], costs: Sequence[int]) -> list[Cost]:
    """Pair currencies with what was spent in them; what was free has none."""
    return [
        Cost(currency=currency, cost_nanos=int(cost))
        for currency, cost in zip(currencies, costs, strict=True)
        if currency is not None
    ]
