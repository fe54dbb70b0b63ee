"""How models and versions are found, by what is said of them and what was read in their files.

`version_search` has all that versions are found by in one row a version, so that one index answers
any combination: each value is a word of its own in it, the tenant too, and sizes and counts are by
powers of two. Triggers keep the row, each only the columns of its own table: what two transactions
change at once is never read by one before the other wrote it.

Words cannot be looked up under row-level security, so two functions of the owner's do. They show
ids and times of the tenant at hand, never of another.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0024_registry_search"
down_revision = "0023_facts"
branch_labels = None
depends_on = None

MINE = "current_setting('maas.tenant_id')::uuid"
READ_TO_FILL = ("models", "model_versions", "model_tags", "version_facts", "model_aliases")
SLICE = 1_000
# What is often asked for and changes as time goes by, so that all of it may be old.
LEADS = ("status", "framework", "architecture", "quantisation")

SETTINGS = "SET search_path = pg_catalog, pg_temp"
# A bitmap of the words' index, whatever else looks cheap to who expects to be done soon.
BY_WORDS = f"""
    LANGUAGE plpgsql STABLE SECURITY DEFINER {SETTINGS} SET plan_cache_mode = force_custom_plan
    SET enable_seqscan = off SET enable_indexscan = off SET enable_indexonlyscan = off
