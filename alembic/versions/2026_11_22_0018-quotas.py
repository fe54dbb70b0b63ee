"""Quotas, their balances and holds, and the one function through which all calls are charged.

`quota_apply` does what many callers asked for as one statement, hence one transaction. It is not
the owner's: row-level security binds it, tenant by tenant, as it binds whoever calls it.

Locks are taken in one order: tenant by tenant as their ids sort, and in each the tenant itself
(shared; whoever changes a quota takes it alone), then balances, then holds, then rollups of usage,
each as their keys sort. So no two wait for one another in a circle.

What a hold lies on is not kept: it is every quota of its payer, in the period of its making. That
stays true while quotas come and go, for a new one begins with what was used and is held by then.
"""

import sqlalchemy as sa
from alembic import op

revision = "0018_quotas"
down_revision = "0017_usage"
branch_labels = None
depends_on = None

TABLES = ("quotas", "quota_balances", "quota_holds", "quota_alerts")
FUNCTIONS = (
    "quota_apply(jsonb, timestamptz)",
    "quota_begin(uuid, jsonb, timestamptz)",
    "quota_end_holds(uuid, jsonb, timestamptz)",
    "quota_reserve(uuid, jsonb, timestamptz)",
    "quota_expired(integer, timestamptz, uuid, uuid[])",
    "quota_lock()",
    "quota_follow()",
)

LOCK = "hashtextextended('maas.quotas:' || {tenant}, 0)"
START = "CASE {q}.period WHEN 'total' THEN date '1970-01-01' ELSE {month} END"
MONTH = "date_trunc('month', {at} AT TIME ZONE 'UTC')::date"

NAMES = """
    jsonb_to_recordset(calls) AS w(op text, id uuid, account uuid, key uuid, made timestamptz)
"""
CALLS = """
    jsonb_to_recordset(calls) AS w(
        n integer, op text, id uuid, account uuid, kind text, key uuid, model text, request text,
        lease double precision, again boolean, made timestamptz,
        requests bigint, tokens bigint, cost bigint, currency text, storage bigint,
        least_requests bigint, least_tokens bigint, least_cost bigint, least_storage bigint,
        input bigint, cached bigint, output bigint, reasoning bigint, provider text,
        estimated boolean)
"""

# All is found by an index, whatever the tables hold when a plan is made; and a plan is
# made once for each connection, for making it takes longer than following it.
PLANNER = " ".join(
    f"SET {name} = {value}"
    for name, value in {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_material": "off",
    }.items()
)

# What counts on a quota of a hold, of what was used, and of the ledger; a cost only if it is in the
# quota's currency.
HOLD_ON_QUOTA = """
    CASE q.meter WHEN 'requests' THEN h.requests WHEN 'tokens' THEN h.tokens
        WHEN 'storage' THEN h.storage_bytes
        ELSE CASE WHEN h.currency = q.currency THEN h.cost_nanos ELSE 0 END END
"""
USE_ON_QUOTA = """
    CASE q.meter WHEN 'requests' THEN h.used_requests WHEN 'tokens' THEN h.used_tokens
        WHEN 'storage' THEN h.used_storage
        ELSE CASE WHEN h.used_currency = q.currency THEN h.used_cost ELSE 0 END END
"""
LEDGER_ON_QUOTA = """
    CASE q.meter WHEN 'requests' THEN u.requests
        WHEN 'tokens' THEN u.input_tokens + u.output_tokens + u.reasoning_tokens
        WHEN 'storage' THEN u.storage_bytes
        ELSE CASE WHEN u.currency = q.currency THEN u.cost_nanos ELSE 0 END END
"""

# Of a period in which calls were booked before the quota had a balance in it; by an index of each.
USED = " ".join(
    f"""{when} (SELECT sum({LEDGER_ON_QUOTA}) FROM public.usage_months u
        WHERE u.tenant_id = q.tenant_id AND u.month = p.start {subject})"""
    for when, subject in (
        ("CASE q.scope WHEN 'user' THEN", "AND u.account_id = q.subject_id"),
        ("WHEN 'key' THEN", "AND u.api_key_id = q.subject_id"),
        ("ELSE", ""),
    )
)

