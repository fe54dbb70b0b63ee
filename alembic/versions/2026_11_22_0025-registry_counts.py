"""Models are found by their versions in the order of models, and by a text of their descriptions.

What leads to versions has an index that is in the order of their models, too, so that models found
by what only old versions have need no look at all the others. A text that is wanted together with
something of a version is looked up where it is: in names with the versions' words, in descriptions
by a function of its own.

The searches of 0009 for models have nobody left who calls them.
"""

from alembic import op

revision = "0025_registry_counts"
down_revision = "0024_registry_search"
branch_labels = None
depends_on = None

LEADS = ("status", "architecture", "quantisation")
INDEXES = {
    f"ix_version_search_tenant_id_{lead}_model_created_at": (
        f"version_search (tenant_id, {lead}, model_created_at, model_id) "
        f"WHERE is_live AND {lead} IS NOT NULL"
    )
    for lead in LEADS
}
MINE = "current_setting('maas.tenant_id')::uuid"
PATTERN = r"pattern CONSTANT text := '%' || regexp_replace(q, '([\\%_])', '\\\1', 'g') || '%';"
SETTINGS = "SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan"
# As 0024 has it, of the words.
BY_WORDS = f"""
    LANGUAGE plpgsql STABLE SECURITY DEFINER {SETTINGS}
    SET enable_seqscan = off SET enable_indexscan = off SET enable_indexonlyscan = off
"""
DESCRIBED = "registry_described(text, text, timestamptz, timestamptz, integer)"
UNCALLED = (
    "model_search(text, text, text, timestamptz, uuid, integer)",
    "model_search_count(text, text, text)",
    "model_candidates(text, integer)",
)


def upgrade() -> None:
    # All of it may run again where it was cut short: nothing here can be rolled back.
    with op.get_context().autocommit_block():
        # Building one waits for transactions that are older, and nobody waits for it meanwhile.
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        op.execute("SET lock_timeout = '1s'")
        _add_described()
        for function in UNCALLED:
            op.execute(f"DROP FUNCTION IF EXISTS {function}")
        op.execute("RESET lock_timeout")


def _add_described() -> None:
    """Look up whose description has a text that the name has not, up to a number of models."""
    op.execute(f"""
        CREATE OR REPLACE FUNCTION registry_described(
            words text, q text, since timestamptz, until timestamptz, most integer)
        RETURNS TABLE (id uuid, at timestamptz) {BY_WORDS} AS $$
        #variable_conflict use_column
        DECLARE {PATTERN}
            -- Of other tenants' rows none is looked up, however many have the same words.
            own CONSTANT tsquery := ('''tenant=' || {MINE} || '''')::tsquery;
            all_words CONSTANT tsquery := coalesce(own && words::tsquery, own);
            grams CONSTANT tsquery := public.search_query(q);
        BEGIN
            RETURN QUERY SELECT m.id, m.created_at FROM public.models m
                WHERE m.tenant_id = {MINE} AND m.deleted_at IS NULL
                  AND m.created_at BETWEEN since AND until
                  AND public.registry_words(m.tenant_id, m.framework, m.task, m.licence,
                      m.visibility, m.owner_id) @@ all_words
                  AND public.search_grams(m.name, m.description) @@ grams
                  AND m.name NOT ILIKE pattern AND m.description ILIKE pattern
                LIMIT most + 1;
        END $$
    """)
    _grant(DESCRIBED)


def _keep(function: str) -> None:
    op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")


def _grant(*functions: str) -> None:
    for function in functions:
        _keep(function)
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = '1s'")
        _restore_searches()
        op.execute(f"DROP FUNCTION IF EXISTS {DESCRIBED}")
        op.execute("SET lock_timeout = 0")
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("RESET lock_timeout")