"""

# As many as a model may have: with more, put there by whatever else, a row could not be changed.
MOST_ALIASES = 1_000

OF_MODEL = "{0}.tenant_id, {0}.framework, {0}.task, {0}.licence, {0}.visibility, {0}.owner_id"
MODEL_WORDS = f"registry_words({OF_MODEL.format('m')})"
VERSION_WORDS = (
    f"registry_words({OF_MODEL.format('s')}, s.tags, s.aliases, s.status, s.architecture, "
    "s.quantisation, s.dtype, s.size, s.parameters, s.context_length)"
)
INDEXES = {
    "ix_models_words": (
        "models USING gin (search_grams(name, description), "
        "registry_words(tenant_id, framework, task, licence, visibility, owner_id)) "
        "WITH (fastupdate = off) WHERE deleted_at IS NULL"
    ),
    "ix_models_deleted": "models (tenant_id, created_at, id) WHERE deleted_at IS NOT NULL",
    "ix_models_public": (
        "models (created_at, id) WHERE visibility = 'public' AND deleted_at IS NULL"
    ),
}
# Its first column was this whole index.
OUTDATED_INDEX = "ix_models_search"
OUTDATED = "models USING gin (search_grams(name, description)) WITH (fastupdate = off) WHERE deleted_at IS NULL"  # noqa: E501  as 0009 has it

FUNCTIONS = (
    "registry_models(text, text, timestamptz, timestamptz, integer)",
    "registry_versions(text, text, timestamptz, timestamptz, integer)",
)
SAID = (
    "{0}.name, {0}.framework, {0}.task, {0}.licence, {0}.visibility, {0}.owner_id, {0}.deleted_at"
)
TRIGGERS = {
    "version_search_add()": ("model_versions", "INSERT", ""),
    "version_search_move()": (
        "model_versions",
        "UPDATE OF status, size",
        "WHEN ((OLD.status, OLD.size) IS DISTINCT FROM (NEW.status, NEW.size))",
    ),
    "version_search_facts()": ("version_facts", "INSERT OR UPDATE OR DELETE", ""),
    "version_search_alias()": ("model_aliases", "INSERT OR UPDATE OF version_id OR DELETE", ""),
    "version_search_tag()": ("model_tags", "INSERT OR DELETE", ""),
    "version_search_model()": (
        "models",
        "UPDATE OF name, framework, task, licence, visibility, owner_id, deleted_at",
        f"WHEN (({SAID.format('OLD')}) IS DISTINCT FROM ({SAID.format('NEW')}))",
    ),
}


def upgrade() -> None:
    # All of it may run again where it was cut short: nothing here can be rolled back.
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        _undo()
        _add_words()
        _add_table()
        _add_triggers()
        _fill()
        _add_search()
        # Building one waits for transactions that are older, and nobody waits for it meanwhile.
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {OUTDATED_INDEX}")
        op.execute("RESET lock_timeout")


def _add_words() -> None:
    """Spell what a row is found by; a number by its power of two."""
    op.execute(f"""
        CREATE OR REPLACE FUNCTION registry_power(number bigint) RETURNS integer
        LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE {SETTINGS} AS $$
        BEGIN
            RETURN 64 - position('1' IN greatest(number, 1)::bit(64)::text);
        END $$
    """)
    op.execute(f"""
        CREATE OR REPLACE FUNCTION registry_words(
            tenant uuid, framework text, task text, licence text, visibility text, owner uuid,
            tags text[] DEFAULT NULL, aliases text[] DEFAULT NULL, status text DEFAULT NULL,
            architecture text DEFAULT NULL, quantisation text DEFAULT NULL,
            dtype text DEFAULT NULL, size bigint DEFAULT NULL, parameters bigint DEFAULT NULL,
            context_length bigint DEFAULT NULL)
        RETURNS tsvector LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000 {SETTINGS} AS $$
        BEGIN
            RETURN array_to_tsvector(array_remove(
                ARRAY['tenant=' || tenant, 'framework=' || framework, 'task=' || task,
                    'licence=' || licence, 'visibility=' || visibility, 'owner=' || owner,
                    'status=' || status, 'architecture=' || architecture,
                    'quantisation=' || quantisation, 'dtype=' || dtype,
                    'size=' || public.registry_power(size),
                    'parameters=' || public.registry_power(parameters),
                    'context=' || public.registry_power(context_length)]
                || string_to_array('tag=' || array_to_string(tags, E'\\x1ftag='), E'\\x1f')
                || string_to_array('alias=' || array_to_string(aliases[1:{MOST_ALIASES}],
                    E'\\x1falias='), E'\\x1f'),
                NULL));
        END $$
    """)


def _add_table() -> None:
    op.create_table(
        "version_search",
        sa.Column("version_id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("model_id", sa.Uuid, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model_created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_live", sa.Boolean, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("framework", sa.Text, nullable=False),
        sa.Column("task", sa.Text),
        sa.Column("licence", sa.Text),
        sa.Column("visibility", sa.Text, nullable=False),
        sa.Column("owner_id", sa.Uuid, nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("aliases", postgresql.ARRAY(sa.Text), nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("architecture", sa.Text),
        sa.Column("quantisation", sa.Text),
        sa.Column("dtype", sa.Text),
        sa.Column("parameters", sa.BigInteger),
        sa.Column("context_length", sa.BigInteger),
        sa.PrimaryKeyConstraint("version_id", name="pk_version_search"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
            name="fk_version_search_version_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_version_search_model_id", "version_search", ["model_id"])
    live = sa.text("is_live")
    op.create_index(
        "ix_version_search_tenant_id_created_at_version_id",
        "version_search",
        ["tenant_id", "created_at", "version_id"],
        postgresql_where=live,
    )
    for column in ("size", "parameters", "context_length"):
        op.create_index(
            f"ix_version_search_tenant_id_{column}",
            "version_search",
            ["tenant_id", column],
            postgresql_where=live,
        )
    for column in LEADS:
        op.create_index(
            f"ix_version_search_tenant_id_{column}_created_at",
            "version_search",
            ["tenant_id", column, "created_at", "version_id"],
            postgresql_where=live,
        )
    words = VERSION_WORDS.replace("s.", "")
    op.execute(
        f"CREATE INDEX ix_version_search_words ON version_search USING gin ({words}, "
        "search_grams(model_name, version)) WITH (fastupdate = off) WHERE is_live"
    )
    op.execute("ALTER TABLE version_search ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE version_search FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY own_tenant ON version_search TO maas_app "
        f"USING (tenant_id = {MINE}) WITH CHECK (tenant_id = {MINE})"
    )
    # Who else may read a model is not said here once more: asked of each of many rows, it would
    # take longer than all the rest of a search.
    op.execute("CREATE POLICY owner_search ON version_search FOR SELECT TO maas_owner USING (true)")
    # The revocations undo what default privileges may have given. Rows go with their versions.
    op.execute("REVOKE ALL ON version_search FROM PUBLIC, maas_app, maas_system")
    op.execute("GRANT SELECT, INSERT, UPDATE ON version_search TO maas_app, maas_system")


def _add_triggers() -> None:
    """Have each table tell the rows what changed in it.

    They run as who changes it. Rows of several versions are locked in one order.
    """
    bodies = {
        "version_search_add()": """
            INSERT INTO public.version_search (version_id, tenant_id, model_id, created_at,
                model_created_at, is_live, model_name, framework, task, licence, visibility,
                owner_id, tags, version, aliases, status, size)
            SELECT NEW.id, NEW.tenant_id, NEW.model_id, NEW.created_at, m.created_at,
                m.deleted_at IS NULL, m.name, m.framework, m.task, m.licence, m.visibility,
                m.owner_id,
                ARRAY(SELECT t.tag FROM public.model_tags t WHERE t.model_id = m.id ORDER BY 1),
                NEW.name, '{}', NEW.status, NEW.size
            FROM public.models m WHERE m.id = NEW.model_id;
        """,
        "version_search_move()": """
            UPDATE public.version_search SET status = NEW.status, size = NEW.size
            WHERE version_id = NEW.id;
        """,
        "version_search_facts()": """
            IF TG_OP = 'DELETE' THEN
                UPDATE public.version_search SET architecture = NULL, quantisation = NULL,
                    dtype = NULL, parameters = NULL, context_length = NULL
                WHERE version_id = OLD.version_id;
            ELSE
                UPDATE public.version_search SET architecture = NEW.architecture,
                    quantisation = NEW.quantisation, dtype = NEW.dtype,
                    parameters = NEW.parameters, context_length = NEW.context_length
                WHERE version_id = NEW.version_id;
            END IF;
        """,
        "version_search_alias()": """
            IF TG_OP <> 'DELETE' THEN now_at := NEW.version_id; END IF;
            IF TG_OP <> 'INSERT' THEN was_at := OLD.version_id; END IF;
            IF was_at IS NOT DISTINCT FROM now_at THEN RETURN NULL; END IF;
            PERFORM FROM public.version_search WHERE version_id IN (was_at, now_at)
            ORDER BY version_id FOR NO KEY UPDATE;
            UPDATE public.version_search SET aliases = array_remove(aliases, OLD.name)
            WHERE version_id = was_at;
            UPDATE public.version_search SET aliases = array_append(aliases, NEW.name)
            WHERE version_id = now_at;
        """,
        "version_search_tag()": """
            IF TG_OP = 'INSERT' THEN of_model := NEW.model_id;
            ELSE of_model := OLD.model_id; END IF;
            PERFORM FROM public.version_search WHERE model_id = of_model
            ORDER BY version_id FOR NO KEY UPDATE;
            IF TG_OP = 'INSERT' THEN
                UPDATE public.version_search SET tags = array_append(tags, NEW.tag)
                WHERE model_id = of_model;
            ELSE
                UPDATE public.version_search SET tags = array_remove(tags, OLD.tag)
                WHERE model_id = of_model;
            END IF;
        """,
        "version_search_model()": """
            PERFORM FROM public.version_search WHERE model_id = NEW.id
            ORDER BY version_id FOR NO KEY UPDATE;
            UPDATE public.version_search SET is_live = NEW.deleted_at IS NULL,
                model_name = NEW.name, framework = NEW.framework, task = NEW.task,
                licence = NEW.licence, visibility = NEW.visibility, owner_id = NEW.owner_id
            WHERE model_id = NEW.id;
        """,
    }
    for function, (table, event, condition) in TRIGGERS.items():
        op.execute(f"""
            CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql {SETTINGS} AS $$
            DECLARE
                was_at uuid;
                now_at uuid;
                of_model uuid;
            BEGIN
                {bodies[function]}
                RETURN NULL;
            END $$
        """)
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app, maas_system")
        op.execute(
            f"CREATE TRIGGER {function.removesuffix('()')} AFTER {event} ON {table} "
            f"FOR EACH ROW {condition} EXECUTE FUNCTION {function}"
        )


# Versions and models are locked, so that a change waits for the row that it is to be told to.
FILL = """
    WITH slice AS MATERIALIZED (
        SELECT v.*, m.created_at AS model_created_at, m.deleted_at, m.name AS model_name,
            m.framework, m.task, m.licence, m.visibility, m.owner_id
        FROM model_versions v JOIN models m ON m.id = v.model_id
        WHERE v.id > '{after}' ORDER BY v.id LIMIT {slice} FOR SHARE
    ), filled AS (
        INSERT INTO version_search (version_id, tenant_id, model_id, created_at, model_created_at,
            is_live, model_name, framework, task, licence, visibility, owner_id, tags, version,
            aliases, status, size, architecture, quantisation, dtype, parameters, context_length)
        SELECT v.id, v.tenant_id, v.model_id, v.created_at, v.model_created_at,
            v.deleted_at IS NULL, v.model_name, v.framework, v.task, v.licence, v.visibility,
            v.owner_id,
            ARRAY(SELECT t.tag FROM model_tags t WHERE t.model_id = v.model_id ORDER BY 1), v.name,
            ARRAY(SELECT a.name FROM model_aliases a WHERE a.version_id = v.id ORDER BY 1),
            v.status, v.size, f.architecture, f.quantisation, f.dtype, f.parameters,
            f.context_length
        FROM slice v LEFT JOIN version_facts f ON f.version_id = v.id
        ON CONFLICT DO NOTHING
    )
    SELECT max(id::text) FROM slice