APPLY = f"""
    CREATE FUNCTION quota_apply(work jsonb, now_at timestamptz)
    RETURNS TABLE (
        n integer, outcome text, created_at timestamptz, lease_until timestamptz,
        requests bigint, tokens bigint, cost_nanos bigint, storage_bytes bigint, shortage jsonb)
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
    {PLANNER} AS $$
    #variable_conflict use_column
    DECLARE
        part record;
    BEGIN
        FOR part IN
            SELECT t.tenant, t.calls FROM jsonb_to_recordset(work) AS t(tenant uuid, calls jsonb)
            ORDER BY t.tenant
        LOOP
            PERFORM set_config('maas.tenant_id', part.tenant::text, true);
            PERFORM public.quota_begin(part.tenant, part.calls, now_at);
            IF part.calls @? '$[*].op ? (@ != "reserve" && @ != "progress")' THEN
                RETURN QUERY SELECT e.n, e.outcome, NULL::timestamptz, NULL::timestamptz,
                    NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, NULL::jsonb
                FROM public.quota_end_holds(part.tenant, part.calls, now_at) e;
            END IF;
            IF part.calls @? '$[*].op ? (@ == "reserve")' THEN
                RETURN QUERY
                    SELECT * FROM public.quota_reserve(part.tenant, part.calls, now_at);
            END IF;
        END LOOP;
    END $$
"""

# Rows that are not there yet are made first: nothing could be locked of them. A hold that is not
# seen here may be there a moment later, when it is deleted: what it lies on is told by its payer,
# whom the caller names, and by the time.
BEGIN = f"""
    CREATE FUNCTION quota_begin(tenant uuid, calls jsonb, now_at timestamptz) RETURNS void
    LANGUAGE plpgsql AS $$
    DECLARE
        this_month date := {MONTH.format(at="now_at")};
        subjects uuid[];
        payers uuid[];
        starts date[];
        holds uuid[];
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({LOCK.format(tenant="tenant")});
        SELECT
            array_agg(s.subject),
            array_agg(s.subject) FILTER (WHERE h.id IS NULL AND w.account IS NOT NULL),
            array_agg(DISTINCT {MONTH.format(at="coalesce(h.created_at, w.made, now_at)")})
                || ARRAY[date '1970-01-01', {MONTH.format(at="(now_at - interval '1 minute')")},
                    {MONTH.format(at="(now_at + interval '1 minute')")}],
            array_agg(w.id) FILTER (WHERE w.op <> 'reserve')
        INTO subjects, payers, starts, holds
        FROM {NAMES}
        LEFT JOIN public.quota_holds h ON h.id = w.id AND w.op <> 'reserve'
        CROSS JOIN LATERAL (VALUES (tenant), (coalesce(h.account_id, w.account)),
            (coalesce(h.api_key_id, w.key))) AS s(subject)
        WHERE s.subject IS NOT NULL;
        IF payers IS NOT NULL THEN
            INSERT INTO public.quota_balances
                (quota_id, period_start, tenant_id, settled, held, is_closed, alerted)
            SELECT q.id, p.start, tenant, least(coalesce({USED} END, 0), 9223372036854775807),
                0, false, 0
            FROM public.quotas q
            CROSS JOIN LATERAL (SELECT {START.format(q="q", month="this_month")} AS start) p
            WHERE q.tenant_id = tenant AND q.subject_id = ANY (payers) AND NOT EXISTS (
                SELECT FROM public.quota_balances b
                WHERE b.quota_id = q.id AND b.period_start = p.start)
            ORDER BY q.id, p.start
            ON CONFLICT DO NOTHING;
        END IF;
        PERFORM FROM public.quotas q JOIN public.quota_balances b ON b.quota_id = q.id
        WHERE q.tenant_id = tenant AND q.subject_id = ANY (subjects)
            AND b.period_start = ANY (starts)
        ORDER BY b.quota_id, b.period_start FOR NO KEY UPDATE OF b;
        IF holds IS NULL THEN
            RETURN;
        END IF;
        PERFORM FROM public.quota_holds h WHERE h.id = ANY (holds) ORDER BY h.id FOR UPDATE;
        IF calls @? '$[*].op ? (@ == "progress")' THEN
            UPDATE public.quota_holds h SET
                progress_tokens = greatest(h.progress_tokens, p.tokens),
                progress_cost_nanos = CASE WHEN h.currency IS NOT NULL
                    THEN greatest(h.progress_cost_nanos, p.cost) END,
                progress_storage_bytes = greatest(h.progress_storage_bytes, p.storage),
                lease_until = greatest(h.lease_until, now_at + h.lease)
            FROM (
                SELECT w.id, max(w.tokens) AS tokens, max(w.cost) AS cost,
                    max(w.storage) AS storage
                FROM {CALLS} WHERE w.op = 'progress' GROUP BY w.id
            ) p
            WHERE h.id = p.id;
        END IF;
    END $$
"""

