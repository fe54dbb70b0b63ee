"""The pipeline's own needs: ids found by age, to be forgotten, and how late the trail is."""

from alembic import op

revision = "0011_audit_pipeline"
down_revision = "0010_checkpoints"
branch_labels = None
depends_on = None

# A UUID of version 7 begins with the milliseconds of when it was made.
BACKLOG = """
CREATE FUNCTION audit_backlog(
    OUT waiting bigint, OUT oldest_seconds double precision, OUT dead_letters bigint,
    OUT recorded_seconds_ago double precision, OUT flush_lag_seconds double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT
        (SELECT count(*) FROM (SELECT FROM audit_outbox LIMIT 1000000) AS counted),
        coalesce(
            extract(epoch FROM clock_timestamp() - (SELECT min(created_at) FROM audit_outbox)), 0),
        (SELECT count(*) FROM (SELECT FROM audit_dead_letter LIMIT 1000000) AS counted),
        extract(epoch FROM clock_timestamp() - newest.recorded_at),
        extract(epoch FROM newest.recorded_at)
            - ('x0' || left(replace(newest.event_id::text, '-', ''), 12))::bit(52)::bigint / 1000.0
    FROM (SELECT) AS one
    LEFT JOIN (SELECT event_id, recorded_at FROM audit_dedup ORDER BY recorded_at DESC LIMIT 1)
        AS newest ON true
$$
"""

OLD_BACKLOG = """
CREATE FUNCTION audit_backlog(
    OUT waiting bigint, OUT oldest_seconds double precision, OUT dead_letters bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT
        (SELECT count(*) FROM (SELECT FROM audit_outbox LIMIT 1000000) AS counted),
        coalesce(
            extract(epoch FROM clock_timestamp() - (SELECT min(created_at) FROM audit_outbox)), 0),
        (SELECT count(*) FROM (SELECT FROM audit_dead_letter LIMIT 1000000) AS counted)
$$
"""


DEDUP_INDEX = "ix_audit_dedup_recorded_at"


def upgrade() -> None:
    # Outside the transaction, where no event waits for it; again from the start where it was cut.
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {DEDUP_INDEX}")
        op.execute(f"CREATE INDEX CONCURRENTLY {DEDUP_INDEX} ON audit_dedup (recorded_at)")
    op.execute("SET LOCAL lock_timeout = '1s'")
    _replace(BACKLOG)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _replace(OLD_BACKLOG)
    op.drop_index(DEDUP_INDEX, table_name="audit_dedup", if_exists=True)


def _replace(backlog: str) -> None:
    """Make the function anew: its columns cannot be changed."""
    op.execute("DROP FUNCTION audit_backlog()")
    op.execute(backlog)
    op.execute("REVOKE ALL ON FUNCTION audit_backlog() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION audit_backlog() TO maas_app, maas_system")
