"""What is said of models and versions beside their names, and who else may read them."""

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


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    # The owner is bound by row-level security as well, and none of its policies lets it change.
    for table in ("models", "model_versions", "version_files"):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    _widen_models()
    _widen_versions()
    for table in ("models", "model_versions", "version_files"):
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    _add_tables()
    _guard()
    _share()


def _widen_models() -> None:
    op.add_column("models", sa.Column("card", sa.Text))
    op.add_column(
        "models", sa.Column("visibility", sa.Text, nullable=False, server_default="tenant")
    )
    op.add_column("models", sa.Column("owner_id", sa.Uuid))
    op.execute("UPDATE models SET owner_id = created_by")
    op.alter_column("models", "visibility", server_default=None)
    op.alter_column("models", "owner_id", nullable=False)
    op.create_check_constraint(
        "ck_models_visibility", "models", "visibility IN ('private', 'tenant', 'public')"
    )


def _widen_versions() -> None:
    op.add_column(
        "model_versions", sa.Column("file_count", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column(
        "model_versions", sa.Column("size", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column("model_versions", sa.Column("checksum", sa.LargeBinary))
    op.add_column(
        "model_versions",
        sa.Column("source_kind", sa.Text, nullable=False, server_default="uploaded"),
    )
    op.add_column("model_versions", sa.Column("source_model_id", sa.Uuid))
    op.add_column("model_versions", sa.Column("source_version", sa.Text))
    op.add_column("model_versions", sa.Column("source_url", sa.Text))
    op.execute(r"""
        UPDATE model_versions v SET file_count = f.file_count, size = f.size,
            checksum = CASE WHEN v.status IN ('ready', 'deprecated', 'archived')
                            THEN sha256(f.listing) END
        FROM (
            SELECT version_id, count(*) AS file_count, sum(size) AS size, string_agg(
                convert_to(path, 'UTF8') || '\x00'::bytea
                || convert_to(encode(sha256, 'hex') || E'\n', 'UTF8'),
                ''::bytea ORDER BY path COLLATE "C") AS listing
            FROM version_files GROUP BY version_id
        ) f
        WHERE f.version_id = v.id
    """)
    for column in ("file_count", "size", "source_kind"):
        op.alter_column("model_versions", column, server_default=None)
    op.create_check_constraint("ck_model_versions_source", "model_versions", SOURCE)
    op.create_check_constraint(
        "ck_model_versions_checksum", "model_versions", "octet_length(checksum) = 32"
    )


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
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in ("version_files", "model_versions", "models"):
        op.execute(f"DROP POLICY of_others ON {table}")
    for table in (*OF_VERSIONS, *OF_MODELS, "model_grants"):
        op.drop_table(table)
    for function in ("version_is_read", "model_is_read", "model_is_granted"):
        op.execute(f"DROP FUNCTION {function}(uuid, uuid)")
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
