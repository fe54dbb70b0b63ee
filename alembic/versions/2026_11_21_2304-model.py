"""Models, their versions and files, and the blobs behind them."""

import sqlalchemy as sa
from alembic import op

revision = "0005_model"
down_revision = "0004_audit"
branch_labels = None
depends_on = None

TENANT_TABLES = ("models", "model_versions", "version_files")


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **options)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _add_models()
    _add_blobs()
    _add_files()
    _guard()
    _add_search()


def _add_models() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("framework", sa.Text, nullable=False),
        sa.Column("task", sa.Text),
        sa.Column("licence", sa.Text),
        sa.Column("created_by", sa.Uuid, nullable=False),
        at("created_at", nullable=False),
        at("updated_at", nullable=False),
        at("deleted_at"),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
    )
    alive = sa.text("deleted_at IS NULL")
    op.create_index(
        "uq_models_tenant_id_name",
        "models",
        ["tenant_id", "name"],
        unique=True,
        postgresql_where=alive,
    )
    op.create_index(
        "ix_models_tenant_id_created_at_id",
        "models",
        ["tenant_id", "created_at", "id"],
        postgresql_where=alive,
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("status_reason", sa.Text),
        sa.Column("description", sa.Text),
        sa.Column("created_by", sa.Uuid, nullable=False),
        at("created_at", nullable=False),
        at("updated_at", nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_versions_model_id"),
    )
    op.create_index(
        "uq_model_versions_model_id_name", "model_versions", ["model_id", "name"], unique=True
    )
    op.create_index(
        "ix_model_versions_model_id_created_at_id",
        "model_versions",
        ["model_id", "created_at", "id"],
    )


def _add_blobs() -> None:
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        at("created_at", nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_blobs"),
        sa.CheckConstraint("octet_length(sha256) = 32", name="ck_blobs_sha256"),
    )
    op.create_table(
        "blob_parts",
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("part_sha256", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("sha256", "index", name="pk_blob_parts"),
        sa.ForeignKeyConstraint(
            ["sha256"], ["blobs.sha256"], name="fk_blob_parts_sha256", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("key", name="uq_blob_parts_key"),
    )


def _add_files() -> None:
    op.create_table(
        "version_files",
        sa.Column("version_id", sa.Uuid, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        at("created_at", nullable=False),
        sa.PrimaryKeyConstraint("version_id", "path", name="pk_version_files"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name="fk_version_files_version_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["sha256"], ["blobs.sha256"], name="fk_version_files_sha256"),
    )
    op.create_index("ix_version_files_sha256", "version_files", ["sha256"])


def _guard() -> None:
    """Bind every tenant's rows to its transactions; the owner's search function sees all."""
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            "USING (tenant_id = current_setting('maas.tenant_id')::uuid) "
            "WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)"
        )
    # With a condition here, a search could not use its index: ILIKE is not leakproof.
    op.execute("CREATE POLICY owner_search ON models FOR SELECT TO maas_owner USING (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE ON models TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON model_versions, version_files TO maas_app")
    # UPDATE locks a blob against whoever frees unused ones; nobody changes one.
    op.execute("GRANT SELECT, INSERT, UPDATE ON blobs TO maas_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON blob_parts TO maas_app")
    op.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE "
        "ON models, model_versions, version_files, blobs, blob_parts TO maas_system"
    )


MATCHES = """
    m.tenant_id = current_setting('maas.tenant_id')::uuid AND m.deleted_at IS NULL
    AND (wanted_framework IS NULL OR m.framework = wanted_framework)
    AND (wanted_task IS NULL OR m.task = wanted_task)
    AND (m.name ILIKE pattern OR m.description ILIKE pattern)
"""

# plpgsql, planned for each pattern: a plan for any pattern would not know how selective it is.
SETTINGS = """
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan
"""
PATTERN = r"pattern CONSTANT text := '%' || regexp_replace(q, '([\\%_])', '\\\1', 'g') || '%';"


def _add_search() -> None:
    """Find substrings of names and descriptions by trigrams, where PostgreSQL has them."""
    op.execute("""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm')
               AND has_database_privilege(current_database(), 'CREATE') THEN
                CREATE EXTENSION IF NOT EXISTS pg_trgm;
            END IF;
            IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
                CREATE INDEX ix_models_name_description_trgm ON models
                    USING gin (name gin_trgm_ops, description gin_trgm_ops)
                    WITH (fastupdate = off) WHERE deleted_at IS NULL;
            END IF;
        END $$
    """)
    op.execute(f"""
        CREATE FUNCTION model_search(q text, wanted_framework text, wanted_task text,
                                     before_at timestamptz, before_id uuid, row_limit integer)
        RETURNS SETOF models {SETTINGS} AS $$
        DECLARE {PATTERN}
        BEGIN
            RETURN QUERY SELECT m.* FROM public.models m
            WHERE {MATCHES}
              AND (before_at IS NULL OR (m.created_at, m.id) < (before_at, before_id))
            ORDER BY m.created_at DESC, m.id DESC LIMIT row_limit;
        END $$
    """)
    op.execute(f"""
        CREATE FUNCTION model_search_count(q text, wanted_framework text, wanted_task text)
        RETURNS bigint {SETTINGS} AS $$
        DECLARE {PATTERN}
        BEGIN
            RETURN (SELECT count(*) FROM public.models m WHERE {MATCHES});
        END $$
    """)
    for function in (
        "model_search(text, text, text, timestamptz, uuid, integer)",
        "model_search_count(text, text, text)",
    ):
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP FUNCTION model_search_count(text, text, text)")
    op.execute("DROP FUNCTION model_search(text, text, text, timestamptz, uuid, integer)")
    for table in ("version_files", "blob_parts", "blobs", "model_versions", "models"):
        op.drop_table(table)
    # Made above, unless an operator had made it before: then something else may depend on it.
    op.execute("""
        DO $$ BEGIN
            DROP EXTENSION IF EXISTS pg_trgm;
        EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
            RAISE NOTICE 'pg_trgm stays: it is in use';
        END $$
    """)
