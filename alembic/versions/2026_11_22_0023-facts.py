"""What was read in the files of versions, and what a tenant lets into its versions.

A file's facts go with the file; those of a version are what its files say together, kept beside it
to be searched. Both are read by whoever may read the version: the policies of `model_versions` say
who that is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023_facts"
down_revision = "0022_collection"
branch_labels = None
depends_on = None

OF_VERSIONS = ("version_file_facts", "version_facts")
TABLES = (*OF_VERSIONS, "model_settings")
OWN = "tenant_id = current_setting('maas.tenant_id')::uuid"


def facts() -> list[sa.Column]:
    """Make the columns that both kinds of facts have; none of them is known of every format."""
    return [
        sa.Column("architecture", sa.Text),
        sa.Column("parameters", sa.BigInteger),
        sa.Column("dtype", sa.Text),
        sa.Column("quantisation", sa.Text),
        sa.Column("context_length", sa.BigInteger),
        sa.Column("tensor_count", sa.Integer),
    ]


def upgrade() -> None:
    _lock("model_versions, version_files")
    op.create_table(
        "version_file_facts",
        sa.Column("version_id", sa.Uuid, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        *facts(),
        sa.PrimaryKeyConstraint("version_id", "path", name="pk_version_file_facts"),
        sa.ForeignKeyConstraint(
            ["version_id", "path"],
            ["version_files.version_id", "version_files.path"],
            name="fk_version_file_facts_version_id_path",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "version_facts",
        sa.Column("version_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        *facts(),
        sa.PrimaryKeyConstraint("version_id", name="pk_version_facts"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name="fk_version_facts_version_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "model_settings",
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("allows_pickle", sa.Boolean, nullable=False),
        sa.Column("updated_by", sa.Uuid, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_model_settings"),
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
            f"CREATE POLICY own_tenant ON {table} TO maas_app USING ({OWN}) WITH CHECK ({OWN})"
        )
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
    for table in OF_VERSIONS:
        # Row-level security holds in the subquery as well: it finds what the caller may read.
        op.execute(
            f"CREATE POLICY of_others ON {table} FOR SELECT TO maas_app USING (EXISTS ("
            f"SELECT FROM model_versions v WHERE v.id = {table}.version_id "
            f"AND v.tenant_id = {table}.tenant_id))"
        )
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO maas_app, maas_system")
    op.execute("GRANT SELECT, INSERT, UPDATE ON model_settings TO maas_app")
    op.execute("GRANT SELECT ON model_settings TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in reversed(TABLES):
        op.drop_table(table)
