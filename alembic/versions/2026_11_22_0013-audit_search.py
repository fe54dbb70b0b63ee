"""The trail searched: indexes for every filter and for text.

A text is looked for among the words that the trail has (`audit_terms`), and what is found leads to
events by an index in the order of the list. Personal fields get the time of their event for that.
"""

from alembic import op

revision = "0013_audit_search"
down_revision = "0012_audit_rollups"
branch_labels = None
depends_on = None

LOG_INDEXES = {
    "ix_audit_log_actor_action": "(tenant_id, actor_id, action, occurred_at, event_id)",
    "ix_audit_log_actor_outcome": (
        "(tenant_id, actor_id, outcome, occurred_at, event_id) WHERE outcome <> 'success'"
    ),
    "ix_audit_log_action_outcome": (
        "(tenant_id, outcome, action, occurred_at, event_id) WHERE outcome <> 'success'"
    ),
    "ix_audit_log_session": (
        "(tenant_id, session_id, occurred_at, event_id) WHERE session_id IS NOT NULL"
    ),
    "ix_audit_log_api_key": (
        "(tenant_id, api_key_id, occurred_at, event_id) WHERE api_key_id IS NOT NULL"
    ),
    "ix_audit_log_reason": "(tenant_id, reason, occurred_at, event_id) WHERE reason IS NOT NULL",
    "ix_audit_log_request": "(tenant_id, request_id, occurred_at, event_id)",
}
OUTDATED_LOG_INDEX = "ix_audit_log_tenant_id_request_id"
PERSONAL_INDEXES = {
    "ix_audit_personal_address": "(tenant_id, address, occurred_at, event_id)",
    "ix_audit_personal_actor_name": (
        "(tenant_id, actor_name, occurred_at, event_id) WHERE actor_name IS NOT NULL"
    ),
    "ix_audit_personal_email": (
        "(tenant_id, email, occurred_at, event_id) WHERE email IS NOT NULL"
    ),
}
OUTDATED_PERSONAL_INDEX = "ix_audit_personal_tenant_id_address_event_id"

TERMS = """
    CREATE TABLE audit_terms (
        tenant_id uuid NOT NULL,
        field text NOT NULL,
        term text NOT NULL,
        leads_to text NOT NULL DEFAULT '',
        CONSTRAINT pk_audit_terms PRIMARY KEY (tenant_id, field, term, leads_to),
        CONSTRAINT ck_audit_terms_field
            CHECK (field IN ('action', 'reason', 'name', 'email', 'kind'))
    )
"""
# Found by text the index leads to all tenants' terms, and only the own ones are given.
MATCHING = r"""
    CREATE FUNCTION audit_matching_terms(q text, most integer)
    RETURNS TABLE (field text, term text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan AS $$
    DECLARE
        pattern CONSTANT text := '%' || regexp_replace(q, '([\\%_])', '\\\1', 'g') || '%';
        grams CONSTANT tsquery := public.search_query(q);
    BEGIN
        RETURN QUERY SELECT t.field, t.term FROM public.audit_terms t
            WHERE t.tenant_id = current_setting('maas.tenant_id')::uuid AND t.field <> 'kind'
                AND public.search_grams(t.term, NULL) @@ grams AND t.term ILIKE pattern
            LIMIT most;
    END $$
"""
# The lock is the flush's own: it must not count on a term that is about to go.
FORGET = """
    CREATE FUNCTION audit_forget_terms() RETURNS trigger
    LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM gone WHERE actor_name IS NOT NULL OR email IS NOT NULL) THEN
            RETURN NULL;
        END IF;
        PERFORM FROM audit_head WHERE id = 1 FOR UPDATE;
        DELETE FROM audit_terms t
        USING (SELECT DISTINCT tenant_id, actor_name FROM gone WHERE actor_name IS NOT NULL) g
        WHERE t.tenant_id = g.tenant_id AND t.field = 'name' AND t.term = g.actor_name
            AND NOT EXISTS (SELECT FROM audit_personal p
                WHERE p.tenant_id = g.tenant_id AND p.actor_name = g.actor_name);
        DELETE FROM audit_terms t
        USING (SELECT DISTINCT tenant_id, email FROM gone WHERE email IS NOT NULL) g
        WHERE t.tenant_id = g.tenant_id AND t.field = 'email' AND t.term = g.email
            AND NOT EXISTS (SELECT FROM audit_personal p
                WHERE p.tenant_id = g.tenant_id AND p.email = g.email);
        RETURN NULL;
    END $$
"""
FILL_TERMS = (
    """INSERT INTO audit_terms (tenant_id, field, term)
       SELECT DISTINCT tenant_id, 'action', action FROM audit_log ON CONFLICT DO NOTHING""",
    """INSERT INTO audit_terms (tenant_id, field, term)
       SELECT DISTINCT tenant_id, 'reason', reason FROM audit_log WHERE reason IS NOT NULL
       ON CONFLICT DO NOTHING""",
    """INSERT INTO audit_terms (tenant_id, field, term, leads_to)
       SELECT DISTINCT tenant_id, 'kind', resource_kind, action FROM audit_log
       WHERE resource_kind IS NOT NULL ON CONFLICT DO NOTHING""",
    """INSERT INTO audit_terms (tenant_id, field, term)
       SELECT DISTINCT tenant_id, 'name', actor_name FROM audit_personal
       WHERE actor_name IS NOT NULL ON CONFLICT DO NOTHING""",
    """INSERT INTO audit_terms (tenant_id, field, term)
       SELECT DISTINCT tenant_id, 'email', email FROM audit_personal
       WHERE email IS NOT NULL ON CONFLICT DO NOTHING""",
)
SLICE = 5_000
SMALL_BYTES = 64 * 1024 * 1024
OPENED = ("audit_log", "audit_personal", "audit_terms")


