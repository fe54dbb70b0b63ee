"""The audit trail: outbox, partitioned log, hash chain, personal fields, dead letters."""

from alembic import op

revision = "0004_audit"
down_revision = "0003_user"
branch_labels = None
depends_on = None

CLASSES = ("security", "operations", "usage")

TABLES = """
CREATE TABLE audit_outbox (
    event_id uuid CONSTRAINT pk_audit_outbox PRIMARY KEY,
    tenant_id uuid NOT NULL,
    payload bytea NOT NULL,
    personal jsonb NOT NULL,
    duration_ms integer,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ix_audit_outbox_created_at_event_id ON audit_outbox (created_at, event_id);

CREATE TABLE audit_log (
    seq bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    retention_class text NOT NULL,
    event_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    actor_kind text NOT NULL,
    actor_id uuid,
    session_id uuid,
    api_key_id uuid,
    action text COLLATE "C" NOT NULL,
    resource_kind text,
    resource_id text,
    outcome text NOT NULL,
    reason text,
    request_id text NOT NULL,
    duration_ms integer,
    payload bytea NOT NULL,
    CONSTRAINT pk_audit_log PRIMARY KEY (seq, recorded_at, retention_class)
) PARTITION BY LIST (retention_class);
CREATE INDEX ix_audit_log_event_id ON audit_log (event_id);
CREATE INDEX ix_audit_log_tenant_id_occurred_at_event_id
    ON audit_log (tenant_id, occurred_at, event_id);
CREATE INDEX ix_audit_log_tenant_id_actor_id_occurred_at_event_id
    ON audit_log (tenant_id, actor_id, occurred_at, event_id);
CREATE INDEX ix_audit_log_tenant_id_action_occurred_at_event_id
    ON audit_log (tenant_id, action, occurred_at, event_id);
CREATE INDEX ix_audit_log_tenant_id_resource
    ON audit_log (tenant_id, resource_kind, resource_id, occurred_at, event_id);
CREATE INDEX ix_audit_log_tenant_id_request_id ON audit_log (tenant_id, request_id);
CREATE INDEX ix_audit_log_tenant_id_outcome_occurred_at_event_id
    ON audit_log (tenant_id, outcome, occurred_at, event_id) WHERE outcome <> 'success';

CREATE TABLE audit_chain (
    seq bigint CONSTRAINT pk_audit_chain PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    leaf bytea NOT NULL,
    row_hash bytea NOT NULL
);

CREATE TABLE audit_head (
    id smallint CONSTRAINT pk_audit_head PRIMARY KEY,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT ck_audit_head_single CHECK (id = 1)
);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));

CREATE TABLE audit_dedup (
    event_id uuid CONSTRAINT pk_audit_dedup PRIMARY KEY,
    recorded_at timestamptz NOT NULL
);

CREATE TABLE audit_personal (
    event_id uuid CONSTRAINT pk_audit_personal PRIMARY KEY,
    tenant_id uuid NOT NULL,
    actor_name text,
    email text,
    address inet,
    user_agent text,
    salt bytea NOT NULL
);
CREATE INDEX ix_audit_personal_tenant_id_address_event_id
    ON audit_personal (tenant_id, address, event_id);

CREATE TABLE audit_dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_audit_dead_letter PRIMARY KEY,
    source text NOT NULL,
    entry_id text NOT NULL,
    fields bytea[] NOT NULL,
    error text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ck_audit_dead_letter_source CHECK (source IN ('stream', 'outbox')),
    CONSTRAINT uq_audit_dead_letter_source_entry_id UNIQUE (source, entry_id)
);
"""

# What is recorded stays: these raise for everyone, superusers included, unless the session calls
# itself a replica.
TRIGGERS = """
CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON audit_chain
    FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
"""

CLASS_TABLE = """
CREATE TABLE audit_log_{name} PARTITION OF audit_log FOR VALUES IN ('{name}')
    PARTITION BY RANGE (recorded_at);
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON audit_log_{name}
    FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();
"""

