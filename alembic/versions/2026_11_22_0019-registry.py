"""What is said of models and versions beside their names, and who else may read them.

Processes of the version before go on meanwhile and know nothing of the new columns: defaults and
triggers say for them who owns a model, what a version's files are together, and the checksum that
is fixed once they are. Two things stay as these processes leave them: their moves of a version are
not in its history, and the private models of others are not hidden by them.
"""

from collections.abc import Iterator

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019_registry"
down_revision = "0018_quotas"
branch_labels = None
depends_on = None

OF_MODELS = ("model_tags", "model_metadata")
OF_VERSIONS = ("version_metrics", "version_metadata", "version_transitions")
NEW_TABLES = ("model_grants", *OF_MODELS, *OF_VERSIONS)
MINE = "current_setting('maas.tenant_id')::uuid"
VALUE = "jsonb_typeof(value) IN ('string', 'number', 'boolean')"
SOURCE = (
    "CASE source_kind "
    "WHEN 'uploaded' THEN num_nonnulls(source_model_id, source_version, source_url) = 0 "
    "WHEN 'fine-tuned-from' THEN num_nonnulls(source_model_id, source_version) = 2 "
    "AND source_url IS NULL "
    "WHEN 'imported-from' THEN source_url IS NOT NULL "
    "AND num_nonnulls(source_model_id, source_version) = 0 "
    "ELSE false END"
)
CHECKS = {
    "ck_models_visibility": ("models", "visibility IN ('private', 'tenant', 'public')"),
    "ck_model_versions_source": ("model_versions", SOURCE),
    "ck_model_versions_checksum": ("model_versions", "octet_length(checksum) = 32"),
}
FILLED = ("models", "model_versions", "version_files")
# A version has up to a thousand files.
MODELS_AT_ONCE, VERSIONS_AT_ONCE = 1_000, 50

TOTALS = "count(*)::integer AS file_count, coalesce(sum(size), 0)::bigint AS size"
CHECKSUM = r"""
    sha256(string_agg(convert_to(path, 'UTF8') || '\x00'::bytea
        || convert_to(encode(sha256, 'hex') || E'\n', 'UTF8'), ''::bytea ORDER BY path COLLATE "C"))
"""
TRIGGERS = {
    "model_gets_owner": (
        "models",
        "BEFORE INSERT",
        "WHEN (NEW.owner_id IS NULL)",
        "NEW.owner_id := NEW.created_by; RETURN NEW;",
    ),
    "version_gets_checksum": (
        "model_versions",
        "BEFORE UPDATE OF status",
        "WHEN (NEW.status = 'ready' AND NEW.checksum IS NULL)",
        f"""
        SELECT {CHECKSUM} INTO NEW.checksum FROM public.version_files WHERE version_id = NEW.id;
        RETURN NEW;
        """,
    ),
    # Whoever writes the right totals itself did so before, and its version is left alone. Files of
    # a version that is past its upload go only when they are collected, and its totals stay.
    "version_gets_totals": (
        "version_files",
        "AFTER INSERT OR DELETE OR UPDATE OF size",
        "",
        f"""
        IF TG_OP = 'DELETE' THEN of_version := OLD.version_id;
        ELSE of_version := NEW.version_id; END IF;
        UPDATE public.model_versions v SET file_count = f.file_count, size = f.size
        FROM (SELECT {TOTALS} FROM public.version_files WHERE version_id = of_version) f
        WHERE v.id = of_version AND v.status IN ('pending', 'uploading')
            AND (v.file_count, v.size) IS DISTINCT FROM (f.file_count, f.size);
        RETURN NULL;
        """,
    ),
}


def upgrade() -> None:
    # All of it may run again where it was cut short: nothing here can be rolled back.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        _widen()
        _add_triggers()
        # The owner is bound by row-level security as well, and none of its policies lets it change.
        for table in FILLED:
            op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        _fill_models()
        _fill_versions()
        for table in FILLED:
            op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        _check()
        op.execute("RESET lock_timeout")
    _lock("models, model_versions, version_files")
    _add_tables()
    _guard()
    _share()


def _lock(tables: str) -> None:
    """Take all tables at once, or wait with none: others lock them in this order and in that."""
    op.execute("SET LOCAL lock_timeout = '200ms'")
    op.execute(f"""
        DO $$ BEGIN
            FOR attempt IN 1..100 LOOP
                BEGIN
                    LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
                    RETURN;
                EXCEPTION WHEN lock_not_available THEN
                    PERFORM pg_sleep(random() / 10);
                END;
            END LOOP;
            RAISE lock_not_available USING MESSAGE = 'others keep {tables} locked';
        END $$
    """)
    op.execute("SET LOCAL lock_timeout = '1s'")


