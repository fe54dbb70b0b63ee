"""The usage ledger: a row a call, by month, and sums of them that every insert keeps.

A row is known by `(at, id)`: when its hold was made, and the hold. Both are fixed before the call
is sent, so whatever is delivered twice meets the same primary key and is counted once.

A trigger adds what one statement inserts, in that statement's own transaction: by day with every
key of the ledger, by week (from Monday on) and by month likewise, and by day and model alone. The
sums equal those of the rows at any moment, whoever inserts. All times are those of `at`, in UTC.

Rows of a rollup stay locked until the transaction ends. Each statement takes them in the order of
their keys, which begin with the tenant: a transaction that inserts with one statement, or tenant by
tenant in the order of their ids, waits for no other in a circle. What a whole tenant shares is
spread over slots, so that it is no queue.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017_usage"
down_revision = "0016_api_keys"
branch_labels = None
depends_on = None

SLOTS = 8
SUMS = (
    "requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "storage_bytes",
    "cost_nanos",
)
DAYS, WEEKS, MONTHS = "usage_days", "usage_weeks", "usage_months"
MODEL_DAYS = "usage_model_days"
DAY = "(at AT TIME ZONE 'UTC')::date"
WEEK = "date_trunc('week', at AT TIME ZONE 'UTC')::date"
MONTH = "date_trunc('month', at AT TIME ZONE 'UTC')::date"
OF_CALL = {name: name for name in ("model", "api_key_id", "account_id", "actor_kind", "currency")}
KEYS = {
    DAYS: {"tenant_id": "tenant_id", "day": DAY, **OF_CALL},
    WEEKS: {"tenant_id": "tenant_id", "week": WEEK, **OF_CALL},
    MONTHS: {"tenant_id": "tenant_id", "month": MONTH, **OF_CALL},
    MODEL_DAYS: {
        "tenant_id": "tenant_id",
        "day": DAY,
        "model": "model",
        "currency": "currency",
        "slot": f"(pg_backend_pid() % {SLOTS})::smallint",
    },
}

# No call is of a trillion tokens, and sums of such calls could not be kept.
LEDGER = """
CREATE TABLE usage (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    settled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant_id uuid NOT NULL,
    account_id uuid,
    actor_kind text NOT NULL,
    api_key_id uuid,
    model text COLLATE "C" NOT NULL,
    provider text,
    request_id text NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    storage_bytes bigint NOT NULL,
    cost_nanos bigint NOT NULL,
    currency text COLLATE "C",
    is_estimated boolean NOT NULL,
    is_overrun boolean NOT NULL,
    CONSTRAINT pk_usage PRIMARY KEY (at, id),
    CONSTRAINT ck_usage_currency CHECK (
        CASE WHEN currency IS NULL THEN cost_nanos = 0 ELSE currency ~ '^[A-Z]{3}$' END),
    CONSTRAINT ck_usage_bounds CHECK (
        requests BETWEEN 0 AND 1000000000000 AND input_tokens BETWEEN 0 AND 1000000000000
        AND cached_tokens BETWEEN 0 AND 1000000000000
        AND output_tokens BETWEEN 0 AND 1000000000000
        AND reasoning_tokens BETWEEN 0 AND 1000000000000
        AND storage_bytes BETWEEN -1000000000000000 AND 1000000000000000)
) PARTITION BY RANGE (at)
"""

# What is settled stays: these raise for everyone, superusers included, unless the session calls
# itself a replica.
REFUSE = """
CREATE FUNCTION usage_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the usage ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$
"""

# A table is made apart and attached: that needs no lock readers or settling calls would wait for.
# Serving roles may call it, when they find no partition, and only for months near this one.
ENSURE_PARTITION = """
CREATE FUNCTION usage_ensure_partition(at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    first timestamptz := date_trunc('month', at);
    child text := 'usage' || to_char(first, '_YYYY_MM');
BEGIN
    IF at IS NULL OR at < clock_timestamp() - interval '13 months'
        OR at > clock_timestamp() + interval '13 months'
    THEN
        RAISE EXCEPTION 'no such usage partition' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF to_regclass(format('public.%I', child)) IS NOT NULL THEN
        RETURN child;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('maas.usage_ensure_partition', 0));
    IF to_regclass(format('public.%I', child)) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE public.%I '
            '(LIKE public.usage INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', child);
        -- Row-level security stands before the whole ledger, not before a month of it.
        EXECUTE format('REVOKE ALL ON public.%I FROM PUBLIC, maas_app, maas_system', child);
        EXECUTE format(
            'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON public.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION public.usage_refuse_change()', child);
        EXECUTE format(
            'ALTER TABLE public.usage ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            child, first, first + interval '1 month');
    END IF;
    RETURN child;
END
$$
"""

# The month before this one too: clocks differ, and a hold may be as old as its lease.
PARTITIONS = """
SELECT usage_ensure_partition(clock_timestamp() + make_interval(months => ahead))
FROM generate_series(-1, 3) AS ahead
"""
FUNCTIONS = ("usage_refuse_change()", "usage_roll_up()", "usage_ensure_partition(timestamptz)")


def add(table: str) -> str:
    """Count by the keys of a rollup, in an order that all who write to it keep to."""
    keys = KEYS[table]
    places = ", ".join(str(place) for place in range(1, len(keys) + 1))
    counted = ", ".join(f"sum({name})" for name in SUMS)
    added = ", ".join(f"{name} = kept.{name} + excluded.{name}" for name in SUMS)
    return f"""
        INSERT INTO public.{table} AS kept ({", ".join([*keys, *SUMS])}, estimated)
        SELECT {", ".join(keys.values())}, {counted}, count(*) FILTER (WHERE is_estimated)
        FROM settled GROUP BY {places} ORDER BY {places}
        ON CONFLICT ON CONSTRAINT uq_{table} DO UPDATE
        SET {added}, estimated = kept.estimated + excluded.estimated;
    """


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(LEDGER)
    op.execute(REFUSE)
    op.execute("""
        CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON usage
        FOR EACH ROW EXECUTE FUNCTION usage_refuse_change()
    """)
    op.execute("""
        CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON usage
        FOR EACH STATEMENT EXECUTE FUNCTION usage_refuse_change()
    """)
    _create(DAYS, "day")
    _create(WEEKS, "week")
    _create(MONTHS, "month")
    for table, period in ((DAYS, "day"), (MONTHS, "month")):
        for subject in ("api_key_id", "account_id"):
            columns = ["tenant_id", subject, period]
            op.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns)
    op.create_table(
        MODEL_DAYS,
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("model", sa.Text(collation="C"), nullable=False),
        sa.Column("currency", sa.Text(collation="C")),
        sa.Column("slot", sa.SmallInteger, nullable=False),
        *_sums(),
        _unique(MODEL_DAYS),
    )
    op.execute(f"""
        CREATE FUNCTION usage_roll_up() RETURNS trigger LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            {"".join(add(table) for table in KEYS)}
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER roll_up AFTER INSERT ON usage REFERENCING NEW TABLE AS settled
        FOR EACH STATEMENT EXECUTE FUNCTION usage_roll_up()
    """)
    op.execute(ENSURE_PARTITION)
    _guard()
    op.execute(PARTITIONS)


def _create(table: str, period: str) -> None:
    op.create_table(
        table,
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column(period, sa.Date, nullable=False),
        sa.Column("model", sa.Text(collation="C"), nullable=False),
        sa.Column("api_key_id", sa.Uuid),
        sa.Column("account_id", sa.Uuid),
        sa.Column("actor_kind", sa.Text, nullable=False),
        sa.Column("currency", sa.Text(collation="C")),
        *_sums(),
        _unique(table),
    )


def _sums() -> list[sa.Column]:
    """List the figures; of money the sums may be past a bigint."""
    kinds = {name: sa.BigInteger() for name in SUMS} | {"cost_nanos": sa.Numeric(38, 0)}
    kinds["estimated"] = sa.BigInteger()
    return [sa.Column(name, kind, nullable=False) for name, kind in kinds.items()]


def _unique(table: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*KEYS[table], name=f"uq_{table}", postgresql_nulls_not_distinct=True)


def _guard() -> None:
    for table in ("usage", *KEYS):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY tenant_reads ON {table} FOR SELECT TO maas_app
            USING (tenant_id = current_setting('maas.tenant_id')::uuid)
        """)
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
        op.execute(f"GRANT SELECT ON {table} TO maas_app, maas_system")
    for table in KEYS:
        # The trigger's function is the owner's, whom row-level security would bind as well.
        op.execute(f"CREATE POLICY owner_keeps ON {table} TO CURRENT_USER USING (true)")
        # The rows of the day are written anew with each settlement: room spares the indexes.
        op.execute(f"ALTER TABLE {table} SET (fillfactor = 70)")
    op.execute("""
        CREATE POLICY tenant_adds ON usage FOR INSERT TO maas_app
        WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)
    """)
    op.execute("GRANT INSERT ON usage TO maas_app, maas_system")
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
    op.execute("""
        GRANT EXECUTE ON FUNCTION usage_ensure_partition(timestamptz) TO maas_app, maas_system
    """)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP FUNCTION usage_ensure_partition(timestamptz)")
    op.execute("DROP TABLE usage")
    op.execute("DROP FUNCTION usage_roll_up()")
    op.execute("DROP FUNCTION usage_refuse_change()")
    for table in KEYS:
        op.drop_table(table)
