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
DELETED_INDEX = "ix_models_deleted_at"
NOW = sa.text("clock_timestamp()")
SLICE = 2_000


def at(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, **options)


def upgrade() -> None:
    # All of it may run again where it was cut short: nothing here can be rolled back.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        _add_freed_blobs()
        _note_what_is_freed()
        _note_what_was_there()
        # Building one waits for transactions that are older, and nobody waits for it meanwhile.
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {DELETED_INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {DELETED_INDEX} ON models (deleted_at) "
            "WHERE deleted_at IS NOT NULL"
        )
        op.execute("RESET lock_timeout")
    _lock("models, blob_parts, upload_parts")
    _add_tables()
    _doom_what_uploads_leave()
    _keep_doomed_parts_out()
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


def _add_freed_blobs() -> None:
    op.create_table(
        "freed_blobs",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        at("freed_at", server_default=NOW),
        sa.PrimaryKeyConstraint("id", name="pk_freed_blobs"),
        if_not_exists=True,
    )
    for columns in (["freed_at", "id"], ["sha256", "freed_at"]):
        name = f"ix_freed_blobs_{'_'.join(columns)}"
        op.create_index(name, "freed_blobs", columns, if_not_exists=True)


def _note_what_was_there() -> None:
    """Note all blobs, for some lost their last file before; the others are let go when looked at.

    Slice by slice, each for itself: what comes meanwhile is noted when it is freed.
    """
    after = ""
    while after is not None:
        after = (
            op.get_bind()
            .exec_driver_sql(f"""
                WITH slice AS MATERIALIZED (
                    SELECT sha256 FROM blobs WHERE sha256 > decode('{after}', 'hex')
                    ORDER BY sha256 LIMIT {SLICE}
                ), noted AS (
                    INSERT INTO freed_blobs (sha256) SELECT sha256 FROM slice s
                    WHERE NOT EXISTS (SELECT FROM freed_blobs f WHERE f.sha256 = s.sha256)
                )
                SELECT max(encode(sha256, 'hex')) FROM slice
            """)
            .scalar()
        )


def _add_tables() -> None:
    op.create_table(
        "doomed_parts",
        sa.Column("key", sa.Text, nullable=False),
        at("doomed_at", server_default=NOW),
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
        at("purged_at", server_default=NOW),
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


def _note_what_is_freed() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION version_files_freed() RETURNS trigger
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            IF TG_OP = 'DELETE' OR OLD.sha256 <> NEW.sha256 THEN
                INSERT INTO public.freed_blobs (sha256) VALUES (OLD.sha256);
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute("REVOKE ALL ON FUNCTION version_files_freed() FROM PUBLIC")
    op.execute("""
        CREATE OR REPLACE TRIGGER freed AFTER DELETE OR UPDATE OF sha256 ON version_files
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
    for function in ("upload_parts_left()", "parts_alive()"):
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")


def _guard() -> None:
    # The revocation undoes what default privileges may have given.
    op.execute(f"REVOKE ALL ON {', '.join(TABLES)} FROM PUBLIC, maas_app, maas_system")
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
    op.drop_index(DELETED_INDEX, table_name="models")
    for table in reversed(TABLES):
        op.drop_table(table)
