"""What is to be freed of the artifact store.

Bytes become unused in one way only: a row of `version_files` goes or gets other bytes. A trigger
notes which, so that nobody has to look for them among all there are. The collection looks at them
after their grace, and deletes the rows of what no file has any more: in the same transaction their
parts become `doomed_parts`, which are then deleted from the store, and forgotten last. What an
upload leaves behind is doomed in the transaction in which it goes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022_collection"
down_revision = "0021_uploads"
branch_labels = None
depends_on = None

TABLES = ("freed_blobs", "doomed_parts", "collection_progress", "purged_models")


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, **options)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    now = sa.text("clock_timestamp()")
    op.create_table(
        "freed_blobs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        at("freed_at", server_default=now),
        sa.PrimaryKeyConstraint("id", name="pk_freed_blobs"),
    )
    op.create_index("ix_freed_blobs_freed_at_id", "freed_blobs", ["freed_at", "id"])
    op.create_index("ix_freed_blobs_sha256_freed_at", "freed_blobs", ["sha256", "freed_at"])
    op.create_table(
        "doomed_parts",
        sa.Column("key", sa.Text, nullable=False),
        at("doomed_at", server_default=now),
        sa.PrimaryKeyConstraint("key", name="pk_doomed_parts"),
    )
    op.create_table(
        "collection_progress",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
        at("began_at"),
        sa.PrimaryKeyConstraint("name", name="pk_collection_progress"),
    )
    op.create_table(
        "purged_models",
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        at("purged_at", server_default=now),
        sa.Column("has_files", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.PrimaryKeyConstraint("model_id", name="pk_purged_models"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_purged_models_model_id"),
    )
    op.create_index(
        "ix_purged_models_has_files",
        "purged_models",
        ["model_id"],
        postgresql_where=sa.text("has_files"),
    )
    op.create_index(
        "ix_models_deleted_at",
        "models",
        ["deleted_at"],
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    _note_what_is_freed()
    _doom_what_uploads_leave()
    _keep_doomed_parts_out()
    _guard()
    # Whatever lost its last file before there was a trigger; the others are let go when looked at.
    op.execute("INSERT INTO freed_blobs (sha256) SELECT sha256 FROM blobs")


def _note_what_is_freed() -> None:
    op.execute("""
        CREATE FUNCTION version_files_freed() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF TG_OP = 'DELETE' OR OLD.sha256 <> NEW.sha256 THEN
                INSERT INTO public.freed_blobs (sha256) VALUES (OLD.sha256);
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER freed AFTER DELETE OR UPDATE OF sha256 ON version_files
        FOR EACH ROW EXECUTE FUNCTION version_files_freed()
    """)


def _doom_what_uploads_leave() -> None:
    """Doom the parts of an upload that goes, unless a blob has them by the end of it all."""
    op.execute("""
        CREATE FUNCTION upload_parts_left() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            INSERT INTO public.doomed_parts (key) SELECT OLD.key
            WHERE NOT EXISTS (SELECT FROM public.blob_parts p WHERE p.key = OLD.key)
            ON CONFLICT DO NOTHING;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE CONSTRAINT TRIGGER left_behind AFTER DELETE ON upload_parts
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION upload_parts_left()
    """)


def _keep_doomed_parts_out() -> None:
    """Refuse a blob made of parts that were given up; who sends them again makes new ones."""
    op.execute("""
        CREATE FUNCTION parts_alive() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF EXISTS (SELECT FROM added a JOIN public.doomed_parts d ON d.key = a.key) THEN
                RAISE EXCEPTION 'the parts of this upload were given up'
                    USING ERRCODE = 'serialization_failure';
            END IF;
            RETURN NULL;
        END $$
    """)
    for table in ("blob_parts", "upload_parts"):
        op.execute(f"""
            CREATE TRIGGER alive AFTER INSERT ON {table} REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION parts_alive()
        """)
    for function in ("version_files_freed()", "upload_parts_left()", "parts_alive()"):
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")


def _guard() -> None:
    op.execute("ALTER TABLE purged_models ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE purged_models FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY own_tenant ON purged_models FOR SELECT TO maas_app "
        "USING (tenant_id = current_setting('maas.tenant_id')::uuid)"
    )
    op.execute("GRANT SELECT ON purged_models TO maas_app")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(TABLES)} TO maas_system")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute("DROP TRIGGER alive ON upload_parts")
    op.execute("DROP TRIGGER alive ON blob_parts")
    op.execute("DROP TRIGGER left_behind ON upload_parts")
    op.execute("DROP TRIGGER freed ON version_files")
    for function in ("parts_alive()", "upload_parts_left()", "version_files_freed()"):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_index("ix_models_deleted_at", table_name="models")
    for table in reversed(TABLES):
        op.drop_table(table)
