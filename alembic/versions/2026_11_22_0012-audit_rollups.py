"""The trail counted: rollups that every insert into the log keeps.

A trigger adds what one statement inserts, in that statement's own transaction, so that a count over
the rollups equals a count over the rows at any moment, whoever inserts: also a process of before.

`period` is the month of `recorded_at`, which makes each row of a rollup that of one partition. What
retention drops, it can take out of the rollups as exactly. Hours, days and weeks are those of
`occurred_at`, in UTC. By actor there are weeks beside the days: thirty days of two thousand people
are sixty thousand rows, and most of them lie in whole weeks.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012_audit_rollups"
down_revision = "0011_audit_pipeline"
branch_labels = None
depends_on = None

HOURS, DAYS, WEEKS = "audit_rollup_hours", "audit_rollup_days", "audit_rollup_weeks"
TABLES = (HOURS, DAYS, WEEKS)

PERIOD = "date_trunc('month', recorded_at AT TIME ZONE 'UTC')::date"
KEYS = {
    HOURS: (
        "tenant_id",
        "date_trunc('hour', occurred_at, 'UTC')",
        "action",
        "retention_class",
        PERIOD,
    ),
    DAYS: (
        "tenant_id",
        "(occurred_at AT TIME ZONE 'UTC')::date",
        "actor_kind",
        "actor_id",
        "retention_class",
        PERIOD,
    ),
    WEEKS: (
        "tenant_id",
        "date_trunc('week', occurred_at AT TIME ZONE 'UTC')::date",
        "actor_kind",
        "actor_id",
        "retention_class",
        PERIOD,
    ),
}
COUNTS = """
    count(*), count(*) FILTER (WHERE outcome = 'failure'),
    count(*) FILTER (WHERE outcome = 'denied'), max(seq)
"""
ADDED = """
    UPDATE SET events = kept.events + excluded.events,
        failures = kept.failures + excluded.failures, denials = kept.denials + excluded.denials,
        newest_seq = greatest(kept.newest_seq, excluded.newest_seq)
"""
SLICE = 10_000


def count(table: str, rows: str) -> str:
    """Count rows by the keys of a rollup, in an order that all who write to it keep to."""
    places = ", ".join(str(place) for place in range(1, len(KEYS[table]) + 1))
    keys = ", ".join(KEYS[table])
    return f"SELECT {keys}, {COUNTS} FROM {rows} GROUP BY {places} ORDER BY {places}"


def add(table: str, counted: str) -> str:
    return (
        f"INSERT INTO public.{table} AS kept {counted}"
        f" ON CONFLICT ON CONSTRAINT uq_{table} DO {ADDED};"
    )


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _drop()
    _create(
        HOURS,
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.Text(collation="C"), nullable=False),
    )
    for table, bucket in ((DAYS, "day"), (WEEKS, "week")):
        _create(
            table,
            sa.Column(bucket, sa.Date, nullable=False),
            sa.Column("actor_kind", sa.Text, nullable=False),
            sa.Column("actor_id", sa.Uuid),
        )
    op.create_index("ix_audit_rollup_days_tenant_id_actor_id", DAYS, ["tenant_id", "actor_id"])
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY tenant_reads ON {table} FOR SELECT TO maas_app
            USING (tenant_id = current_setting('maas.tenant_id')::uuid)
        """)
        # The functions below are the owner's, whom row-level security would bind as well.
        op.execute(f"CREATE POLICY owner_keeps ON {table} TO CURRENT_USER USING (true)")
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
        op.execute(f"GRANT SELECT ON {table} TO maas_app, maas_system")
    op.execute(f"""
        CREATE FUNCTION audit_rollup_add() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            {"".join(add(table, count(table, "recorded")) for table in TABLES)}
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION audit_rollup_forget(class text, month date) RETURNS bigint LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = public, pg_temp AS $$
        DECLARE forgotten bigint;
        BEGIN
            IF month < '2000-01-01' OR month >= '2200-01-01' THEN
                RAISE EXCEPTION 'no such month' USING ERRCODE = 'invalid_parameter_value';
            END IF;
            SELECT coalesce(sum(h.events), 0) INTO forgotten FROM audit_rollup_hours h
                WHERE h.retention_class = class AND h.period = month;
            DELETE FROM audit_rollup_hours h WHERE h.retention_class = class AND h.period = month;
            DELETE FROM audit_rollup_days d WHERE d.retention_class = class AND d.period = month;
            DELETE FROM audit_rollup_weeks w WHERE w.retention_class = class AND w.period = month;
            RETURN forgotten;
        END $$
    """)
    op.execute("REVOKE ALL ON FUNCTION audit_rollup_add() FROM PUBLIC")
    # What drops a partition is the owner's as well, and calls it: nobody else has a reason to.
    op.execute("REVOKE ALL ON FUNCTION audit_rollup_forget(text, date) FROM PUBLIC")
    last = _begin_counting()
    if last:
        # Cut short in here, the next run drops all of it and begins anew.
        with op.get_context().autocommit_block():
            _count_what_was_there(last)


