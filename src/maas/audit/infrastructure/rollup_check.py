"""Do the rollups say what a count over the log's rows says?"""

from dataclasses import dataclass
from typing import Final

import asyncpg

from maas.audit.infrastructure.log_columns import held

_COUNTS: Final = """
    count(*) AS events, count(*) FILTER (WHERE outcome = 'failure') AS failures,
    count(*) FILTER (WHERE outcome = 'denied') AS denials, max(seq) AS newest_seq
"""
_SUMS: Final = """
    sum(events)::bigint, sum(failures)::bigint, sum(denials)::bigint, max(newest_seq)
"""
_MONTH: Final = "date_trunc('month', recorded_at AT TIME ZONE 'UTC')::date"


@dataclass(frozen=True, slots=True)
class Rollup:
    """A table, the columns of its key beside tenant and partition, and what it should hold."""

    table: str
    bucket: str
    kind: str
    of: str
    counted: str

    @property
    def query(self) -> str:
        keys = f"tenant_id, {self.bucket}, {self.of}, retention_class, period"
        figures = "events, failures, denials, newest_seq"
        return f"""
            WITH counted ({keys}, {figures}) AS MATERIALIZED ({self.counted})
            SELECT tenant_id, {held(self.bucket, self.kind)} AS {self.bucket}, {self.of},
                retention_class, {held("period", "date")} AS period,
                coalesce(sum(events) FILTER (WHERE sign = 1), 0)::bigint AS kept,
                coalesce(sum(events) FILTER (WHERE sign = -1), 0)::bigint AS counted
            FROM (
                SELECT 1 AS sign, {keys}, {figures} FROM {self.table}
                UNION ALL SELECT -1, * FROM counted
            ) AS b
            GROUP BY {keys}
            HAVING count(*) <> 2 OR sum(sign * events) <> 0 OR sum(sign * failures) <> 0
                OR sum(sign * denials) <> 0 OR sum(sign * newest_seq) <> 0
            ORDER BY tenant_id, b.{self.bucket}, {self.of}, retention_class, b.period LIMIT $1
        """  # noqa: S608  fixed words, no input


ROLLUPS: Final = (
    Rollup(
        table="audit_rollup_hours",
        bucket="hour",
        kind="timestamptz",
        of="action",
        counted=f"""
            SELECT tenant_id, date_trunc('hour', occurred_at, 'UTC'), action, retention_class,
                {_MONTH}, {_COUNTS}
            FROM audit_log GROUP BY 1, 2, 3, 4, 5
        """,  # noqa: S608  fixed words, no input
    ),
    Rollup(
        table="audit_rollup_days",
        bucket="day",
        kind="date",
        of="actor_kind, actor_id",
        counted=f"""
            SELECT tenant_id, (occurred_at AT TIME ZONE 'UTC')::date, actor_kind, actor_id,
                retention_class, {_MONTH}, {_COUNTS}
            FROM audit_log GROUP BY 1, 2, 3, 4, 5, 6
        """,  # noqa: S608  fixed words, no input
    ),
    # The days are known to be right by then, or named: that saves one more way through the log.
    Rollup(
        table="audit_rollup_weeks",
        bucket="week",
        kind="date",
        of="actor_kind, actor_id",
        counted=f"""
            SELECT tenant_id, date_trunc('week', day::timestamp)::date, actor_kind, actor_id,
                retention_class, period, {_SUMS}
            FROM audit_rollup_days GROUP BY 1, 2, 3, 4, 5, 6
        """,  # noqa: S608  fixed words, no input
    ),
)


async def find_rollup_differences(
    connection: "asyncpg.Connection[asyncpg.Record]", limit: int
) -> list[tuple[str, str]]:
    """Name the first rows of rollups that differ, and say how."""
    # How few groups there are, no estimate knows, and sorting every row takes ten times as long.
    await connection.execute("SET LOCAL enable_sort = off")
    found = []
    for rollup in ROLLUPS:
        rows = await connection.fetch(rollup.query, limit)
        found += [_describe(rollup, row) for row in rows]
    await connection.execute("SET LOCAL enable_sort = on")
    return found[:limit]


def _describe(rollup: Rollup, row: asyncpg.Record) -> tuple[str, str]:
    of = " ".join(str(row[column]) for column in rollup.of.split(", "))
    subject = (
        f"{rollup.table} of {row['tenant_id']}, {row[rollup.bucket].isoformat()}, {of},"
        f" {row['retention_class']} {row['period']:%Y-%m}"
    )
    if row["kept"] != row["counted"]:
        return subject, f"it counts {row['kept']} events, and there are {row['counted']}"
    return subject, "its figures are not those of the events"
