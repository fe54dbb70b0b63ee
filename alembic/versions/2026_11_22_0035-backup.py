"""Backups read everything as `maas_system`, and a restore ends the sessions it brought back."""

from alembic import op

revision = "0035_backup"
down_revision = "0034_captures"
branch_labels = None
depends_on = None

# Months are made as time goes by, closed to everybody: their ledger is what is read. A copy of it
# all reads each by itself. No other role gains anything, and `maas_system` reads the rows anyway.
LET_READ = """
CREATE FUNCTION backup_let_read() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    closed record;
    opened integer := 0;
BEGIN
    FOR closed IN
        SELECT c.relname, c.relkind FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S')
          AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
          AND NOT CASE c.relkind
              WHEN 'S' THEN has_sequence_privilege('maas_system', c.oid, 'SELECT')
              ELSE has_table_privilege('maas_system', c.oid, 'SELECT') END
        ORDER BY c.relname
    LOOP
        EXECUTE format('GRANT SELECT ON %s public.%I TO maas_system',
            CASE closed.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, closed.relname);
        opened := opened + 1;
    END LOOP;
    RETURN opened;
END
$$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(LET_READ)
    op.execute("REVOKE ALL ON FUNCTION backup_let_read() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION backup_let_read() TO maas_system")
    op.execute("GRANT UPDATE (revoked_at, revoked_reason) ON sessions TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("REVOKE UPDATE (revoked_at, revoked_reason) ON sessions FROM maas_system")
    op.execute("DROP FUNCTION backup_let_read()")
