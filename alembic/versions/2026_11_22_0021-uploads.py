"""Uploads in parts, and storage that is charged to whoever fills it until it is given back.

A hold on storage that outlives its lease books nothing: bytes count once a file refers to them.
That moment leaves a row in `storage_bookings`, in the same transaction, and so does the moment in
which the file goes. Whoever finds such a row tells the quotas, once however often it tries, in
the order in which the rows came.

What the triggers write is the owner's doing: a charge may go with its file, and the file with its
version, whoever removes that.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021_uploads"
down_revision = "0020_aliases"
branch_labels = None
depends_on = None

TABLES = ("uploads", "upload_parts", "upload_holds", "file_charges", "storage_bookings")
OWN = "tenant_id = current_setting('maas.tenant_id')::uuid"
FUNCTIONS = (
    "storage_give_back()",
    "storage_release()",
    "quota_book_storage(uuid, uuid, text, uuid, uuid, timestamptz, bigint, text, text)",
)

GIVE_BACK = """
    CREATE FUNCTION storage_give_back() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        INSERT INTO public.storage_bookings
            (id, tenant_id, kind, made_at, account_id, actor_kind, api_key_id, size)
        VALUES (gen_random_uuid(), OLD.tenant_id, 'give_back', clock_timestamp(),
            OLD.account_id, OLD.actor_kind, OLD.api_key_id, OLD.size);
        RETURN NULL;
    END $$
"""
RELEASE = """
    CREATE FUNCTION storage_release() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        INSERT INTO public.storage_bookings
            (id, tenant_id, kind, hold_id, made_at, account_id, actor_kind, api_key_id, size)
        VALUES (gen_random_uuid(), OLD.tenant_id, 'release', OLD.hold_id, OLD.made_at,
            OLD.account_id, OLD.actor_kind, OLD.api_key_id, OLD.size);
        RETURN NULL;
    END $$
"""

# It takes its locks as calls do: `quota_begin` is theirs. What a booking lowers is told of anew
# when it is reached again.
BOOK = """
    CREATE FUNCTION quota_book_storage(tenant uuid, account uuid, kind text, key uuid,
        booking uuid, made timestamptz, change bigint, label text, request text)
    RETURNS boolean
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s' AS $$
    BEGIN
        PERFORM set_config('maas.tenant_id', tenant::text, true);
        PERFORM public.quota_begin(tenant, jsonb_build_array(jsonb_build_object(
            'op', 'book', 'id', booking, 'account', account, 'key', key, 'made', made)),
            clock_timestamp());
        INSERT INTO public.usage (id, at, tenant_id, account_id, actor_kind, api_key_id, model,
            provider, request_id, requests, input_tokens, cached_tokens, output_tokens,
            reasoning_tokens, storage_bytes, cost_nanos, currency, is_estimated, is_overrun)
        VALUES (booking, made, tenant, account, kind, key, label,
            NULL, request, 0, 0, 0, 0, 0, change, 0, NULL, false, false)
        ON CONFLICT (at, id) DO NOTHING;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        UPDATE public.quota_balances b SET settled = r.settled,
            alerted = least(b.alerted, CASE WHEN r.settled >= r.limit_amount THEN 100
                WHEN r.settled >= r.limit_amount - r.limit_amount / 5 THEN 80 ELSE 0 END)
        FROM (
            SELECT q.id, q.limit_amount, o.period_start,
                greatest(0, least(o.settled::numeric + change, 9223372036854775807))::bigint
                    AS settled
            FROM public.quotas q JOIN public.quota_balances o ON o.quota_id = q.id
            WHERE q.tenant_id = tenant AND q.meter = 'storage'
                AND q.subject_id IN (tenant, account, key)
        ) r
        WHERE b.quota_id = r.id AND b.period_start = r.period_start;
        RETURN true;
    END $$