# A hold is settled by whoever deletes it. What an expired one used is not known by kind.
END_HOLDS = f"""
    CREATE FUNCTION quota_end_holds(tenant uuid, calls jsonb, now_at timestamptz)
    RETURNS TABLE (n integer, outcome text)
    LANGUAGE plpgsql AS $$
    #variable_conflict use_column
    DECLARE
        done integer[];
    BEGIN
        WITH gone AS (
            DELETE FROM public.quota_holds h
            USING (SELECT DISTINCT ON (w.id) w.* FROM {CALLS}
                WHERE w.op IN ('settle', 'release', 'expire') ORDER BY w.id, w.n) a
            WHERE h.id = a.id AND (a.op <> 'expire' OR h.lease_until <= now_at)
            RETURNING h.*, a.n, a.op, a.provider,
                CASE a.op WHEN 'release' THEN 0 ELSE h.requests END AS used_requests,
                CASE a.op WHEN 'settle' THEN a.input ELSE 0 END AS input,
                CASE a.op WHEN 'settle' THEN a.cached ELSE 0 END AS cached,
                CASE a.op WHEN 'settle' THEN a.output
                    WHEN 'expire' THEN coalesce(h.progress_tokens, h.tokens) ELSE 0 END AS output,
                CASE a.op WHEN 'settle' THEN a.reasoning ELSE 0 END AS reasoning,
                CASE a.op WHEN 'settle' THEN a.storage
                    WHEN 'expire' THEN coalesce(h.progress_storage_bytes, h.storage_bytes)
                    ELSE 0 END AS used_storage,
                CASE a.op WHEN 'settle' THEN a.cost
                    WHEN 'expire' THEN coalesce(h.progress_cost_nanos, h.cost_nanos)
                    ELSE 0 END AS used_cost,
                CASE a.op WHEN 'settle' THEN a.currency ELSE h.currency END AS used_currency,
                a.op = 'expire' OR a.op = 'settle' AND a.estimated AS is_estimated
        ), judged AS MATERIALIZED (
            SELECT g.*, t.used_tokens, t.used_tokens > g.tokens AS is_tokens_over,
                g.used_storage > g.storage_bytes AS is_storage_over,
                g.used_cost > g.cost_nanos OR g.used_cost > 0
                    AND g.used_currency IS DISTINCT FROM g.currency AS is_cost_over
            FROM gone g
            CROSS JOIN LATERAL (SELECT g.input + g.output + g.reasoning AS used_tokens) t
        ), booked AS (
            INSERT INTO public.usage (id, at, tenant_id, account_id, actor_kind, api_key_id, model,
                provider, request_id, requests, input_tokens, cached_tokens, output_tokens,
                reasoning_tokens, storage_bytes, cost_nanos, currency, is_estimated, is_overrun)
            SELECT j.id, j.created_at, tenant, j.account_id, j.actor_kind, j.api_key_id, j.model,
                j.provider, j.request_id, j.used_requests, j.input, j.cached, j.output,
                j.reasoning, j.used_storage, j.used_cost, j.used_currency, j.is_estimated,
                j.is_tokens_over OR j.is_storage_over OR j.is_cost_over
            FROM judged j WHERE j.op <> 'release'
        ), effects AS (
            SELECT q.id AS quota_id, q.scope, q.subject_id, q.meter, q.period, q.currency,
                q.limit_amount,
                {START.format(q="q", month=MONTH.format(at="h.created_at"))} AS start,
                sum({HOLD_ON_QUOTA}) AS freed, sum({USE_ON_QUOTA}) AS used,
                bool_or(CASE q.meter WHEN 'tokens' THEN h.is_tokens_over
                    WHEN 'storage' THEN h.is_storage_over WHEN 'cost' THEN h.is_cost_over
                    ELSE false END) AS is_overrun
            FROM judged h
            CROSS JOIN LATERAL (VALUES (tenant), (h.account_id), (h.api_key_id)) AS s(subject)
            JOIN public.quotas q ON q.tenant_id = tenant AND q.subject_id = s.subject
            GROUP BY q.id, start
        ), moved AS (
            UPDATE public.quota_balances b SET
                held = greatest(b.held - r.freed, 0), settled = r.now_settled,
                is_closed = r.now_closed, alerted = greatest(b.alerted, r.reached)
            FROM (
                SELECT e.*, m.*, o.alerted, e.is_overrun AND NOT o.is_closed AS is_news,
                    CASE WHEN m.now_settled <= 0 THEN 0
                        WHEN m.now_settled >= e.limit_amount OR m.now_closed THEN 100
                        WHEN m.now_settled >= e.limit_amount - e.limit_amount / 5 THEN 80
                        ELSE 0 END AS reached
                FROM effects e
                JOIN public.quota_balances o
                    ON o.quota_id = e.quota_id AND o.period_start = e.start
                CROSS JOIN LATERAL (
                    SELECT least(o.settled + e.used, 9223372036854775807)::bigint AS now_settled,
                        o.is_closed OR e.is_overrun AS now_closed
                ) m
            ) r
            WHERE b.quota_id = r.quota_id AND b.period_start = r.start
            RETURNING r.*
        ), told AS (
            INSERT INTO public.quota_alerts (id, tenant_id, quota_id, scope, subject_id, meter,
                period, period_start, currency, threshold, limit_amount, settled, is_overrun,
                created_at)
            SELECT gen_random_uuid(), tenant, m.quota_id, m.scope, m.subject_id, m.meter,
                m.period, m.start, m.currency, t.threshold, m.limit_amount, m.now_settled,
                m.is_news, now_at
            FROM moved m CROSS JOIN (VALUES (80), (100)) AS t(threshold)
            WHERE CASE WHEN m.is_news THEN t.threshold = 100
                ELSE t.threshold > m.alerted AND t.threshold <= m.reached END
        )
        SELECT coalesce(array_agg(j.n), '{{}}') INTO done FROM judged j;
        RETURN QUERY SELECT d.n, 'done' FROM unnest(done) AS d(n);

        IF cardinality(done) < (
            SELECT count(*) FROM {NAMES} WHERE w.op IN ('settle', 'release', 'expire')
        ) THEN
            -- Of a hold that is settled, also just now, the ledger has a row.
            RETURN QUERY
            SELECT w.n, CASE WHEN k.id IS NULL THEN 'gone'
                WHEN k.is_estimated AND NOT w.estimated THEN 'late' ELSE 'repeated' END
            FROM {CALLS} LEFT JOIN public.usage k ON k.at = w.made AND k.id = w.id
            WHERE w.op IN ('settle', 'release', 'expire') AND NOT w.n = ANY (done);
        END IF;
    END $$
"""

