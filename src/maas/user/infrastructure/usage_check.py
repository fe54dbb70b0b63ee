"""Do the rollups of usage say what its rows add up to?"""

from dataclasses import dataclass
from typing import Final

import asyncpg

FIGURES: Final = (
    "requests", "input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens",
    "storage_bytes", "cost_nanos", "estimated",
)  # fmt: skip
_OF_CALL: Final = ("model", "api_key_id", "account_id", "actor_kind", "currency")
_ADDED: Final = ", ".join(f"sum({name})" for name in FIGURES)
_COUNTED: Final = _ADDED.replace("sum(estimated)", "count(*) FILTER (WHERE is_estimated)")


@dataclass(frozen=True, slots=True)
class UsageRollup:
    """A table, its keys but for the slot, and what they are made of in the rows below it."""

    table: str
    keys: tuple[str, ...]
    counted: str

    @property
    def query(self) -> str:
        keys, figures = ", ".join(self.keys), ", ".join(FIGURES)
        wrong = " OR ".join(f"sum(sign * {name}) <> 0" for name in FIGURES)
        return f"""
            SELECT {keys} FROM (
                SELECT 1 AS sign, {keys}, {figures} FROM {self.table}
                UNION ALL SELECT -1, * FROM ({self.counted}) AS counted
            ) AS both_sides
            GROUP BY {keys}
            HAVING count(*) FILTER (WHERE sign = 1) = 0 OR count(*) FILTER (WHERE sign = -1) = 0
                OR {wrong}
            LIMIT $1
        """  # noqa: S608  fixed words, no input


def _rollup(
    table: str, period: str, of: tuple[str, ...], *, source: str, bucket: str
) -> UsageRollup:
    sums = _COUNTED if source == "usage" else _ADDED
    keys = ("tenant_id", period, *of)
    places = ", ".join(str(place) for place in range(1, len(keys) + 1))
    counted = f"SELECT tenant_id, {bucket}, {', '.join(of)}, {sums} FROM {source} GROUP BY {places}"  # noqa: S608  likewise
    return UsageRollup(table, keys, counted)


ROLLUPS: Final = (
    _rollup("usage_days", "day", _OF_CALL, source="usage", bucket="(at AT TIME ZONE 'UTC')::date"),
    # The days are known to be right by then, or named: that saves more ways through the rows.
    _rollup(
        "usage_weeks", "week", _OF_CALL,
        source="usage_days", bucket="date_trunc('week', day::timestamp)::date",
    ),
    _rollup(
        "usage_months", "month", _OF_CALL,
        source="usage_days", bucket="date_trunc('month', day::timestamp)::date",
    ),
    _rollup("usage_model_days", "day", ("model", "currency"), source="usage_days", bucket="day"),
)  # fmt: skip


async def find_usage_differences(
    connection: "asyncpg.Connection[asyncpg.Record]", limit: int = 10
) -> list[str]:
    """Name the first rows of rollups that are not what is below them adds up to.

    Needs a role that sees all tenants, and a transaction of repeatable reads while calls settle.
    """
    found: list[str] = []
    for rollup in ROLLUPS:
        rows = await connection.fetch(rollup.query, limit)
        found += [f"{rollup.table}: {', '.join(map(str, row.values()))}" for row in rows]
    return found[:limit]
