"""The trail watched: rules, alerts, webhooks and their deliveries.

What lies in the log already raises nothing: the watch begins at its head.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015_audit_rules"
down_revision = "0014_audit_retention"
branch_labels = None
depends_on = None

OF_A_TENANT = (
    "audit_rule_settings",
    "audit_alerts",
    "audit_webhooks",
    "audit_webhook_queues",
    "audit_deliveries",
    "audit_watch_points",
    "audit_watch_quiet",
)
TABLES = ("audit_watch", *OF_A_TENANT)
OLDER_FUNCTIONS = ("tenants_of(uuid)", "session_principal(uuid)", "invitation_of(bytea)")


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), **{"nullable": False, **options})


def identifier(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.Uuid, **{"nullable": False, **options})


def words(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.Text, **{"nullable": False, **options})


def number(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.Integer, **{"nullable": False, **options})


def noted() -> sa.Column:
    return at("noted_at", server_default=sa.text("clock_timestamp()"))


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _make_watch()
    _make_alerts()
    _make_webhooks()
    _protect()
    # Unnamed, the caller's own temporary objects would be looked at first.
    _search("pg_catalog, public, pg_temp")


def _make_watch() -> None:
    op.create_table(
        "audit_watch",
        sa.Column("id", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_watch"),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_watch_single")),
    )
    op.execute("INSERT INTO audit_watch (id, seq) SELECT 1, seq FROM audit_head")
    op.create_table(
        "audit_watch_points",
        identifier("tenant_id"),
        words("rule"),
        sa.Column("subject", sa.LargeBinary, nullable=False),
        identifier("event_id"),
        at("occurred_at"),
        noted(),
        sa.PrimaryKeyConstraint(
            "tenant_id", "rule", "subject", "event_id", name="pk_audit_watch_points"
        ),
    )
    op.create_index("ix_audit_watch_points_noted_at", "audit_watch_points", ["noted_at"])
    op.create_table(
        "audit_watch_quiet",
        identifier("tenant_id"),
        words("rule"),
        sa.Column("subject", sa.LargeBinary, nullable=False),
        at("since"),
        at("until"),
        number("version"),
        noted(),
        sa.PrimaryKeyConstraint(
            "tenant_id", "rule", "subject", "since", name="pk_audit_watch_quiet"
        ),
    )
    op.create_index("ix_audit_watch_quiet_noted_at", "audit_watch_quiet", ["noted_at"])


def _make_alerts() -> None:
    op.create_table(
        "audit_rule_settings",
        identifier("tenant_id"),
        words("rule"),
        sa.Column("is_enabled", sa.Boolean, nullable=False),
        sa.Column("parameters", postgresql.JSONB, nullable=False),
        at("updated_at"),
        number("version"),
        sa.PrimaryKeyConstraint("tenant_id", "rule", name="pk_audit_rule_settings"),
    )
    op.create_table(
        "audit_alerts",
        identifier("id"),
        identifier("tenant_id"),
        words("rule"),
        words("subject_kind"),
        words("subject_id", nullable=True),
        number("count"),
        at("first_at"),
        at("last_at"),
        identifier("trigger_id"),
        sa.Column("event_ids", postgresql.ARRAY(sa.Uuid), nullable=False),
        at("raised_at"),
        at("muted_until", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_alerts"),
        sa.UniqueConstraint("id", "tenant_id", name="uq_audit_alerts_id_tenant_id"),
        # The cursor sees to it that an event is judged once; this is what would notice if not.
        sa.UniqueConstraint("rule", "trigger_id", name="uq_audit_alerts_rule_trigger_id"),
    )
    op.create_index(
        "ix_audit_alerts_tenant_id_raised_at_id", "audit_alerts", ["tenant_id", "raised_at", "id"]
    )


def _make_webhooks() -> None:
    op.create_table(
        "audit_webhooks",
        identifier("id"),
        identifier("tenant_id"),
        words("name"),
        words("url"),
        sa.Column("rules", postgresql.ARRAY(sa.Text), nullable=False),
        words("status"),
        words("status_reason", nullable=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("previous_secret", sa.LargeBinary),
        at("previous_until", nullable=True),
        at("created_at"),
        at("updated_at"),
        number("version"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_webhooks"),
        # What refers to a row names its tenant as well: foreign keys see past row security.
        sa.UniqueConstraint("id", "tenant_id", name="uq_audit_webhooks_id_tenant_id"),
        sa.CheckConstraint(
            "status IN ('active', 'disabled')", name=op.f("ck_audit_webhooks_status")
        ),
    )
    op.create_index(
        "ix_audit_webhooks_tenant_id_created_at_id",
        "audit_webhooks",
        ["tenant_id", "created_at", "id"],
    )
    op.create_table(
        "audit_webhook_queues",
        identifier("webhook_id"),
        identifier("tenant_id"),
        number("failures", server_default="0"),
        at("next_attempt_at"),
        at("tried_at", nullable=True),
        sa.PrimaryKeyConstraint("webhook_id", name="pk_audit_webhook_queues"),
        sa.ForeignKeyConstraint(
            ["webhook_id", "tenant_id"],
            ["audit_webhooks.id", "audit_webhooks.tenant_id"],
            name="fk_audit_webhook_queues_webhook_id_tenant_id",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "audit_deliveries",
        identifier("id"),
        identifier("tenant_id"),
        identifier("webhook_id"),
        identifier("alert_id", nullable=True),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        words("status"),
        number("attempts"),
        at("created_at"),
        at("last_attempt_at", nullable=True),
        at("finished_at", nullable=True),
        sa.Column("last_status", sa.Integer),
        words("last_error", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_deliveries"),
        sa.ForeignKeyConstraint(
            ["webhook_id", "tenant_id"],
            ["audit_webhooks.id", "audit_webhooks.tenant_id"],
            name="fk_audit_deliveries_webhook_id_tenant_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["alert_id", "tenant_id"],
            ["audit_alerts.id", "audit_alerts.tenant_id"],
            name="fk_audit_deliveries_alert_id_tenant_id",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'failed')", name=op.f("ck_audit_deliveries_status")
        ),
    )
    op.create_index(
        "ix_audit_deliveries_webhook_id_created_at_id",
        "audit_deliveries",
        ["webhook_id", "created_at", "id"],
    )
    op.create_index(
        "ix_audit_deliveries_pending",
        "audit_deliveries",
        ["webhook_id", "position"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_audit_deliveries_finished_at",
        "audit_deliveries",
        ["finished_at"],
        postgresql_where=sa.text("status <> 'pending'"),
    )
    op.create_index("ix_audit_deliveries_alert_id", "audit_deliveries", ["alert_id"])


def _protect() -> None:
    op.execute(f"REVOKE ALL ON {', '.join(TABLES)} FROM PUBLIC, maas_app, maas_system")
    for table in OF_A_TENANT:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"""
            CREATE POLICY own_tenant ON {table} TO maas_app
            USING (tenant_id = current_setting('maas.tenant_id')::uuid)
            WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)
        """)
    op.execute("GRANT SELECT ON audit_alerts TO maas_app")
    op.execute("GRANT SELECT, INSERT ON audit_deliveries TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON audit_rule_settings TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON audit_webhooks TO maas_app")
    op.execute("GRANT SELECT, INSERT, UPDATE ON audit_webhook_queues TO maas_app")
    op.execute("GRANT SELECT, UPDATE ON audit_watch, audit_webhooks TO maas_system")
    op.execute("GRANT SELECT ON audit_rule_settings TO maas_system")
    op.execute("GRANT SELECT, INSERT ON audit_alerts TO maas_system")
    op.execute("GRANT SELECT, UPDATE ON audit_webhook_queues TO maas_system")
    op.execute(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON audit_deliveries, audit_watch_points,"
        " audit_watch_quiet TO maas_system"
    )


def _search(path: str) -> None:
    for function in OLDER_FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} SET search_path = {path}")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _search("pg_catalog, public")
    for table in (
        "audit_deliveries",
        "audit_webhook_queues",
        "audit_webhooks",
        "audit_alerts",
        "audit_rule_settings",
        "audit_watch_quiet",
        "audit_watch_points",
        "audit_watch",
    ):
        op.drop_table(table)