# One after the other, over the balances in memory: each sees what those before it were granted.
RESERVE = """
    CREATE FUNCTION quota_reserve(tenant uuid, calls jsonb, now_at timestamptz)
    RETURNS TABLE (
        n integer, outcome text, created_at timestamptz, lease_until timestamptz,
        requests bigint, tokens bigint, cost_nanos bigint, storage_bytes bigint, shortage jsonb)
    LANGUAGE plpgsql AS $$
    #variable_conflict use_column
    DECLARE
        this_month date := {this_month};
        quota_ids uuid[]; starts date[]; subjects uuid[]; scopes text[]; meters text[];
        periods text[]; currencies text[]; limits bigint[]; settleds bigint[]; helds bigint[];
        closed boolean[]; touched boolean[];
        known integer[] := '{{}}';
        ns integer[] := '{{}}'; g_requests bigint[] := '{{}}'; g_tokens bigint[] := '{{}}';
        g_costs bigint[] := '{{}}'; g_storages bigint[] := '{{}}';
        c record; i integer; verdict text; short integer;
        want bigint; least_want bigint; room numeric; cost_room numeric;
        -- What is granted lies part / whole of the way from the least to what was wanted.
        part numeric; whole numeric; a_part numeric; a_whole numeric;
    BEGIN
        IF calls @? '$[*].again ? (@ == true)' THEN
            FOR c IN
                SELECT w.n, h.created_at, h.lease_until, h.requests, h.tokens, h.cost_nanos,
                    h.storage_bytes, h.id IS NULL AS is_ended
                FROM {calls}
                LEFT JOIN public.quota_holds h ON h.id = w.id
                WHERE w.op = 'reserve' AND w.again AND (h.id IS NOT NULL OR EXISTS (
                    SELECT FROM public.usage u
                    WHERE u.id = w.id AND u.at > now_at - interval '15 seconds'))
            LOOP
                known := known || c.n;
                n := c.n;
                outcome := CASE WHEN c.is_ended THEN 'ended' ELSE 'granted' END;
                created_at := c.created_at; lease_until := c.lease_until;
                requests := c.requests; tokens := c.tokens; cost_nanos := c.cost_nanos;
                storage_bytes := c.storage_bytes; shortage := NULL;
                RETURN NEXT;
            END LOOP;
        END IF;

        -- In the order in which a call is told what does not cover it.
        SELECT array_agg(o.id), array_agg(o.period_start), array_agg(o.subject_id),
            array_agg(o.scope), array_agg(o.meter), array_agg(o.period), array_agg(o.currency),
            array_agg(o.limit_amount), array_agg(o.settled), array_agg(o.held),
            array_agg(o.is_closed), array_agg(false)
        INTO quota_ids, starts, subjects, scopes, meters, periods, currencies, limits, settleds,
            helds, closed, touched
        FROM (
            SELECT q.*, b.period_start, b.settled, b.held, b.is_closed
            FROM public.quotas q JOIN public.quota_balances b ON b.quota_id = q.id
                AND b.period_start = {start}
            WHERE q.tenant_id = tenant AND q.subject_id = ANY (ARRAY(
                SELECT s.subject FROM {calls}
                CROSS JOIN LATERAL (VALUES (tenant), (w.account), (w.key)) AS s(subject)
                WHERE w.op = 'reserve' AND s.subject IS NOT NULL))
            ORDER BY q.meter <> 'cost', q.period <> 'total', q.scope, q.meter
        ) o;

        FOR c IN
            SELECT w.*, ARRAY(
                SELECT s.i::integer FROM unnest(subjects) WITH ORDINALITY AS s(subject, i)
                WHERE s.subject = tenant OR s.subject = w.account OR s.subject = w.key
                ORDER BY s.i) AS lies_on
            FROM {calls} WHERE w.op = 'reserve' AND NOT w.n = ANY (known)
            ORDER BY w.n
        LOOP
            verdict := 'granted'; part := NULL; cost_room := NULL; short := NULL;
            FOREACH i IN ARRAY c.lies_on LOOP
                IF meters[i] = 'cost' THEN
                    IF c.currency IS DISTINCT FROM currencies[i] THEN
                        CONTINUE WHEN c.currency IS NULL AND c.requests = 0 AND c.tokens = 0;
                        verdict := 'currency';
                        EXIT;
                    END IF;
                    want := c.cost; least_want := c.least_cost;
                ELSIF meters[i] = 'tokens' THEN
                    want := c.tokens; least_want := c.least_tokens;
                ELSIF meters[i] = 'requests' THEN
                    want := c.requests; least_want := c.least_requests;
                ELSE
                    want := c.storage; least_want := c.least_storage;
                END IF;
                room := limits[i]::numeric - settleds[i] - helds[i];
                CONTINUE WHEN want = 0 OR want <= room AND NOT closed[i];
                IF least_want IS NULL OR least_want > room OR closed[i] THEN
                    verdict := 'exceeded'; short := i;
                    EXIT;
                END IF;
                a_part := room - least_want; a_whole := want - least_want;
                IF meters[i] = 'cost' THEN
                    a_part := greatest(a_part - 2, 0);
                    cost_room := least(cost_room, room);
                END IF;
                IF part IS NULL OR a_part * whole < part * a_whole THEN
                    part := a_part; whole := a_whole;
                END IF;
            END LOOP;

            IF verdict <> 'granted' THEN
                n := c.n; outcome := verdict;
                created_at := now_at; lease_until := NULL; requests := NULL; tokens := NULL;
                cost_nanos := NULL; storage_bytes := NULL; shortage := NULL;
                IF short IS NOT NULL THEN
                    shortage := jsonb_build_object('scope', scopes[short], 'meter', meters[short],
                        'period', periods[short], 'limit', limits[short],
                        'used', settleds[short], 'held', helds[short],
                        'currency', currencies[short]);
                END IF;
                RETURN NEXT;
                CONTINUE;
            END IF;
            IF part IS NOT NULL THEN
                c.requests := c.least_requests
                    + div((c.requests - c.least_requests) * part, whole);
                c.tokens := c.least_tokens + div((c.tokens - c.least_tokens) * part, whole);
                c.storage := c.least_storage + div((c.storage - c.least_storage) * part, whole);
                c.cost := least(c.cost, cost_room,
                    c.least_cost + ceil((c.cost - c.least_cost) * part / whole) + 2);
            END IF;
            FOREACH i IN ARRAY c.lies_on LOOP
                helds[i] := helds[i] + CASE meters[i]
                    WHEN 'cost' THEN CASE WHEN c.currency = currencies[i] THEN c.cost ELSE 0 END
                    WHEN 'tokens' THEN c.tokens WHEN 'requests' THEN c.requests
                    ELSE c.storage END;
                touched[i] := true;
            END LOOP;
            ns := ns || c.n; g_requests := g_requests || c.requests;
            g_tokens := g_tokens || c.tokens; g_costs := g_costs || c.cost;
            g_storages := g_storages || c.storage;
        END LOOP;

        UPDATE public.quota_balances b SET held = t.held
        FROM unnest(quota_ids, starts, helds, touched) AS t(quota_id, start, held, is_touched)
        WHERE t.is_touched AND b.quota_id = t.quota_id AND b.period_start = t.start
            AND b.held <> t.held;
        -- A hold of this id that is there already undoes the whole: who sent it twice asks again.
        INSERT INTO public.quota_holds (id, tenant_id, account_id, actor_kind, api_key_id,
            model, request_id, requests, tokens, cost_nanos, currency, storage_bytes, created_at,
            lease, lease_until)
        SELECT w.id, tenant, w.account, w.kind, w.key, w.model, w.request, g.requests, g.tokens,
            g.cost, w.currency, g.storage, now_at, make_interval(secs => w.lease),
            now_at + make_interval(secs => w.lease)
        FROM unnest(ns, g_requests, g_tokens, g_costs, g_storages)
            AS g(n, requests, tokens, cost, storage)
        JOIN {calls} ON w.n = g.n;
        RETURN QUERY
        SELECT g.n, 'granted', now_at, now_at + make_interval(secs => w.lease), g.requests,
            g.tokens, g.cost, g.storage, NULL::jsonb
        FROM unnest(ns, g_requests, g_tokens, g_costs, g_storages)
            AS g(n, requests, tokens, cost, storage)
        JOIN {calls} ON w.n = g.n;
    END $$
"""

