"""The models of suppliers, and what they cost from when on.

Prices are a history: rows are added, and never changed or taken away.
"""

import sqlalchemy as sa
from alembic import op

revision = "0028_provider_models"
down_revision = "0027_providers"
branch_labels = None
depends_on = None

TABLES = ("provider_models", "provider_prices")
MINE = "current_setting('maas.tenant_id')::uuid"
PRICE = sa.Numeric(21, 12)
METERS = ("input", "output", "cached", "reasoning", "request")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _add_models()
    _add_prices()
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
    op.execute("GRANT SELECT, INSERT, UPDATE ON provider_models TO maas_app")
    op.execute("GRANT SELECT, INSERT ON provider_prices TO maas_app")
    _share()


def _add_models() -> None:
    op.create_table(
        "provider_models",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("capabilities", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("context_length", sa.Integer),
        sa.Column("max_output_tokens", sa.Integer),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True)),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.CheckConstraint("status IN ('active', 'disabled')", name="ck_provider_models_status"),
        sa.PrimaryKeyConstraint("id", name="pk_provider_models"),
        # What refers to a row names its tenant as well: foreign keys see past row security.
        sa.UniqueConstraint(
            "id", "provider_id", "tenant_id", name="uq_provider_models_id_provider_id"
        ),
        sa.ForeignKeyConstraint(
            ["provider_id", "tenant_id"],
            ["providers.id", "providers.tenant_id"],
            name="fk_provider_models_provider_id_tenant_id",
        ),
    )
    op.create_index(
        "uq_provider_models_provider_id_name",
        "provider_models",
        ["provider_id", "name"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_provider_models_provider_id_created_at_id",
        "provider_models",
        ["provider_id", "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def _add_prices() -> None:
    op.create_table(
        "provider_prices",
        sa.Column("id", sa.Uuid, nullable=False),
        # The order they were set in, which no process's clock decides.
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("provider_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("input", PRICE, nullable=False),
        sa.Column("output", PRICE, nullable=False),
        sa.Column("cached", PRICE),
        sa.Column("reasoning", PRICE),
        sa.Column("request", PRICE),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        *(
            sa.CheckConstraint(
                f"{meter} >= 0 AND {meter} <> 'NaN'", name=f"ck_provider_prices_{meter}"
            )
            for meter in METERS
        ),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="ck_provider_prices_currency"),
        sa.PrimaryKeyConstraint("id", name="pk_provider_prices"),
        sa.ForeignKeyConstraint(
            ["model_id", "provider_id", "tenant_id"],
            ["provider_models.id", "provider_models.provider_id", "provider_models.tenant_id"],
            name="fk_provider_prices_model_id_provider_id_tenant_id",
        ),
    )
    op.create_index(
        "ix_provider_prices_model_id_valid_from_position",
        "provider_prices",
        ["model_id", sa.text("valid_from DESC"), sa.text("position DESC")],
    )
    op.create_index(
        "ix_provider_prices_model_id_currency_valid_from_position",
        "provider_prices",
        ["model_id", "currency", sa.text("valid_from DESC"), sa.text("position DESC")],
    )


def _share() -> None:
    """Let a tenant see the models of providers that are granted to it, and the prices of these.

    A condition on a parent is judged by the parent's own policies: so nothing is seen of a provider
    that is deleted, or of a tenant that is closed.
    """
    _decide("provider_is_read", "providers")
    _decide("provider_model_is_read", "provider_models")
    op.execute(
        "CREATE POLICY of_others ON provider_models FOR SELECT TO maas_app "
        "USING (deleted_at IS NULL AND provider_is_read(provider_id, tenant_id))"
    )
    op.execute(
        "CREATE POLICY of_others ON provider_prices FOR SELECT TO maas_app "
        "USING (provider_model_is_read(model_id, tenant_id))"
    )


def _decide(function: str, table: str) -> None:
    """Make a function that tells whether the caller sees such a row of the same tenant."""
    op.execute(f"""
        CREATE FUNCTION {function}(uuid, tenant uuid) RETURNS boolean
        LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RETURN EXISTS (SELECT FROM public.{table} WHERE id = $1 AND tenant_id = tenant);
        END $$
    """)
    op.execute(f"REVOKE ALL ON FUNCTION {function}(uuid, uuid) FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {function}(uuid, uuid) TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in reversed(TABLES):
        op.drop_table(table)
    for function in ("provider_model_is_read", "provider_is_read"):
        op.execute(f"DROP FUNCTION {function}(uuid, uuid)")
