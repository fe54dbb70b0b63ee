"""Names that point at versions, and where each has pointed.

A move is never changed, and each alias counts its own without a gap. Versions are named in moves
and not referred to: what nothing points at may be deleted, and stays in the history.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020_aliases"
down_revision = "0019_registry"
branch_labels = None
depends_on = None

TABLES = ("model_aliases", "model_alias_moves")
MINE = "current_setting('maas.tenant_id')::uuid"


def upgrade() -> None:
    _lock("models, model_versions")
    op.create_table(
        "model_aliases",
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("version_id", sa.Uuid),
        sa.Column("version", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("moved_by", sa.Uuid),
        sa.Column("moved_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("model_id", "name", name="pk_model_aliases"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_aliases_model_id"),
        # It keeps a version from being deleted while something points at it.
        sa.ForeignKeyConstraint(
            ["version_id"], ["model_versions.id"], name="fk_model_aliases_version_id"
        ),
    )
    op.create_index("ix_model_aliases_version_id", "model_aliases", ["version_id"])
    op.create_table(
        "model_alias_moves",
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("alias", sa.Text, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("version_id", sa.Uuid),
        sa.Column("version", sa.Text),
        sa.Column("previous_version", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("moved_by", sa.Uuid, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "alias", "sequence", name="pk_model_alias_moves"),
        sa.ForeignKeyConstraint(
            ["model_id", "alias"],
            ["model_aliases.model_id", "model_aliases.name"],
            name="fk_model_alias_moves_model_id_alias",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "uq_model_alias_moves_model_id_alias_at",
        "model_alias_moves",
        ["model_id", "alias", "at"],
        unique=True,
    )
    _guard()


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


def _guard() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
        )
        # As in 0019: whoever may read a model may read where its names point.
        op.execute(
            f"CREATE POLICY of_others ON {table} FOR SELECT TO maas_app USING (EXISTS ("
            f"SELECT FROM models m WHERE m.id = {table}.model_id "
            f"AND m.tenant_id = {table}.tenant_id))"
        )
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO maas_system")
    op.execute("GRANT SELECT, INSERT, UPDATE ON model_aliases TO maas_app")
    op.execute("GRANT SELECT, INSERT ON model_alias_moves TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in reversed(TABLES):
        op.drop_table(table)
