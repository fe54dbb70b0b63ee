"""Searches that are quick for any part of a text, from one letter on, in any script.

An index holds, for each row, every three letters that follow one another, and the last two and one.
Three letters or more are looked up as they are, one or two as the beginning of three: hence no
extension, and no letters, signs or scripts that an index does not know.

What many rows have is found sooner among the newest rows than through the index, and which of the
two it is, PostgreSQL often guesses wrong. So a search tries both in turn, each up to a number of
rows that grows, and costs about as much as the better of the two.
"""

from alembic import op

revision = "0009_search"
down_revision = "0008_leaving"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_accounts_search": (
        "accounts USING gin (search_grams(username, email, display_name)) WITH (fastupdate = off)"
    ),
    "ix_models_search": (
        "models USING gin (search_grams(name, description)) WITH (fastupdate = off) "
        "WHERE deleted_at IS NULL"
    ),
}
OUTDATED_INDEXES = (
    "ix_models_name_description_trgm",
    "ix_accounts_names_trgm",
    "ix_accounts_uncommon_letters",
)


def upgrade() -> None:
    # All of it may run again where it was cut short: nothing here can be rolled back.
    with op.get_context().autocommit_block():
        _add_grams()
        # Building one waits for transactions that are older, and nobody waits for it meanwhile.
        op.execute("SET lock_timeout = 0")
        for name, definition in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        _add_member_search()
        _add_model_search()
        for name in OUTDATED_INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("DROP FUNCTION IF EXISTS uncommon_letters(text, text)")
        op.execute("RESET lock_timeout")


def _add_grams() -> None:
    op.execute("""
        CREATE OR REPLACE FUNCTION search_grams(
            first text, second text, third text DEFAULT NULL)
        RETURNS tsvector
        LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
            SELECT array_to_tsvector(ARRAY(
                SELECT letter || lead(letter, 1, '') OVER () || lead(letter, 2, '') OVER ()
                FROM unnest(string_to_array(
                    lower(concat_ws(chr(10), first, second, third)), NULL)) letter))
        $$
    """)
    op.execute(r"""
        CREATE OR REPLACE FUNCTION search_query(q text) RETURNS tsquery
        LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
            SELECT string_agg(
                '''' || replace(replace(gram, '\', '\\'), '''', '''''') || ''''
                || CASE WHEN length(gram) < 3 THEN ':*' ELSE '' END, ' & ')::tsquery
            FROM (SELECT DISTINCT substr(lower(q), i, 3) gram
                  FROM generate_series(1, greatest(length(lower(q)) - 2, 1)) i) grams
        $$
    """)
    _keep("search_query(text)")


PATTERN = r"pattern CONSTANT text := '%' || regexp_replace(q, '([\\%_])', '\\\1', 'g') || '%';"
# plpgsql, planned for each call: a plan for any filter would not know how selective it is.
PLANNING = """
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
"""
# Row after row until there are enough, and not all rows of a join at first.
IN_ORDER = f"{PLANNING} SET enable_hashjoin = off SET enable_mergejoin = off"
# Reading the table from its start instead would look at every row where few have what is wanted.
BY_INDEX = f"{PLANNING} SET enable_seqscan = off"
FIRST_REACH = 2_000
CANDIDATES = 4  # times the reach: about what costs the same
COUNTED = 40_000

MEMBER_HAS_TEXT = """
    (q IS NULL OR a.username ILIKE pattern OR a.email ILIKE pattern
     OR a.display_name ILIKE pattern)
"""
MEMBER_IN_REACH = """
    m.tenant_id = current_setting('maas.tenant_id')::uuid
    AND (wanted_status IS NULL OR m.status = wanted_status)
"""
MEMBER_HAS_ROLE = """
    (wanted_role IS NULL OR EXISTS (
        SELECT FROM public.membership_roles r
        WHERE r.tenant_id = m.tenant_id AND r.account_id = m.account_id
          AND r.role_name = wanted_role))
"""
MEMBER_BEFORE = "(before_at IS NULL OR (m.created_at, m.account_id) < (before_at, before_id))"
MEMBER_COLUMNS = """
    a.id, a.username, a.email, a.display_name, a.status, a.password_change_required,
    a.home_tenant_id, m.status, m.status_reason,
    ARRAY(SELECT r.role_name FROM public.membership_roles r
          WHERE r.tenant_id = m.tenant_id AND r.account_id = m.account_id ORDER BY 1),
    m.created_at, greatest(m.updated_at, a.updated_at), m.version + a.version
"""
MEMBER_ORDER = "m.created_at DESC, m.account_id DESC"