def _widen() -> None:
    """Add columns with constant defaults, which writes no row. The defaults stay."""
    op.execute("""
        ALTER TABLE models ADD COLUMN IF NOT EXISTS card text,
            ADD COLUMN IF NOT EXISTS visibility text NOT NULL DEFAULT 'tenant',
            ADD COLUMN IF NOT EXISTS owner_id uuid
    """)
    op.execute("""
        ALTER TABLE model_versions
            ADD COLUMN IF NOT EXISTS file_count integer NOT NULL DEFAULT 0,
            ADD COLUMN IF NOT EXISTS size bigint NOT NULL DEFAULT 0,
            ADD COLUMN IF NOT EXISTS checksum bytea,
            ADD COLUMN IF NOT EXISTS source_kind text NOT NULL DEFAULT 'uploaded',
            ADD COLUMN IF NOT EXISTS source_model_id uuid,
            ADD COLUMN IF NOT EXISTS source_version text,
            ADD COLUMN IF NOT EXISTS source_url text
    """)


def _add_triggers() -> None:
    """Say what a process of before leaves out. They run as who writes, in its tenant."""
    for name, (table, event, condition, body) in TRIGGERS.items():
        op.execute(f"""
            CREATE OR REPLACE FUNCTION {name}() RETURNS trigger
            LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
            DECLARE
                of_version uuid;
            BEGIN
                {body}
            END $$
        """)
        op.execute(f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC")
        op.execute(
            f"CREATE OR REPLACE TRIGGER {name} {event} ON {table} "
            f"FOR EACH ROW {condition} EXECUTE FUNCTION {name}()"
        )


def _fill_models() -> None:
    for after, last in _slices("models", MODELS_AT_ONCE):
        op.execute(
            "UPDATE models SET owner_id = created_by "
            f"WHERE id > '{after}' AND id <= '{last}' AND owner_id IS NULL"
        )


def _fill_versions() -> None:
    """Count and hash the files. Who changes some holds their version, and is waited for first."""
    for after, last in _slices("model_versions", VERSIONS_AT_ONCE):
        op.execute(f"""
            DO $$ BEGIN
                PERFORM FROM model_versions WHERE id > '{after}' AND id <= '{last}'
                ORDER BY id FOR NO KEY UPDATE;
                UPDATE model_versions v SET file_count = f.file_count, size = f.size,
                    checksum = f.checksum
                FROM (
                    SELECT o.id, t.file_count, t.size,
                        CASE WHEN o.status IN ('ready', 'deprecated', 'archived')
                             THEN t.checksum END AS checksum
                    FROM model_versions o CROSS JOIN LATERAL (
                        SELECT {TOTALS}, {CHECKSUM} AS checksum
                        FROM version_files WHERE version_id = o.id
                    ) t WHERE o.id > '{after}' AND o.id <= '{last}'
                ) f
                WHERE v.id = f.id AND (v.file_count, v.size, v.checksum)
                    IS DISTINCT FROM (f.file_count, f.size, f.checksum);
            END $$
        """)


def _slices(table: str, rows: int) -> Iterator[tuple[str, str]]:
    """Cut a table into stretches of ids, each to be filled, and let go of, by itself."""
    after = "00000000-0000-0000-0000-000000000000"
    while True:
        last = (
            op.get_bind()
            .exec_driver_sql(
                "SELECT max(id::text) FROM "
                f"(SELECT id FROM {table} WHERE id > '{after}' ORDER BY id LIMIT {rows}) slice"
            )
            .scalar()
        )
        if last is None:
            return
        yield after, last
        after = last


def _check() -> None:
    """Hold new rows to the rules at once, and look at the old ones while others write."""
    for name, (table, rule) in {
        **CHECKS,
        "ck_models_owner_id": ("models", "owner_id IS NOT NULL"),
    }.items():
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID")
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
    # What has been validated need not be looked for again.
    op.execute("ALTER TABLE models ALTER owner_id SET NOT NULL")
    op.execute("ALTER TABLE models DROP CONSTRAINT ck_models_owner_id")


def _add_tables() -> None:
    at = sa.Column("at", sa.DateTime(timezone=True), nullable=False)
    _create_of("models", "model_tags", sa.Column("tag", sa.Text, nullable=False))
    op.create_index("ix_model_tags_tenant_id_tag", "model_tags", ["tenant_id", "tag"])
    for owner, table in (("models", "model_metadata"), ("model_versions", "version_metadata")):
        _create_of(
            owner,
            table,
            sa.Column("key", sa.Text, nullable=False),
            sa.Column("value", postgresql.JSONB, nullable=False),
            sa.CheckConstraint(VALUE, name=f"ck_{table}_value"),
        )
    _create_of(
        "models",
        "model_grants",
        sa.Column("grantee_id", sa.Uuid, nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_model_grants_grantee_id", "model_grants", ["grantee_id"])
    _create_of(
        "model_versions",
        "version_metrics",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
    )
    _create_of(
        "model_versions",
        "version_transitions",
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("from_status", sa.Text, nullable=False),
        sa.Column("to_status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("by", sa.Uuid, nullable=False),
        at,
    )


def _create_of(owner: str, table: str, second: sa.Column, *rest: sa.schema.SchemaItem) -> None:
    """Make a table whose rows belong to a model or version, each with its own second key."""
    reference = "model_id" if owner == "models" else "version_id"
    op.create_table(
        table,
        sa.Column(reference, sa.Uuid, nullable=False),
        second,
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        *rest,
        sa.PrimaryKeyConstraint(reference, second.name, name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            [reference], [f"{owner}.id"], name=f"fk_{table}_{reference}", ondelete="CASCADE"
        ),
    )


def _guard() -> None:
    for table in NEW_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
        )
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO maas_system")
    op.execute("GRANT SELECT, INSERT, DELETE ON model_tags, model_grants TO maas_app")
    op.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE "
        "ON model_metadata, version_metadata, version_metrics TO maas_app"
    )
    # What happened is not changed; it goes with the version it happened to.
    op.execute("GRANT SELECT, INSERT ON version_transitions TO maas_app")


def _share() -> None:
    """Let other tenants read what is public or granted to them; to write, a row must be one's own.

    A condition on a parent is judged by the parent's own policies. The tenants are compared, or
    somebody's own row about a foreign model would open that model. Policies are tried from the last
    name to the first, so that own rows, by `own_tenant`, never get as far as `of_others`; and as
    functions these weigh next to nothing in the plans of own rows.
    """
    _decide("model_is_granted", "model_grants", f"model_id = $1 AND grantee_id = {MINE}")
    _decide("model_is_read", "models", "id = $1")
    _decide("version_is_read", "model_versions", "id = $1")
    op.execute(
        "CREATE POLICY of_others ON model_grants FOR SELECT TO maas_app "
        f"USING (grantee_id = {MINE})"
    )
    op.execute(
        "CREATE POLICY of_others ON models FOR SELECT TO maas_app USING (deleted_at IS NULL "
        "AND (visibility = 'public' "
        "OR visibility = 'tenant' AND model_is_granted(id, tenant_id)))"
    )
    for table in (*OF_MODELS, "model_versions"):
        op.execute(
            f"CREATE POLICY of_others ON {table} FOR SELECT TO maas_app "
            "USING (model_is_read(model_id, tenant_id))"
        )
    for table in (*OF_VERSIONS, "version_files"):
        op.execute(
            f"CREATE POLICY of_others ON {table} FOR SELECT TO maas_app "
            "USING (version_is_read(version_id, tenant_id))"
        )


def _decide(function: str, table: str, is_it: str) -> None:
    """Make a function that tells whether the caller sees such a row of the same tenant."""
    op.execute(f"""
        CREATE FUNCTION {function}(uuid, tenant uuid) RETURNS boolean
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RETURN EXISTS (SELECT FROM public.{table} WHERE {is_it} AND tenant_id = tenant);
        END $$
    """)
    op.execute(f"REVOKE ALL ON FUNCTION {function}(uuid, uuid) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {function}(uuid, uuid) TO maas_app")


def downgrade() -> None:
    _lock("models, model_versions, version_files")
    for table in ("version_files", "model_versions", "models"):
        op.execute(f"DROP POLICY of_others ON {table}")
    for table in (*OF_VERSIONS, *OF_MODELS, "model_grants"):
        op.drop_table(table)
    for function in ("version_is_read", "model_is_read", "model_is_granted"):
        op.execute(f"DROP FUNCTION {function}(uuid, uuid)")
    for name, (table, *_rest) in TRIGGERS.items():
        op.execute(f"DROP TRIGGER {name} ON {table}")
        op.execute(f"DROP FUNCTION {name}()")
    for column in (
        "source_url",
        "source_version",
        "source_model_id",
        "source_kind",
        "checksum",
        "size",
        "file_count",
    ):
        op.drop_column("model_versions", column)
    for column in ("owner_id", "visibility", "card"):
        op.drop_column("models", column)