"""
TRIGGERS = (
    """
    CREATE TRIGGER give_back AFTER DELETE ON file_charges
    FOR EACH ROW EXECUTE FUNCTION storage_give_back()
    """,
    """
    CREATE TRIGGER release AFTER DELETE ON upload_holds
    FOR EACH ROW WHEN (NOT OLD.is_settled) EXECUTE FUNCTION storage_release()
    """,
)


def at(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def payer() -> list[sa.Column]:
    return [
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("actor_kind", sa.Text, nullable=False),
        sa.Column("api_key_id", sa.Uuid),
    ]


def upgrade() -> None:
    _lock("model_versions, version_files, quota_holds")
    _create_uploads()
    _create_charges()
    # Whoever makes a hold names what it used when it reports progress, and not before.
    op.execute("ALTER TABLE quota_holds ALTER progress_storage_bytes SET DEFAULT 0")
    for script in (GIVE_BACK, RELEASE, BOOK, *TRIGGERS):
        op.execute(script)
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


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        *payer(),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("concat", sa.Text),
        sa.Column("metadata", sa.Text),
        sa.Column("model_id", sa.Uuid),
        sa.Column("version_id", sa.Uuid),
        sa.Column("version", sa.Text),
        sa.Column("path", sa.Text),
        sa.Column("media_type", sa.Text),
        sa.Column("sha256", sa.LargeBinary),
        sa.Column("length", sa.BigInteger, nullable=False),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("part_count", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("problem_code", sa.Text),
        sa.Column("problem_detail", sa.Text),
        sa.Column("writer", sa.Uuid),
        at("created_at"),
        at("updated_at"),
        at("expires_at"),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name="fk_uploads_version_id",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("kind IN ('whole', 'partial', 'final')", name="ck_uploads_kind"),
        sa.CheckConstraint("(kind = 'partial') = (version_id IS NULL)", name="ck_uploads_target"),
        sa.CheckConstraint(
            "state IN ('uploading', 'verifying', 'done', 'failed')", name="ck_uploads_state"
        ),
        sa.CheckConstraint("received BETWEEN 0 AND length", name="ck_uploads_received"),
    )
    op.create_index("ix_uploads_version_id", "uploads", ["version_id"])
    op.create_index("ix_uploads_expires_at", "uploads", ["expires_at"])
    op.create_index("ix_uploads_tenant_id_account_id", "uploads", ["tenant_id", "account_id"])
    op.create_index(
        "ix_uploads_verifying",
        "uploads",
        ["updated_at"],
        postgresql_where=sa.text("state = 'verifying'"),
    )
    op.create_table(
        "upload_parts",
        sa.Column("upload_id", sa.Uuid, nullable=False),
        sa.Column("index", sa.Integer, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("part_sha256", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("upload_id", "index", name="pk_upload_parts"),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name="fk_upload_parts_upload_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("key", name="uq_upload_parts_key"),
    )
    op.create_table(
        "upload_holds",
        sa.Column("hold_id", sa.Uuid, nullable=False),
        sa.Column("upload_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        *payer(),
        sa.Column("size", sa.BigInteger, nullable=False),
        at("made_at"),
        sa.Column("is_settled", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("hold_id", name="pk_upload_holds"),
        sa.ForeignKeyConstraint(
            ["upload_id"], ["uploads.id"], name="fk_upload_holds_upload_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_upload_holds_upload_id", "upload_holds", ["upload_id"])


def _create_charges() -> None:
    op.create_table(
        "file_charges",
        sa.Column("version_id", sa.Uuid, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        *payer(),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("version_id", "path", name="pk_file_charges"),
        sa.ForeignKeyConstraint(
            ["version_id", "path"],
            ["version_files.version_id", "version_files.path"],
            name="fk_file_charges_version_id_path",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "storage_bookings",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("hold_id", sa.Uuid),
        at("made_at"),
        *payer(),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_storage_bookings"),
        sa.UniqueConstraint("id", name="uq_storage_bookings_id"),
        sa.CheckConstraint(
            "kind IN ('settle', 'release', 'give_back') "
            "AND (kind = 'give_back') = (hold_id IS NULL)",
            name="ck_storage_bookings_kind",
        ),
    )


def _guard() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app USING ({OWN}) WITH CHECK ({OWN})"
        )
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO maas_app, maas_system")
    op.execute(
        "CREATE POLICY owner_adds ON storage_bookings FOR INSERT TO CURRENT_USER WITH CHECK (true)"
    )
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app, maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("ALTER TABLE quota_holds ALTER progress_storage_bytes DROP DEFAULT")
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