"""


def _fill() -> None:
    # The owner is bound by row-level security as well, and none of its policies lets it change.
    for table in (*READ_TO_FILL, "version_search"):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    after = "00000000-0000-0000-0000-000000000000"
    while after is not None:
        statement = FILL.format(after=after, slice=SLICE)
        after = op.get_bind().exec_driver_sql(statement).scalar()
    for table in (*READ_TO_FILL, "version_search"):
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def _add_search() -> None:
    """Look words up, up to a number of rows: who gets one more knows that there are too many."""
    for function, rows in (
        (
            "registry_models",
            "SELECT m.id, m.created_at, m.id, m.created_at FROM public.models m WHERE "
            f"m.tenant_id = {MINE} AND m.deleted_at IS NULL "
            "AND m.created_at BETWEEN since AND until AND public."
            + MODEL_WORDS
            + " @@ all_words{grams} LIMIT most + 1",
        ),
        (
            "registry_versions",
            "SELECT s.version_id, s.created_at, s.model_id, s.model_created_at "
            f"FROM public.version_search s WHERE s.tenant_id = {MINE} AND s.is_live "
            "AND s.created_at BETWEEN since AND until AND public."
            + VERSION_WORDS
            + " @@ all_words{grams} LIMIT most + 1",
        ),
    ):
        texts = (
            "m.name, m.description" if function == "registry_models" else "s.model_name, s.version"
        )
        with_grams = rows.format(grams=f" AND public.search_grams({texts}) @@ grams")
        op.execute(f"""
            CREATE OR REPLACE FUNCTION {function}(
                words text, q text, since timestamptz, until timestamptz, most integer)
            RETURNS TABLE (id uuid, at timestamptz, model_id uuid, model_at timestamptz)
            {BY_WORDS} AS $$
            #variable_conflict use_column
            DECLARE
                -- Of other tenants' rows none is looked up, however many have the same words.
                own CONSTANT tsquery := ('''tenant=' || {MINE} || '''')::tsquery;
                all_words CONSTANT tsquery := coalesce(own && words::tsquery, own);
                grams CONSTANT tsquery := public.search_query(q);
            BEGIN
                IF q IS NULL THEN
                    RETURN QUERY {rows.format(grams="")};
                ELSE
                    RETURN QUERY {with_grams};
                END IF;
            END $$
        """)
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def _undo() -> None:
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION IF EXISTS {function}")
    for function, (table, _event, _condition) in TRIGGERS.items():
        op.execute(f"DROP TRIGGER IF EXISTS {function.removesuffix('()')} ON {table}")
        op.execute(f"DROP FUNCTION IF EXISTS {function}")
    op.execute("DROP TABLE IF EXISTS version_search")
    op.execute("SET lock_timeout = 0")
    for name in INDEXES:
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.execute("SET lock_timeout = '1s'")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {OUTDATED_INDEX}")
        op.execute(f"CREATE INDEX CONCURRENTLY {OUTDATED_INDEX} ON {OUTDATED}")
        op.execute("SET lock_timeout = '1s'")
        _undo()
        op.execute(
            "DROP FUNCTION IF EXISTS registry_words(uuid, text, text, text, text, uuid, text[], "
            "text[], text, text, text, text, bigint, bigint, bigint)"
        )
        op.execute("DROP FUNCTION IF EXISTS registry_power(bigint)")
        op.execute("RESET lock_timeout")