def _create(table: str, *subject: sa.Column) -> None:
    keys = ["tenant_id", *(each.name for each in subject), "retention_class", "period"]
    op.create_table(
        table,
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        *subject,
        sa.Column("retention_class", sa.Text, nullable=False),
        sa.Column("period", sa.Date, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("denials", sa.BigInteger, nullable=False),
        sa.Column("newest_seq", sa.BigInteger, nullable=False),
        sa.UniqueConstraint(*keys, name=f"uq_{table}", postgresql_nulls_not_distinct=True),
    )
    # The rows of the hour are written anew with each batch: room beside them spares the indexes.
    op.execute(f"ALTER TABLE {table} SET (fillfactor = 70)")


def _begin_counting() -> int:
    """Draw the line between the rows that the trigger counts and those that were there before.

    To create a trigger, PostgreSQL waits for whoever is inserting and lets nobody begin. What the
    head says then is the last row that is not counted, and it is read without a lock: the flush
    takes the head first and the log second, and each would else wait for the other.
    """
    op.execute("""
        CREATE TRIGGER roll_up AFTER INSERT ON audit_log REFERENCING NEW TABLE AS recorded
        FOR EACH STATEMENT EXECUTE FUNCTION audit_rollup_add()
    """)
    return op.get_bind().execute(sa.text("SELECT seq FROM audit_head WHERE id = 1")).scalar_one()


def _count_what_was_there(last: int) -> None:
    """Add the older rows, while the flush goes on.

    Partition by partition, for row-level security shows the owner no row of the log as a whole.
    They are counted first and added in slices, so that no flush waits longer than one slice takes.
    """
    leaves = op.get_bind().execute(
        sa.text("SELECT relid::regclass::text FROM pg_partition_tree('audit_log') WHERE isleaf")
    )
    for leaf in leaves.scalars().all():
        for table in TABLES:
            _add_in_slices(table, count(table, f"{leaf} WHERE seq <= {last:d}"))
    op.execute("DROP TABLE IF EXISTS audit_rollup_counted")


def _add_in_slices(table: str, counted: str) -> None:
    columns = ", ".join(f"c{place}" for place in range(len(KEYS[table]) + 4))
    op.execute("DROP TABLE IF EXISTS audit_rollup_counted")
    op.execute(f"""
        CREATE TABLE audit_rollup_counted (n, {columns}) AS
        SELECT row_number() OVER (), * FROM ({counted}) AS counted
    """)
    op.execute("CREATE INDEX ON audit_rollup_counted (n)")
    count_rows = sa.text("SELECT count(*) FROM audit_rollup_counted")
    for start in range(0, op.get_bind().execute(count_rows).scalar_one(), SLICE):
        within = f"WHERE n > {start} AND n <= {start + SLICE} ORDER BY n"
        op.execute(add(table, f"SELECT {columns} FROM audit_rollup_counted {within}"))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _drop()


def _drop() -> None:
    op.execute("DROP TRIGGER IF EXISTS roll_up ON audit_log")
    op.execute("DROP FUNCTION IF EXISTS audit_rollup_add()")
    op.execute("DROP FUNCTION IF EXISTS audit_rollup_forget(text, date)")
    for table in (*TABLES, "audit_rollup_counted"):
        op.execute(f"DROP TABLE IF EXISTS {table}")