def _add_member_search() -> None:
    """Find the members of the tenant at hand; accounts themselves belong to none.

    What a count leaves out of its joins where nothing asks for it, PostgreSQL does not read.
    """
    op.execute(f"""
        CREATE OR REPLACE FUNCTION member_candidates(q text, wanted_role text, most integer)
        RETURNS uuid[] {BY_INDEX} AS $$
        DECLARE {PATTERN}
            grams CONSTANT tsquery := public.search_query(q);
            found uuid[];
        BEGIN
            IF wanted_role IS NOT NULL THEN
                found := ARRAY(SELECT r.account_id FROM public.membership_roles r
                    WHERE r.tenant_id = current_setting('maas.tenant_id')::uuid
                      AND r.role_name = wanted_role LIMIT most + 1);
                IF cardinality(found) <= most THEN
                    RETURN ARRAY(SELECT a.id FROM public.accounts a
                        WHERE a.id = ANY (found) AND {MEMBER_HAS_TEXT});
                END IF;
            END IF;
            IF q IS NOT NULL THEN
                found := ARRAY(SELECT a.id FROM public.accounts a
                    WHERE public.search_grams(a.username, a.email, a.display_name) @@ grams
                      AND {MEMBER_HAS_TEXT} LIMIT most + 1);
                IF cardinality(found) <= most THEN RETURN found; END IF;
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute(f"""
        CREATE OR REPLACE FUNCTION member_search(
            q text, wanted_status text, wanted_role text,
            before_at timestamptz, before_id uuid, row_limit integer)
        RETURNS TABLE (id uuid, username text, email text, display_name text,
                       account_status text, password_change_required boolean,
                       home_tenant_id uuid, status text, status_reason text, roles text[],
                       created_at timestamptz, updated_at timestamptz, version integer)
        SECURITY DEFINER {IN_ORDER} AS $$
        DECLARE {PATTERN}
            reach integer := {FIRST_REACH};
            candidates uuid[];
            given integer;
        BEGIN
            LOOP
                RETURN QUERY SELECT {MEMBER_COLUMNS}
                    FROM (SELECT m.* FROM public.memberships m
                          WHERE {MEMBER_IN_REACH} AND {MEMBER_BEFORE}
                          ORDER BY {MEMBER_ORDER} LIMIT reach) m
                    JOIN public.accounts a ON a.id = m.account_id
                    WHERE {MEMBER_HAS_ROLE} AND {MEMBER_HAS_TEXT}
                    ORDER BY {MEMBER_ORDER} LIMIT row_limit;
                GET DIAGNOSTICS given = ROW_COUNT;
                row_limit := row_limit - given;
                EXIT WHEN row_limit <= 0;
                SELECT m.created_at, m.account_id INTO before_at, before_id
                    FROM public.memberships m WHERE {MEMBER_IN_REACH} AND {MEMBER_BEFORE}
                    ORDER BY {MEMBER_ORDER} OFFSET reach - 1 LIMIT 1;
                EXIT WHEN NOT FOUND;
                candidates := public.member_candidates(q, wanted_role, {CANDIDATES} * reach);
                IF candidates IS NOT NULL THEN
                    RETURN QUERY SELECT {MEMBER_COLUMNS}
                        FROM (SELECT m.* FROM unnest(candidates) candidate
                              JOIN public.memberships m ON m.account_id = candidate
                              WHERE {MEMBER_IN_REACH} AND {MEMBER_BEFORE} AND {MEMBER_HAS_ROLE}
                              ORDER BY {MEMBER_ORDER} LIMIT row_limit) m
                        JOIN public.accounts a ON a.id = m.account_id
                        ORDER BY {MEMBER_ORDER};
                    EXIT;
                END IF;
                reach := 8 * reach;
            END LOOP;
        END $$
    """)
    op.execute(f"""
        CREATE OR REPLACE FUNCTION member_search_count(
            q text, wanted_status text, wanted_role text)
        RETURNS bigint SECURITY DEFINER {PLANNING} AS $$
        DECLARE {PATTERN}
            candidates CONSTANT uuid[] :=
                public.member_candidates(q, wanted_role, {COUNTED});
        BEGIN
            IF candidates IS NOT NULL THEN
                RETURN (SELECT count(*) FROM unnest(candidates) candidate
                        JOIN public.memberships m ON m.account_id = candidate
                        WHERE {MEMBER_IN_REACH} AND {MEMBER_HAS_ROLE});
            END IF;
            RETURN (SELECT count(*) FROM public.memberships m
                    LEFT JOIN public.membership_roles r ON r.tenant_id = m.tenant_id
                         AND r.account_id = m.account_id AND r.role_name = wanted_role
                    LEFT JOIN public.accounts a ON a.id = m.account_id
                    WHERE {MEMBER_IN_REACH} AND {MEMBER_HAS_TEXT}
                      AND (wanted_role IS NULL OR r.account_id IS NOT NULL));
        END $$
    """)
    _keep("member_candidates(text, text, integer)")
    _grant(
        "member_search(text, text, text, timestamptz, uuid, integer)",
        "member_search_count(text, text, text)",
    )


MODEL_HAS_TEXT = "(m.name ILIKE pattern OR m.description ILIKE pattern)"
MODEL_IN_REACH = "m.tenant_id = current_setting('maas.tenant_id')::uuid AND m.deleted_at IS NULL"
MODEL_IS_WANTED = """
    (wanted_framework IS NULL OR m.framework = wanted_framework)
    AND (wanted_task IS NULL OR m.task = wanted_task)
"""
MODEL_BEFORE = "(before_at IS NULL OR (m.created_at, m.id) < (before_at, before_id))"
MODEL_ORDER = "m.created_at DESC, m.id DESC"


def _add_model_search() -> None:
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
    _grant(
        "model_search(text, text, text, timestamptz, uuid, integer)",
        "model_search_count(text, text, text)",
    )


def _keep(function: str) -> None:
    """Leave a function that sees every tenant to its owner, whose searches call it."""
    op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")


def _grant(*functions: str) -> None:
    for function in functions:
        _keep(function)
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


# As 0005 has it.
MODEL_MATCHES = f"{MODEL_IN_REACH} AND {MODEL_IS_WANTED} AND {MODEL_HAS_TEXT}"


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        _restore_trigrams()
        _restore_model_search()
        for function in (
            "member_search_count(text, text, text)",
            "member_search(text, text, text, timestamptz, uuid, integer)",
            "member_candidates(text, text, integer)",
            "model_candidates(text, integer)",
        ):
            op.execute(f"DROP FUNCTION IF EXISTS {function}")
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("DROP FUNCTION IF EXISTS search_query(text)")
        op.execute("DROP FUNCTION IF EXISTS search_grams(text, text, text)")
        op.execute("RESET lock_timeout")


def _restore_trigrams() -> None:
    has_trigrams = op.get_bind().exec_driver_sql(
        "SELECT 1 FROM pg_extension WHERE extname = 'pg_trgm'"
    )
    if has_trigrams.scalar():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_models_name_description_trgm")
        op.execute("""
            CREATE INDEX CONCURRENTLY ix_models_name_description_trgm ON models
            USING gin (name gin_trgm_ops, description gin_trgm_ops)
            WITH (fastupdate = off) WHERE deleted_at IS NULL
        """)


def _restore_model_search() -> None:
    op.execute(f"""
        CREATE OR REPLACE FUNCTION model_search(
            q text, wanted_framework text, wanted_task text,
            before_at timestamptz, before_id uuid, row_limit integer)
        RETURNS SETOF models SECURITY DEFINER {PLANNING} AS $$
        DECLARE {PATTERN}
        BEGIN
            RETURN QUERY SELECT m.* FROM public.models m
            WHERE {MODEL_MATCHES} AND {MODEL_BEFORE} ORDER BY {MODEL_ORDER} LIMIT row_limit;
        END $$
    """)
    op.execute(f"""
        CREATE OR REPLACE FUNCTION model_search_count(
            q text, wanted_framework text, wanted_task text)
        RETURNS bigint SECURITY DEFINER {PLANNING} AS $$
        DECLARE {PATTERN}
        BEGIN
            RETURN (SELECT count(*) FROM public.models m WHERE {MODEL_MATCHES});
        END $$
    """)
