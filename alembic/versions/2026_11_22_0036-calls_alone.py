"""A call that is alone in its batch is held and settled in a few small statements.

Most of what a statement of few rows takes is its beginning: nodes, sums and constraints are set up
anew each time. The functions of 0018 are made for many calls; one needs no grouping and no arrays.

Only what has one answer goes this way: a reserve that all its quotas cover in full, a settlement of
a hold that is there, within what was held, that reaches no threshold, each far from the end of a
month. Whatever is another is found out before anything is changed, and done as it was. It may be,
for by then the locks are those of the way for many, in their order, and no others: within a month,
a payer's balances of it and of all time are all that it locks.
"""

from alembic import op

revision = "0036_calls_alone"
down_revision = "0035_backup"
branch_labels = None
depends_on = None

APPLY = "quota_apply(jsonb, timestamptz)"
FUNCTIONS = (
    "quota_hold_one(uuid, jsonb, timestamptz)",
    "quota_settle_one(uuid, jsonb, timestamptz)",
)

LOCK = "PERFORM pg_advisory_xact_lock_shared(hashtextextended('maas.quotas:' || tenant, 0))"
MONTH = "date_trunc('month', {at} AT TIME ZONE 'UTC')::date"
THIS_MONTH = MONTH.format(at="now_at")
NEAR_MONTHS = (
    MONTH.format(at="(now_at - interval '1 minute')"),
    MONTH.format(at="(now_at + interval '1 minute')"),
)
QUOTAS_OF_PAYER = "q.tenant_id = tenant AND q.subject_id = ANY (subjects)"
IN_PERIOD = "b.period_start = CASE q.period WHEN 'total' THEN date '1970-01-01' ELSE month END"
ITS_BALANCE = f"b.quota_id = q.id AND {IN_PERIOD}"

# What counts on a quota; a cost only if it is in the quota's currency.
ON_QUOTA = """
    CASE q.meter WHEN 'requests' THEN {requests} WHEN 'tokens' THEN {tokens}
        WHEN 'storage' THEN {storage}
        ELSE CASE WHEN {currency} = q.currency THEN {cost} ELSE 0 END END
"""
WANTED = ON_QUOTA.format(
    requests="requests", tokens="tokens", storage="storage", cost="cost", currency="currency"
)
FREED = ON_QUOTA.format(
    requests="h.requests",
    tokens="h.tokens",
    storage="h.storage_bytes",
    cost="h.cost_nanos",
    currency="h.currency",
)
USED = ON_QUOTA.format(
    requests="h.requests", tokens="tokens", storage="storage", cost="cost", currency="currency"
)

# A quota may have no balance yet. It is made before any is locked, which is not done here.
HOLD_ONE = f"""
    CREATE FUNCTION quota_hold_one(tenant uuid, call jsonb, now_at timestamptz) RETURNS boolean
    LANGUAGE plpgsql AS $$
    #variable_conflict use_variable
    DECLARE
        subjects uuid[] := ARRAY[tenant, (call ->> 'account')::uuid, (call ->> 'key')::uuid];
        month date := {THIS_MONTH};
        requests bigint := call ->> 'requests';
        tokens bigint := call ->> 'tokens';
        cost bigint := call ->> 'cost';
        currency text := call ->> 'currency';
        storage bigint := call ->> 'storage';
        lease interval := make_interval(secs => (call ->> 'lease')::double precision);
        is_covered boolean;
    BEGIN
        IF {" <> ".join(NEAR_MONTHS)} THEN
            RETURN false;
        END IF;
        {LOCK};
        WITH lacking AS MATERIALIZED (
            SELECT EXISTS (
                SELECT FROM public.quotas q WHERE {QUOTAS_OF_PAYER} AND NOT EXISTS (
                    SELECT FROM public.quota_balances b WHERE {ITS_BALANCE})) AS is_so
        )
        SELECT coalesce(bool_and(l.is_enough), NOT (SELECT is_so FROM lacking)) INTO is_covered
        FROM (
            SELECT CASE
                WHEN q.meter = 'cost' AND q.currency IS DISTINCT FROM currency
                    THEN currency IS NULL AND requests = 0 AND tokens = 0
                ELSE (w.wanted = 0 OR NOT b.is_closed
                    AND w.wanted <= q.limit_amount::numeric - b.settled - b.held) IS TRUE
            END AS is_enough
            FROM public.quotas q JOIN public.quota_balances b ON {ITS_BALANCE}
            CROSS JOIN LATERAL (SELECT {WANTED} AS wanted) w
            WHERE {QUOTAS_OF_PAYER} AND NOT (SELECT is_so FROM lacking)
            ORDER BY b.quota_id, b.period_start FOR NO KEY UPDATE OF b
        ) l;
        IF NOT is_covered THEN
            RETURN false;
        END IF;
        UPDATE public.quota_balances b SET held = b.held + {WANTED}
        FROM public.quotas q WHERE {QUOTAS_OF_PAYER} AND {ITS_BALANCE} AND {WANTED} <> 0;
        -- A hold of this id that is there already undoes the whole: who sent it twice asks again.
        INSERT INTO public.quota_holds (id, tenant_id, account_id, actor_kind, api_key_id,
            model, request_id, requests, tokens, cost_nanos, currency, storage_bytes, created_at,
            lease, lease_until, audited_as)
        VALUES ((call ->> 'id')::uuid, tenant, subjects[2], call ->> 'kind', subjects[3],
            call ->> 'model', call ->> 'request', requests, tokens, cost, currency, storage,
            now_at, lease, now_at + lease, nullif(call -> 'audited', 'null'));
        RETURN true;
    END $$
"""

