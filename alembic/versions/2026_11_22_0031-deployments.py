"""The deployments: names that calls go by, and the targets behind them.

Who may call a deployment sees its row, and no row of its targets: what answers is its owner's.
What a target leads to lies in another context, so that no foreign key says that it is there.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031_deployments"
down_revision = "0030_provider_health"
branch_labels = None
depends_on = None

TABLES = ("deployments", "deployment_targets", "deployment_grants")
MINE = "current_setting('maas.tenant_id')::uuid"
PRICE = sa.Numeric(21, 12)
METERS = ("input", "output", "cached", "reasoning", "request")
LEADS = (
    "CASE kind "
    "WHEN 'provider' THEN provider_model_id IS NOT NULL "
    "AND num_nonnulls(model_id, version, alias, currency) = 0 "
    "WHEN 'local' THEN model_id IS NOT NULL AND provider_model_id IS NULL "
    "AND num_nonnulls(version, alias) = 1 "
    "ELSE false END"
)
PRICED = (
    "CASE WHEN currency IS NULL THEN num_nonnulls(input, output, cached, reasoning, request) = 0 "
    "ELSE num_nonnulls(input, output) = 2 END"
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _add_deployments()
    _add_targets()
    _add_grants()
    _guard()
    _share()


def _add_deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("visibility", sa.Text, nullable=False),
        sa.Column("currency", sa.Text),
        sa.Column("max_body_bytes", sa.BigInteger),
        sa.Column("max_output_tokens", sa.Integer),
        sa.Column("max_choices", sa.Integer),
        sa.Column("cache_seconds", sa.Integer),
        sa.Column("capture_days", sa.Integer),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.CheckConstraint("status IN ('active', 'disabled')", name="ck_deployments_status"),
        sa.CheckConstraint("visibility IN ('tenant', 'public')", name="ck_deployments_visibility"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="ck_deployments_currency"),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
        # What refers to a row names its tenant as well: foreign keys see past row security.
        sa.UniqueConstraint("id", "tenant_id", name="uq_deployments_id_tenant_id"),
    )
    op.create_index(
        "uq_deployments_tenant_id_name",
        "deployments",
        ["tenant_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_deployments_tenant_id_created_at_id",
        "deployments",
        ["tenant_id", "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_deployments_name_created_at_id",
        "deployments",
        ["name", "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL AND visibility = 'public'"),
    )


def _add_targets() -> None:
    op.create_table(
        "deployment_targets",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("deployment_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("provider_model_id", sa.Uuid),
        sa.Column("model_id", sa.Uuid),
        sa.Column("version", sa.Text),
        sa.Column("alias", sa.Text),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("max_concurrent", sa.Integer),
        sa.Column("max_queued", sa.Integer, nullable=False),
        sa.Column("queue_seconds", sa.Integer, nullable=False),
        sa.Column("connect_seconds", sa.Integer, nullable=False),
        sa.Column("first_byte_seconds", sa.Integer, nullable=False),
        sa.Column("idle_seconds", sa.Integer, nullable=False),
        sa.Column("total_seconds", sa.Integer, nullable=False),
        sa.Column("currency", sa.Text),
        *(sa.Column(meter, PRICE) for meter in METERS),
        sa.CheckConstraint(LEADS, name="ck_deployment_targets_leads"),
        sa.CheckConstraint(PRICED, name="ck_deployment_targets_priced"),
        sa.CheckConstraint("status IN ('active', 'disabled')", name="ck_deployment_targets_status"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="ck_deployment_targets_currency"),
        *(
            sa.CheckConstraint(
                f"{meter} >= 0 AND {meter} <> 'NaN'", name=f"ck_deployment_targets_{meter}"
            )
            for meter in METERS
        ),
        sa.PrimaryKeyConstraint("id", name="pk_deployment_targets"),
        _of_deployment("deployment_targets"),
    )
    op.create_index(
        "ix_deployment_targets_deployment_id", "deployment_targets", ["deployment_id", "position"]
    )


def _add_grants() -> None:
    op.create_table(
        "deployment_grants",
        sa.Column("deployment_id", sa.Uuid, nullable=False),
        sa.Column("grantee_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("deployment_id", "grantee_id", name="pk_deployment_grants"),
        _of_deployment("deployment_grants"),
    )
    op.create_index("ix_deployment_grants_grantee_id", "deployment_grants", ["grantee_id"])


def _of_deployment(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["deployment_id", "tenant_id"],
        ["deployments.id", "deployments.tenant_id"],
        name=f"fk_{table}_deployment_id_tenant_id",
        ondelete="CASCADE",
    )


def _guard() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
        )
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
        op.execute(f"GRANT SELECT ON {table} TO maas_system")
    op.execute("GRANT SELECT, INSERT, UPDATE ON deployments TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON deployment_targets TO maas_app")
    op.execute("GRANT SELECT, INSERT, DELETE ON deployment_grants TO maas_app")


def _share() -> None:
    """Let a tenant see the grants it has, the deployments of these, and those that are public.

    A tenant that is suspended or closed shares nothing, as in 0027.
    """
    op.execute(
        "CREATE POLICY of_others ON deployment_grants FOR SELECT TO maas_app "
        f"USING (grantee_id = {MINE})"
    )
    op.execute(f"""
        CREATE FUNCTION deployment_is_shared(uuid, tenant uuid, visibility text) RETURNS boolean
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RETURN (visibility = 'public' OR EXISTS (SELECT FROM public.deployment_grants
                    WHERE deployment_id = $1 AND grantee_id = {MINE} AND tenant_id = tenant))
                AND NOT public.tenant_has_status(tenant, 'suspended', 'deleted');
        END $$
    """)
    op.execute("REVOKE ALL ON FUNCTION deployment_is_shared(uuid, uuid, text) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION deployment_is_shared(uuid, uuid, text) TO maas_app")
    op.execute(
        "CREATE POLICY of_others ON deployments FOR SELECT TO maas_app "
        "USING (deleted_at IS NULL AND deployment_is_shared(id, tenant_id, visibility))"
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP POLICY of_others ON deployments")
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION deployment_is_shared(uuid, uuid, text)")
