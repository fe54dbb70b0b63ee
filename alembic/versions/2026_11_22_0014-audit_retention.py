"""The trail shortened: tombstones, and the dropping of the partitions they are about.

Beside it, no time that a reader could not hold can be written into the trail, and people are
erased by what they are called, where somebody else acted or nobody had signed in.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014_audit_retention"
down_revision = "0013_audit_search"
branch_labels = None
depends_on = None

# Called by the worker, which owns nothing. Whoever calls it may drop what is over thirty days old
# and has a tombstone that says so; whether that tombstone is signed, a check of the trail tells.
# The lock keeps everybody who asks the log waiting, so it is not waited for long itself.
DROP_PARTITION = """
CREATE FUNCTION audit_drop_partition(wanted_class text, month date, tombstone bigint)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC' SET lock_timeout = '500ms' AS $$
DECLARE
    parent CONSTANT text := 'audit_log_' || wanted_class;
    child CONSTANT text := parent || to_char(month, '_YYYY_MM');
    least_days CONSTANT integer := 30;
    signed record;
    kept record;
BEGIN
    -- Names have no era: of another one, this would be the name of a month that is not over.
    IF wanted_class IS NULL OR month IS NULL OR month < '2000-01-01' OR month >= '2200-01-01'
        OR extract(day FROM month) <> 1 OR wanted_class NOT IN ('security', 'operations', 'usage')
    THEN
        RAISE EXCEPTION 'no such audit partition' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_inherits
        WHERE inhrelid = to_regclass(format('public.%I', child))
          AND inhparent = to_regclass(format('public.%I', parent)))
    THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'SELECT count(*) AS rows, min(seq) AS first_seq, max(seq) AS last_seq FROM public.%I',
        child) INTO kept;
    SELECT t.policy_days, t.rows, t.first_seq, t.last_seq INTO signed
        FROM public.audit_tombstones t
        WHERE t.n = tombstone AND t.retention_class = wanted_class AND t.period = month;
    IF kept.rows > 0 AND (signed.rows, signed.first_seq, signed.last_seq)
        IS DISTINCT FROM (kept.rows, kept.first_seq, kept.last_seq)
    THEN
        RAISE EXCEPTION '% has no tombstone for the rows in it', child
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF clock_timestamp() < (month + interval '1 month')::timestamptz
        + make_interval(days => greatest(least_days, coalesce(signed.policy_days, 0)))
    THEN
        RAISE EXCEPTION '% is not old enough to be dropped', child
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM public.audit_rollup_forget(wanted_class, month);
    EXECUTE format('LOCK TABLE ONLY public.%I IN ACCESS EXCLUSIVE MODE', parent);
    EXECUTE format('DROP TABLE public.%I', child);
    RETURN true;
END
$$
"""

# A table that is attached needs what the log checks.
MAKES_PARTITIONS = "audit_ensure_partition(text, timestamptz)"
PLAIN, CHECKED = "INCLUDING DEFAULTS)", "INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"

# Before 1970 no time is hashed, and Python's end with the year 9999.
TIMES = {
    "audit_log": ("recorded_at", "occurred_at"),
    "audit_chain": ("recorded_at",),
    "audit_checkpoints": ("recorded_at",),
    "audit_signing_keys": ("created_at",),
}


def raw(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.LargeBinary, nullable=nullable)


def number(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.BigInteger, autoincrement=False, nullable=nullable)


def word(name: str, *, nullable: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=nullable)


def upgrade() -> None:
    # This may run again where it was cut short. To look at what is there takes long, and is done
    # under a lock that keeps nobody waiting.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        _rewrite(MAKES_PARTITIONS, PLAIN, CHECKED)
        for table, columns in TIMES.items():
            op.execute(
                f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS ck_{table}_times,"
                f" ADD CONSTRAINT ck_{table}_times CHECK ({_is_ours(*columns)}) NOT VALID"
            )
        op.execute("SET lock_timeout = 0")
        for table in TIMES:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_times")
        op.execute("RESET lock_timeout")
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "audit_tombstones",
        number("n"),
        word("retention_class"),
        sa.Column("period", sa.Date, nullable=False),
        number("rows"),
        number("first_seq"),
        number("last_seq"),
        raw("members"),
        raw("digest"),
        word("archive_name", nullable=True),
        raw("archive_sha256", nullable=True),
        number("archive_size", nullable=True),
        sa.Column("policy_days", sa.Integer, nullable=False),
        word("actor"),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        word("key_id"),
        raw("previous"),
        raw("hash"),
        raw("signature"),
        raw("packed"),
        sa.PrimaryKeyConstraint("n", name="pk_audit_tombstones"),
        sa.ForeignKeyConstraint(
            ["key_id"], ["audit_signing_keys.key_id"], name="fk_audit_tombstones_key_id"
        ),
        sa.CheckConstraint("first_seq <= last_seq", name=op.f("ck_audit_tombstones_seq_order")),
        sa.CheckConstraint(
            "period >= '2000-01-01' AND period < '2200-01-01' AND extract(day FROM period) = 1",
            name=op.f("ck_audit_tombstones_period"),
        ),
        sa.CheckConstraint(_is_ours("decided_at"), name=op.f("ck_audit_tombstones_times")),
    )
    op.create_index(
        "ix_audit_tombstones_retention_class_period",
        "audit_tombstones",
        ["retention_class", "period"],
    )
    op.execute("""
        CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON audit_tombstones
        FOR EACH ROW EXECUTE FUNCTION audit_refuse_change()
    """)
    op.execute("""
        CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit_tombstones
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()
    """)
    op.execute("REVOKE ALL ON audit_tombstones FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT ON audit_tombstones TO maas_app")
    op.execute("GRANT SELECT, INSERT ON audit_tombstones TO maas_system")
    op.execute(DROP_PARTITION)
    op.execute("REVOKE ALL ON FUNCTION audit_drop_partition(text, date, bigint) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION audit_drop_partition(text, date, bigint) TO maas_system")
    for column in ("names", "emails"):
        op.add_column("audit_erasures", sa.Column(column, postgresql.ARRAY(sa.Text)))
    op.create_table(
        "audit_erased_events",
        sa.Column("event_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_audit_erased_events"),
    )
    op.execute("REVOKE ALL ON audit_erased_events FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT, INSERT, DELETE ON audit_erased_events TO maas_system")
    # What is set aside unread is kept as it came, but for the names in it.
    op.execute("GRANT UPDATE (fields) ON audit_dead_letter TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("REVOKE UPDATE (fields) ON audit_dead_letter FROM maas_system")
    op.drop_table("audit_erased_events")
    for column in ("emails", "names"):
        op.drop_column("audit_erasures", column)
    op.execute("DROP FUNCTION audit_drop_partition(text, date, bigint)")
    op.drop_table("audit_tombstones")
    for table in TIMES:
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_times")
    _rewrite(MAKES_PARTITIONS, CHECKED, PLAIN)


def _is_ours(*columns: str) -> str:
    return " AND ".join(
        f"{column} >= '1970-01-01 00:00:00+00' AND {column} < '2200-01-01 00:00:00+00'"
        for column in columns
    )


def _rewrite(function: str, old: str, new: str) -> None:
    """Change a word of a function, and nothing where it was changed before."""
    op.execute(f"""
        DO $do$ BEGIN
            EXECUTE replace(pg_get_functiondef('{function}'::regprocedure), '{old}', '{new}');
        END $do$
    """)