def upgrade() -> None:
    # All of it may run again where it was cut short: nothing here can be rolled back.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        _add_terms()
        op.execute("ALTER TABLE audit_personal ADD COLUMN IF NOT EXISTS occurred_at timestamptz")
        _open_to_owner()
        _fill_times()
        for statement in FILL_TERMS:
            op.execute(statement)
        _close_to_owner()
        _build_indexes()
        op.execute(f"DROP INDEX IF EXISTS {OUTDATED_LOG_INDEX}")
        # Building one waits for transactions that are older, and nobody waits for it meanwhile.
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {OUTDATED_PERSONAL_INDEX}")
        op.execute("RESET lock_timeout")


def _add_terms() -> None:
    op.execute(TERMS.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS"))
    op.execute(
        "CREATE INDEX IF NOT EXISTS ix_audit_terms_search ON audit_terms"
        " USING gin (search_grams(term, NULL)) WITH (fastupdate = off)"
    )
    op.execute("ALTER TABLE audit_terms ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE audit_terms FORCE ROW LEVEL SECURITY")
    for policy, rest in (
        (
            "tenant_reads",
            "FOR SELECT TO maas_app USING (tenant_id = current_setting('maas.tenant_id')::uuid)",
        ),
        ("owner_search", "FOR SELECT TO maas_owner USING (true)"),
    ):
        op.execute(f"DROP POLICY IF EXISTS {policy} ON audit_terms")
        op.execute(f"CREATE POLICY {policy} ON audit_terms {rest}")
    op.execute("REVOKE ALL ON audit_terms FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT ON audit_terms TO maas_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON audit_terms TO maas_system")
    op.execute(MATCHING.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute("REVOKE ALL ON FUNCTION audit_matching_terms(text, integer) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION audit_matching_terms(text, integer) TO maas_app")
    op.execute(FORGET.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    op.execute("""
        CREATE OR REPLACE TRIGGER forget_terms AFTER DELETE ON audit_personal
        REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION audit_forget_terms()
    """)


def _open_to_owner() -> None:
    """Let the owner see all tenants' rows, for as long as this takes."""
    for table in OPENED:
        op.execute(f"DROP POLICY IF EXISTS owner_fills ON {table}")
        op.execute(f"CREATE POLICY owner_fills ON {table} TO maas_owner USING (true)")


def _close_to_owner() -> None:
    for table in OPENED:
        op.execute(f"DROP POLICY owner_fills ON {table}")


def _fill_times() -> None:
    """Give old personal fields their time, slice by slice of the log, each for itself."""
    connection = op.get_bind()
    last = 0
    while True:
        reached = connection.exec_driver_sql(f"""
            WITH slice AS (
                SELECT seq, event_id, occurred_at FROM audit_log
                WHERE seq > {last} ORDER BY seq LIMIT {SLICE}
            ), filled AS (
                UPDATE audit_personal p SET occurred_at = s.occurred_at FROM slice s
                WHERE p.event_id = s.event_id AND p.occurred_at IS NULL
            )
            SELECT max(seq) FROM slice
        """).scalar()
        if reached is None:
            return
        last = reached


def _build_indexes() -> None:
    """Build them on small tables at once, and on big ones partition by partition, aside."""
    connection = op.get_bind()
    size = connection.exec_driver_sql("""
        SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree('audit_log')
    """).scalar()
    if (size or 0) < SMALL_BYTES:
        for name, definition in LOG_INDEXES.items():
            op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON audit_log {definition}")
        for name, definition in PERSONAL_INDEXES.items():
            op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON audit_personal {definition}")
        return
    for name, definition in LOG_INDEXES.items():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY audit_log {definition}")
        _build_below("audit_log", name, definition)
    op.execute("SET lock_timeout = 0")
    for name, definition in PERSONAL_INDEXES.items():
        _build_aside("audit_personal", name, definition)
    op.execute("SET lock_timeout = '1s'")


def _build_below(parent: str, parent_index: str, definition: str) -> None:
    """Build an index on each partition that has none of it yet, and attach it."""
    rows = op.get_bind().exec_driver_sql(f"""
        SELECT c.relname, c.relkind = 'p' FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = '{parent}'::regclass AND NOT EXISTS (
            SELECT FROM pg_inherits ii JOIN pg_index x ON x.indexrelid = ii.inhrelid
            WHERE ii.inhparent = '{parent_index}'::regclass AND x.indrelid = c.oid
        ) ORDER BY 1
    """)
    for table, is_parent in rows.fetchall():
        # As audit_log_security_2026_11 has the index security_2026_11_actor_action.
        index = (
            f"ix_{table.removeprefix('audit_log_')}_{parent_index.removeprefix('ix_audit_log_')}"
        )
        if is_parent:
            op.execute(f"CREATE INDEX IF NOT EXISTS {index} ON ONLY {table} {definition}")
            _build_below(table, index, definition)
        else:
            op.execute("SET lock_timeout = 0")
            _build_aside(table, index, definition)
            op.execute("SET lock_timeout = '1s'")
        op.execute(f"ALTER INDEX {parent_index} ATTACH PARTITION {index}")


def _build_aside(table: str, index: str, definition: str) -> None:
    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
    op.execute(f"CREATE INDEX CONCURRENTLY {index} ON {table} {definition}")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        definition = "(tenant_id, request_id)"
        op.execute(
            f"CREATE INDEX IF NOT EXISTS {OUTDATED_LOG_INDEX} ON ONLY audit_log {definition}"
        )
        _build_below("audit_log", OUTDATED_LOG_INDEX, definition)
        for name in LOG_INDEXES:
            op.execute(f"DROP INDEX IF EXISTS {name}")
        op.execute("SET lock_timeout = 0")
        for name in PERSONAL_INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        _build_aside("audit_personal", OUTDATED_PERSONAL_INDEX, "(tenant_id, address, event_id)")
        op.execute("SET lock_timeout = '1s'")
        op.execute("DROP TRIGGER IF EXISTS forget_terms ON audit_personal")
        op.execute("DROP FUNCTION IF EXISTS audit_forget_terms()")
        op.execute("DROP FUNCTION IF EXISTS audit_matching_terms(text, integer)")
        op.execute("DROP TABLE IF EXISTS audit_terms")
        op.execute("ALTER TABLE audit_personal DROP COLUMN IF EXISTS occurred_at")
        op.execute("RESET lock_timeout")
