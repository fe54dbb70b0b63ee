"""Signed checkpoints over the audit chain, and every public key that ever signed one."""

import sqlalchemy as sa
from alembic import op

revision = "0010_checkpoints"
down_revision = "0009_search"
branch_labels = None
depends_on = None

TABLES = ("audit_checkpoints", "audit_signing_keys")


def at(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def raw(name: str) -> sa.Column:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def number(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger, autoincrement=False, nullable=False)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "audit_signing_keys",
        sa.Column("key_id", sa.Text, nullable=False),
        raw("public_key"),
        number("first_seq"),
        at("created_at"),
        sa.PrimaryKeyConstraint("key_id", name="pk_audit_signing_keys"),
    )
    op.create_table(
        "audit_checkpoints",
        number("n"),
        number("seq_from"),
        number("seq_to"),
        at("recorded_at"),
        raw("root"),
        raw("head"),
        raw("previous"),
        sa.Column("key_id", sa.Text, nullable=False),
        raw("hash"),
        raw("signature"),
        sa.PrimaryKeyConstraint("n", name="pk_audit_checkpoints"),
        sa.UniqueConstraint("seq_to", name="uq_audit_checkpoints_seq_to"),
        sa.ForeignKeyConstraint(
            ["key_id"], ["audit_signing_keys.key_id"], name="fk_audit_checkpoints_key_id"
        ),
        sa.CheckConstraint("seq_from <= seq_to", name=op.f("ck_audit_checkpoints_seq_order")),
    )
    for table in TABLES:
        op.execute(f"""
            CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON {table}
            FOR EACH ROW EXECUTE FUNCTION audit_refuse_change()
        """)
        op.execute(f"""
            CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change()
        """)
    names = ", ".join(TABLES)
    op.execute(f"REVOKE ALL ON {names} FROM PUBLIC, maas_app, maas_system")
    op.execute(f"GRANT SELECT ON {names} TO maas_app")
    op.execute(f"GRANT SELECT, INSERT ON {names} TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in TABLES:
        op.drop_table(table)