# A hold is settled by whoever deletes it.
SETTLE_ONE = f"""
    CREATE FUNCTION quota_settle_one(tenant uuid, call jsonb, now_at timestamptz) RETURNS boolean
    LANGUAGE plpgsql AS $$
    #variable_conflict use_variable
    DECLARE
        h public.quota_holds;
        input bigint := call ->> 'input';
        output bigint := call ->> 'output';
        reasoning bigint := call ->> 'reasoning';
        tokens bigint := input + output + reasoning;
        cost bigint := call ->> 'cost';
        currency text := call ->> 'currency';
        storage bigint := call ->> 'storage';
        event jsonb := nullif(call -> 'event', 'null');
        month date;
        subjects uuid[];
        is_news boolean;
    BEGIN
        {LOCK};
        SELECT * INTO h FROM public.quota_holds o WHERE o.id = (call ->> 'id')::uuid;
        month := {MONTH.format(at="h.created_at")};
        IF (tokens <= h.tokens AND storage <= h.storage_bytes AND cost <= h.cost_nanos
            AND (cost = 0 OR currency = h.currency)
            AND month = {NEAR_MONTHS[0]} AND month = {NEAR_MONTHS[1]}) IS NOT TRUE
        THEN
            RETURN false;
        END IF;
        subjects := ARRAY[tenant, h.account_id, h.api_key_id];
        SELECT bool_or(l.is_reached) INTO is_news FROM (
            SELECT s.settled > 9223372036854775807 OR s.settled > 0 AND b.alerted < CASE
                WHEN b.is_closed OR s.settled >= q.limit_amount THEN 100
                WHEN s.settled >= q.limit_amount - q.limit_amount / 5 THEN 80
                ELSE 0 END AS is_reached
            FROM public.quotas q JOIN public.quota_balances b ON {ITS_BALANCE}
            CROSS JOIN LATERAL (SELECT b.settled::numeric + {USED} AS settled) s
            WHERE {QUOTAS_OF_PAYER}
            ORDER BY b.quota_id, b.period_start FOR NO KEY UPDATE OF b
        ) l;
        IF is_news THEN
            RETURN false;
        END IF;
        DELETE FROM public.quota_holds o WHERE o.id = h.id;
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        UPDATE public.quota_balances b SET
            held = greatest(b.held - {FREED}, 0), settled = b.settled + {USED}
        FROM public.quotas q WHERE {QUOTAS_OF_PAYER} AND {ITS_BALANCE};
        INSERT INTO public.usage (id, at, tenant_id, account_id, actor_kind, api_key_id, model,
            provider, request_id, requests, input_tokens, cached_tokens, output_tokens,
            reasoning_tokens, storage_bytes, cost_nanos, currency, is_estimated, is_overrun)
        VALUES (h.id, h.created_at, tenant, h.account_id, h.actor_kind, h.api_key_id, h.model,
            call ->> 'provider', h.request_id, h.requests, input, (call ->> 'cached')::bigint,
            output, reasoning, storage, cost, currency, (call ->> 'estimated')::boolean, false);
        IF event IS NOT NULL THEN
            INSERT INTO public.audit_outbox (event_id, tenant_id, payload, personal, duration_ms)
            VALUES ((event ->> 'id')::uuid, tenant, convert_to(event ->> 'payload', 'UTF8'),
                (event ->> 'personal')::jsonb, (event ->> 'duration_ms')::integer);
        END IF;
        RETURN true;
    END $$
"""

# What stands in `quota_apply`, and what is to stand there.
FOR_MANY = """
        part record;
    BEGIN
"""
FOR_ONE_TOO = """
        part record;
        call jsonb;
        whose uuid;
    BEGIN
        IF jsonb_array_length(work) = 1 AND jsonb_array_length(work #> '{0,calls}') = 1 THEN
            call := work #> '{0,calls,0}';
            whose := set_config('maas.tenant_id', work #>> '{0,tenant}', true);
            IF call ->> 'op' = 'settle' AND public.quota_settle_one(whose, call, now_at) THEN
                n := call ->> 'n'; outcome := 'done';
                RETURN NEXT;
                RETURN;
            ELSIF call ->> 'op' = 'reserve' AND call -> 'again' = 'false'
                AND public.quota_hold_one(whose, call, now_at)
            THEN
                n := call ->> 'n'; outcome := 'granted'; created_at := now_at;
                lease_until := now_at + make_interval(secs => (call ->> 'lease')::double precision);
                requests := call ->> 'requests'; tokens := call ->> 'tokens';
                cost_nanos := call ->> 'cost'; storage_bytes := call ->> 'storage';
                RETURN NEXT;
                RETURN;
            END IF;
        END IF;
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(HOLD_ONE)
    op.execute(SETTLE_ONE)
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")
    _change(FOR_MANY, FOR_ONE_TOO)


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    _change(FOR_ONE_TOO, FOR_MANY)
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")


def _change(old: str, new: str) -> None:
    """Change the function's text, and refuse to if it is not the text that is expected."""
    op.execute(f"""
        DO $do$
        DECLARE
            source text := pg_get_functiondef('{APPLY}'::regprocedure);
        BEGIN
            IF strpos(source, $old${old}$old$) = 0 THEN
                RAISE EXCEPTION 'the text of {APPLY} is another';
            END IF;
            EXECUTE replace(source, $old${old}$old$, $new${new}$new$);
        END $do$
    """)