# A table is made apart and attached: that needs no lock readers or the flush would wait for.
ENSURE_PARTITION = """
CREATE FUNCTION audit_ensure_partition(retention_class text, at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    first timestamptz := date_trunc('month', at);
    parent text := 'audit_log_' || retention_class;
    child text := parent || to_char(first, '_YYYY_MM');
BEGIN
    IF retention_class IS NULL OR at IS NULL
        OR retention_class NOT IN ('security', 'operations', 'usage')
        OR at < '1970-01-01' OR at >= '9999-01-01'
    THEN
        RAISE EXCEPTION 'no such audit partition' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF to_regclass(format('public.%I', child)) IS NOT NULL THEN
        RETURN child;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('maas.audit_ensure_partition', 0));
    IF to_regclass(format('public.%I', child)) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE public.%I (LIKE public.audit_log INCLUDING DEFAULTS)', child);
        EXECUTE format(
            'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON public.%I '
            'FOR EACH STATEMENT EXECUTE FUNCTION public.audit_refuse_change()', child);
        EXECUTE format(
            'ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            parent, child, first, first + interval '1 month');
    END IF;
    RETURN child;
END
$$;
REVOKE ALL ON FUNCTION audit_ensure_partition(text, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_ensure_partition(text, timestamptz) TO maas_system;
"""

# The application may know how much waits in the outbox, and nothing else about it.
BACKLOG = """
CREATE FUNCTION audit_backlog(
    OUT waiting bigint, OUT oldest_seconds double precision, OUT dead_letters bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT
        (SELECT count(*) FROM (SELECT FROM audit_outbox LIMIT 1000000) AS counted),
        coalesce(
            extract(epoch FROM clock_timestamp() - (SELECT min(created_at) FROM audit_outbox)), 0),
        (SELECT count(*) FROM (SELECT FROM audit_dead_letter LIMIT 1000000) AS counted)
$$;
REVOKE ALL ON FUNCTION audit_backlog() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION audit_backlog() TO maas_app, maas_system;
"""

POLICIES = """
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_reads ON audit_log FOR SELECT TO maas_app
    USING (tenant_id = current_setting('maas.tenant_id')::uuid);
ALTER TABLE audit_personal ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_personal FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_reads ON audit_personal FOR SELECT TO maas_app
    USING (tenant_id = current_setting('maas.tenant_id')::uuid);
"""

NAMES = (
    "audit_outbox, audit_log, audit_log_security, audit_log_operations, audit_log_usage, "
    "audit_chain, audit_head, audit_dedup, audit_personal, audit_dead_letter"
)

# The revocations undo what default privileges may have given.
GRANTS = f"""
REVOKE ALL ON {NAMES} FROM PUBLIC, maas_app, maas_system;
GRANT INSERT ON audit_outbox TO maas_app;
GRANT SELECT ON audit_log, audit_chain, audit_head, audit_personal TO maas_app;
GRANT SELECT, INSERT ON audit_log, audit_chain, audit_personal, audit_dead_letter TO maas_system;
GRANT SELECT, UPDATE ON audit_head TO maas_system;
GRANT SELECT, INSERT, DELETE ON audit_dedup TO maas_system;
GRANT SELECT, DELETE ON audit_outbox TO maas_system;
"""

PARTITIONS = """
SELECT audit_ensure_partition(class, clock_timestamp() + make_interval(months => ahead))
FROM unnest(ARRAY['security', 'operations', 'usage']) AS class, generate_series(0, 3) AS ahead
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _execute_script(TABLES)
    _execute_script(TRIGGERS)
    for name in CLASSES:
        _execute_script(CLASS_TABLE.format(name=name))
    for script in (ENSURE_PARTITION, BACKLOG, POLICIES, GRANTS, PARTITIONS):
        _execute_script(script)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP FUNCTION audit_backlog()")
    op.execute("DROP FUNCTION audit_ensure_partition(text, timestamptz)")
    for table in (
        "audit_dead_letter",
        "audit_personal",
        "audit_dedup",
        "audit_head",
        "audit_chain",
        "audit_log",
        "audit_outbox",
    ):
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION audit_refuse_change()")


def _execute_script(script: str) -> None:
    """Run statements one by one: asyncpg prepares each, and prepares no two at once."""
    statement: list[str] = []
    quoted = False
    for line in script.strip().splitlines():
        statement.append(line)
        quoted ^= line.count("$$") % 2 == 1
        if line.rstrip().endswith(";") and not quoted:
            op.execute("\n".join(statement))
            statement = []
    if statement:
        op.execute("\n".join(statement))
