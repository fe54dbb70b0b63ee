"""Calls end with their event in the transaction that books them.

`quota_end_holds` writes the event that a settlement brings along, if that settlement is the one
that deleted the hold. A hold keeps what an event says of it should it expire; one that does is only
expired by whoever brings the event, and only as it was when the event was made of it.

The functions of 0018 are changed where they stand: whatever else they say, stays. Processes of the
release before call them as they did, and their calls end as they did.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0032_metered_calls"
down_revision = "0031_deployments"
branch_labels = None
depends_on = None

RESERVE = "quota_reserve(uuid, jsonb, timestamptz)"
END_HOLDS = "quota_end_holds(uuid, jsonb, timestamptz)"
EXPIRED = "quota_expired_holds(integer, timestamptz, uuid, uuid[])"

# What stands there, what is to stand there, and how often.
CHANGES: dict[str, Sequence[tuple[str, str, int]]] = {
    RESERVE: (
        ("estimated boolean)", "estimated boolean, audited jsonb)", 5),
        ("            lease, lease_until)", "            lease, lease_until, audited_as)", 1),
        (
            "now_at + make_interval(secs => w.lease)\n        FROM",
            "now_at + make_interval(secs => w.lease), w.audited\n        FROM",
            1,
        ),
    ),
    END_HOLDS: (
        ("estimated boolean)", "estimated boolean, event jsonb, until timestamptz)", 2),
        (
            "(a.op <> 'expire' OR h.lease_until <= now_at)",
            """(a.op <> 'expire' OR h.lease_until <= now_at
                AND (a.until IS NULL OR h.lease_until = a.until)
                AND (h.audited_as IS NULL OR a.event IS NOT NULL))""",
            1,
        ),
        ("a.op, a.provider,", "a.op, a.provider, a.event,", 1),
        (
            "), effects AS (",
            """), audited AS (
            INSERT INTO public.audit_outbox (event_id, tenant_id, payload, personal, duration_ms)
            SELECT (j.event ->> 'id')::uuid, tenant, convert_to(j.event ->> 'payload', 'UTF8'),
                (j.event ->> 'personal')::jsonb, (j.event ->> 'duration_ms')::integer
            FROM judged j WHERE j.op <> 'release' AND j.event IS NOT NULL
        ), effects AS (""",
            1,
        ),
    ),
}

# Whose tenant it is, nobody knows before they have been looked up.
FIND_EXPIRED = """
    CREATE FUNCTION quota_expired_holds(
        most integer, after_lease timestamptz, after_id uuid, but uuid[])
    RETURNS SETOF quota_holds
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        SELECT h.* FROM public.quota_holds h
        WHERE h.lease_until <= statement_timestamp() AND NOT h.tenant_id = ANY (but)
            AND (h.lease_until, h.id) > (coalesce(after_lease, '-infinity'),
                coalesce(after_id, '00000000-0000-0000-0000-000000000000'))
        ORDER BY h.lease_until, h.id LIMIT least(most, 1000)
    $$
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.add_column("quota_holds", sa.Column("audited_as", JSONB))
    for function, changes in CHANGES.items():
        _change(function, changes)
    op.execute(FIND_EXPIRED)
    op.execute(f"REVOKE ALL ON FUNCTION {EXPIRED} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {EXPIRED} TO maas_app")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '1s'")
    op.execute(f"DROP FUNCTION {EXPIRED}")
    for function, changes in CHANGES.items():
        _change(function, [(new, old, count) for old, new, count in changes])
    op.drop_column("quota_holds", "audited_as")


def _change(function: str, changes: Sequence[tuple[str, str, int]]) -> None:
    """Change a function's text, and refuse to if it is not the text that is expected."""
    steps = "".join(
        f"""
        IF (length(source) - length(replace(source, $old${old}$old$, '')))
            / length($old${old}$old$) <> {count} THEN
            RAISE EXCEPTION 'the text of {function} is another';
        END IF;
        source := replace(source, $old${old}$old$, $new${new}$new$);"""
        for old, new, count in changes
    )
    op.execute(f"""
        DO $do$
        DECLARE
            source text := pg_get_functiondef('{function}'::regprocedure);
        BEGIN{steps}
            EXECUTE source;
        END $do$
    """)