# As 0009 has them.
PLANNING = f"LANGUAGE plpgsql STABLE {SETTINGS}"
BY_INDEX = f"{PLANNING} SET enable_seqscan = off"
FIRST_REACH = 2_000
CANDIDATES = 4
COUNTED = 40_000
MODEL_HAS_TEXT = "(m.name ILIKE pattern OR m.description ILIKE pattern)"
MODEL_IN_REACH = f"m.tenant_id = {MINE} AND m.deleted_at IS NULL"
MODEL_IS_WANTED = """
    (wanted_framework IS NULL OR m.framework = wanted_framework)
    AND (wanted_task IS NULL OR m.task = wanted_task)
"""
MODEL_BEFORE = "(before_at IS NULL OR (m.created_at, m.id) < (before_at, before_id))"
MODEL_ORDER = "m.created_at DESC, m.id DESC"


def _restore_searches() -> None:
    op.execute(f"""
        CREATE OR REPLACE FUNCTION model_candidates(q text, most integer)
        RETURNS uuid[] {BY_INDEX} AS $$
        DECLARE {PATTERN}
            grams CONSTANT tsquery := public.search_query(q);
            found CONSTANT uuid[] := ARRAY(SELECT m.id FROM public.models m
                WHERE public.search_grams(m.name, m.description) @@ grams
                  AND m.deleted_at IS NULL AND {MODEL_HAS_TEXT} LIMIT most + 1);
        BEGIN
            RETURN CASE WHEN cardinality(found) <= most THEN found END;
        END $$
    """)
    op.execute(f"""
        CREATE OR REPLACE FUNCTION model_search(
            q text, wanted_framework text, wanted_task text,
            before_at timestamptz, before_id uuid, row_limit integer)
        RETURNS SETOF models SECURITY DEFINER {PLANNING} AS $$
        DECLARE {PATTERN}
            reach integer := {FIRST_REACH};
            candidates uuid[];
            given integer;
        BEGIN
            LOOP
                RETURN QUERY SELECT m.*
                    FROM (SELECT m.* FROM public.models m WHERE {MODEL_IN_REACH} AND {MODEL_BEFORE}
                          ORDER BY {MODEL_ORDER} LIMIT reach) m
                    WHERE {MODEL_IS_WANTED} AND {MODEL_HAS_TEXT}
                    ORDER BY {MODEL_ORDER} LIMIT row_limit;
                GET DIAGNOSTICS given = ROW_COUNT;
                row_limit := row_limit - given;
                EXIT WHEN row_limit <= 0;
                SELECT m.created_at, m.id INTO before_at, before_id
                    FROM public.models m WHERE {MODEL_IN_REACH} AND {MODEL_BEFORE}
                    ORDER BY {MODEL_ORDER} OFFSET reach - 1 LIMIT 1;
                EXIT WHEN NOT FOUND;
                candidates := public.model_candidates(q, {CANDIDATES} * reach);
                IF candidates IS NOT NULL THEN
                    RETURN QUERY SELECT m.*
                        FROM unnest(candidates) candidate
                        JOIN public.models m ON m.id = candidate
                        WHERE {MODEL_IN_REACH} AND {MODEL_BEFORE} AND {MODEL_IS_WANTED}
                        ORDER BY {MODEL_ORDER} LIMIT row_limit;
                    EXIT;
                END IF;
                reach := 8 * reach;
            END LOOP;
        END $$
    """)
    op.execute(f"""
        CREATE OR REPLACE FUNCTION model_search_count(
            q text, wanted_framework text, wanted_task text)
        RETURNS bigint SECURITY DEFINER {PLANNING} AS $$
        DECLARE {PATTERN}
            candidates CONSTANT uuid[] := public.model_candidates(q, {COUNTED});
        BEGIN
            IF candidates IS NOT NULL THEN
                RETURN (SELECT count(*) FROM unnest(candidates) candidate
                        JOIN public.models m ON m.id = candidate
                        WHERE {MODEL_IN_REACH} AND {MODEL_IS_WANTED});
            END IF;
            RETURN (SELECT count(*) FROM public.models m
                    WHERE {MODEL_IN_REACH} AND {MODEL_IS_WANTED} AND {MODEL_HAS_TEXT});
        END $$
    """)
    _keep("model_candidates(text, integer)")
    _grant(*UNCALLED[:2])