# Whose tenant it is, nobody knows before they have been looked up. They are paged through, for what
# could not be settled stays where it is.
EXPIRED = """
    CREATE FUNCTION quota_expired(most integer, after_lease timestamptz, after_id uuid, but uuid[])
    RETURNS TABLE (tenant_id uuid, id uuid, created_at timestamptz, lease_until timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        SELECT h.tenant_id, h.id, h.created_at, h.lease_until FROM public.quota_holds h
        WHERE h.lease_until <= statement_timestamp() AND NOT h.tenant_id = ANY (but)
            AND (h.lease_until, h.id) > (coalesce(after_lease, '-infinity'),
                coalesce(after_id, '00000000-0000-0000-0000-000000000000'))
        ORDER BY h.lease_until, h.id LIMIT least(most, 1000)
    $$
"""

TRIGGERS = (
    f"""
    CREATE FUNCTION quota_lock() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        IF TG_OP = 'DELETE' THEN
            PERFORM pg_advisory_xact_lock({LOCK.format(tenant="OLD.tenant_id")});
            RETURN OLD;
        END IF;
        PERFORM pg_advisory_xact_lock({LOCK.format(tenant="NEW.tenant_id")});
        RETURN NEW;
    END $$
    """,
    # Nobody else reserves or settles in the tenant meanwhile: what is read here is all there is.
    f"""
    CREATE FUNCTION quota_follow() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
    DECLARE
        this_month date := {MONTH.format(at="clock_timestamp()")};
        q public.quotas := NEW;
    BEGIN
        IF TG_OP = 'DELETE' THEN
            DELETE FROM public.quota_balances b WHERE b.quota_id = OLD.id;
            RETURN NULL;
        END IF;
        IF TG_OP = 'UPDATE' THEN
            -- Whoever sets it knows of the overrun; and what is far away again is told again.
            UPDATE public.quota_balances b SET is_closed = false, alerted = least(b.alerted, CASE
                WHEN b.settled >= q.limit_amount THEN 100
                WHEN b.settled >= q.limit_amount - q.limit_amount / 5 THEN 80 ELSE 0 END)
            WHERE b.quota_id = q.id;
        ELSE
            INSERT INTO public.quota_balances
                (quota_id, period_start, tenant_id, settled, held, is_closed, alerted)
            SELECT q.id, p.start, q.tenant_id, least(coalesce((
                    SELECT sum({LEDGER_ON_QUOTA}) FROM public.usage_months u
                    WHERE u.tenant_id = q.tenant_id AND (q.period = 'total' OR u.month = p.start)
                        AND CASE q.scope WHEN 'user' THEN u.account_id = q.subject_id
                            WHEN 'key' THEN u.api_key_id = q.subject_id ELSE true END
                ), 0), 9223372036854775807), coalesce(p.held, 0), false, 0
            FROM (
                SELECT s.start, sum(s.held) AS held FROM (
                    SELECT {START.format(q="q", month="this_month")} AS start, 0 AS held
                    UNION ALL
                    SELECT {START.format(q="q", month=MONTH.format(at="h.created_at"))},
                        {HOLD_ON_QUOTA}
                    FROM public.quota_holds h WHERE h.tenant_id = q.tenant_id
                        AND q.subject_id IN (h.tenant_id, h.account_id, h.api_key_id)
                ) s GROUP BY s.start
            ) p;
        END IF;
        -- What is reached by setting the limit is told as well: nobody may be let settle after it.
        WITH reached AS (
            UPDATE public.quota_balances b SET alerted = r.share
            FROM (
                SELECT o.quota_id, o.period_start AS start, o.settled AS used, o.alerted AS was,
                    CASE WHEN o.settled <= 0 THEN 0
                        WHEN o.settled >= q.limit_amount THEN 100
                        WHEN o.settled >= q.limit_amount - q.limit_amount / 5 THEN 80
                        ELSE 0 END AS share
                FROM public.quota_balances o WHERE o.quota_id = q.id
                    AND o.period_start = {START.format(q="q", month="this_month")}
            ) r
            WHERE b.quota_id = r.quota_id AND b.period_start = r.start AND r.share > r.was
            RETURNING r.*
        )
        INSERT INTO public.quota_alerts (id, tenant_id, quota_id, scope, subject_id, meter,
            period, period_start, currency, threshold, limit_amount, settled, is_overrun,
            created_at)
        SELECT gen_random_uuid(), q.tenant_id, q.id, q.scope, q.subject_id, q.meter, q.period,
            r.start, q.currency, t.threshold, q.limit_amount, r.used, false, clock_timestamp()
        FROM reached r CROSS JOIN (VALUES (80), (100)) AS t(threshold)
        WHERE t.threshold > r.was AND t.threshold <= r.share;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER lock BEFORE INSERT OR UPDATE OR DELETE ON quotas
    FOR EACH ROW EXECUTE FUNCTION quota_lock()
    """,
    """
    CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON quotas
    FOR EACH ROW EXECUTE FUNCTION quota_follow()
    """,
)

PROGRESS = "progress_tokens, progress_cost_nanos, progress_storage_bytes"
GRANTS = (
    "GRANT SELECT, INSERT, DELETE ON quotas, quota_holds TO maas_app",
    "GRANT UPDATE (limit_amount, version, updated_at) ON quotas TO maas_app",
    f"GRANT UPDATE ({PROGRESS}, lease_until) ON quota_holds TO maas_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON quota_balances TO maas_app",
    "GRANT INSERT ON quota_alerts TO maas_app",
    "GRANT SELECT ON quotas, quota_balances, quota_holds TO maas_system",
    "GRANT SELECT, DELETE ON quota_alerts TO maas_system",
)

# Each call writes a balance anew, and makes and deletes a hold.
STORAGE = (
    "ALTER TABLE quota_balances SET (fillfactor = 50)",
    "ALTER TABLE quota_balances SET (autovacuum_vacuum_scale_factor = 0)",
    "ALTER TABLE quota_balances SET (autovacuum_vacuum_threshold = 1000)",
    "ALTER TABLE quota_holds SET (autovacuum_vacuum_scale_factor = 0)",
    "ALTER TABLE quota_holds SET (autovacuum_vacuum_threshold = 5000)",
)


def at(name: str) -> sa.Column:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def number(name: str, **options: bool) -> sa.Column:
    return sa.Column(name, sa.BigInteger, **{"nullable": False, **options})


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.create_table(
        "quotas",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("currency", sa.Text),
        number("limit_amount"),
        sa.Column("version", sa.Integer, nullable=False),
        at("created_at"),
        at("updated_at"),
        sa.PrimaryKeyConstraint("id", name="pk_quotas"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_quotas_tenant_id"),
        sa.UniqueConstraint(
            "tenant_id", "subject_id", "scope", "meter", "period", name="uq_quotas_subject"
        ),
        sa.CheckConstraint("scope IN ('tenant', 'user', 'key')", name="ck_quotas_scope"),
        sa.CheckConstraint(
            "meter IN ('requests', 'tokens', 'cost', 'storage')", name="ck_quotas_meter"
        ),
        sa.CheckConstraint(
            "period = 'total' OR period = 'month' AND meter <> 'storage'", name="ck_quotas_period"
        ),
        sa.CheckConstraint(
            "CASE WHEN meter = 'cost' THEN currency IS NOT NULL AND currency ~ '^[A-Z]{3}$'"
            " ELSE currency IS NULL END",
            name="ck_quotas_currency",
        ),
        sa.CheckConstraint(
            "scope <> 'tenant' OR subject_id = tenant_id", name="ck_quotas_subject_id"
        ),
        sa.CheckConstraint("limit_amount >= 0", name="ck_quotas_limit_amount"),
    )
    op.create_table(
        "quota_balances",
        sa.Column("quota_id", sa.Uuid, nullable=False),
        sa.Column("period_start", sa.Date, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        number("settled"),
        number("held"),
        sa.Column("is_closed", sa.Boolean, nullable=False),
        sa.Column("alerted", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("quota_id", "period_start", name="pk_quota_balances"),
        sa.CheckConstraint("settled >= 0 AND held >= 0", name="ck_quota_balances_amounts"),
    )
    _create_holds()
    op.create_table(
        "quota_alerts",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("quota_id", sa.Uuid, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("period_start", sa.Date, nullable=False),
        sa.Column("currency", sa.Text),
        sa.Column("threshold", sa.SmallInteger, nullable=False),
        number("limit_amount"),
        number("settled"),
        sa.Column("is_overrun", sa.Boolean, nullable=False),
        at("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_quota_alerts"),
    )
    for script in (*STORAGE, BEGIN, END_HOLDS, _reserve(), APPLY, EXPIRED, *TRIGGERS):
        op.execute(script)
    _guard()


def _reserve() -> str:
    return RESERVE.format(
        calls=CALLS,
        this_month=MONTH.format(at="now_at"),
        start=START.format(q="q", month="this_month"),
    )


def _create_holds() -> None:
    op.create_table(
        "quota_holds",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("actor_kind", sa.Text, nullable=False),
        sa.Column("api_key_id", sa.Uuid),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        number("requests"),
        number("tokens"),
        number("cost_nanos"),
        sa.Column("currency", sa.Text),
        number("storage_bytes"),
        number("progress_tokens", nullable=True),
        number("progress_cost_nanos", nullable=True),
        number("progress_storage_bytes", nullable=True),
        at("created_at"),
        sa.Column("lease", sa.Interval, nullable=False),
        at("lease_until"),
        sa.PrimaryKeyConstraint("id", name="pk_quota_holds"),
    )
    op.create_index("ix_quota_holds_lease_until", "quota_holds", ["lease_until"])
    op.create_index("ix_quota_holds_tenant_id", "quota_holds", ["tenant_id"])


def _guard() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY own_tenant ON {table} TO maas_app "
            "USING (tenant_id = current_setting('maas.tenant_id')::uuid) "
            "WITH CHECK (tenant_id = current_setting('maas.tenant_id')::uuid)"
        )
        # The revocations undo what default privileges may have given.
        op.execute(f"REVOKE ALL ON {table} FROM PUBLIC, maas_app, maas_system")
    op.execute("CREATE POLICY owner_lookups ON quota_holds FOR SELECT TO CURRENT_USER USING (true)")
    for grant in GRANTS:
        op.execute(grant)
    for function in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    for table in reversed(TABLES):
        op.drop_table(table)
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
