"""The searches find what a naive comparison of every row finds, and nothing of another tenant."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.servers import TEMPLATE, Servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DATABASE = f"maas_search_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
HOME, ELSEWHERE = UUID(int=1), UUID(int=2)
PAGE = 3_000
"""A few pages in all that is there, so that every search also goes on from a cursor."""

LETTERS = "abzABZ019.@-_%\\'\"& |:*!王李伟鱼éÉßЖж😀"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# A search looks at the newest 2,000 rows, then for 8,000 through the index, then further down. So
# only the older ones have a "z", 9,800 of them, and the oldest hundreds have what few have.
FILL = f"""
    SET session_replication_role = replica;
    DROP INDEX ix_accounts_search;
    INSERT INTO tenants (id, slug, name) VALUES ('{HOME}', 'home', 'Home'),
        ('{ELSEWHERE}', 'elsewhere', 'Elsewhere');
    INSERT INTO accounts (id, username, email, display_name, password_hash, status, home_tenant_id,
                          created_at, updated_at, version)
    SELECT gen_random_uuid(), made.username, made.email, made.display_name, 'x', 'active', '{HOME}',
           timestamptz '2026-01-01' - n / 3 * interval '1 minute', now(), 1
    FROM generate_series(1, 14000) n, LATERAL (SELECT
        CASE WHEN n > 4200 THEN 'Zoe' ELSE 'Ada' END || n AS username,
        'p' || n || '@' || CASE WHEN n % 90 = 0 THEN 'x-' ELSE '' END || 'example.com' AS email,
        CASE n % 7 WHEN 0 THEN '王伟' WHEN 1 THEN 'É_a ''b''' WHEN 2 THEN 'Ж 100%' END
            || CASE WHEN n > 13500 THEN '\\鱼:*' || chr(128512) ELSE '' END AS display_name) made;
    INSERT INTO memberships (tenant_id, account_id, created_at, status)
    SELECT '{HOME}', id, created_at,
        CASE WHEN username LIKE '%77' THEN 'suspended' ELSE 'active' END
    FROM accounts WHERE username NOT LIKE '%5';
    INSERT INTO memberships (tenant_id, account_id, created_at)
    SELECT '{ELSEWHERE}', id, created_at FROM accounts WHERE username LIKE '%05';
    INSERT INTO membership_roles SELECT tenant_id, account_id,
        CASE WHEN created_at < '2025-12-29' THEN 'auditor' ELSE 'user' END FROM memberships;
    CREATE INDEX ix_accounts_search ON accounts
        USING gin (search_grams(username, email, display_name)) WITH (fastupdate = off);
    ANALYZE;
"""
MEMBERS = """
    SELECT m.account_id AS id, m.status, r.role_name AS role, m.created_at,
           ARRAY[lower(a.username), lower(a.email), lower(a.display_name)] AS texts
    FROM memberships m JOIN accounts a ON a.id = m.account_id
    JOIN membership_roles r USING (tenant_id, account_id)
    WHERE tenant_id = $1 ORDER BY m.created_at DESC, m.account_id DESC
"""


@dataclass(frozen=True, slots=True)
class Searched:
    """A database full of members, and the loop its connection as `maas_app` lives in."""

    runner: asyncio.Runner
    app: Connection
    rows: dict[UUID, list[asyncpg.Record]]

    def naive(
        self, tenant: UUID, q: str | None, status: str | None, role: str | None
    ) -> list[UUID]:
        """Look at every row."""
        return [
            row["id"]
            for row in self.rows[tenant]
            if (status is None or row["status"] == status)
            and (role is None or row["role"] == role)
            and (q is None or any(q.lower() in text for text in row["texts"] if text is not None))
        ]

    def search(
        self, tenant: UUID, q: str | None, status: str | None, role: str | None
    ) -> tuple[list[UUID], int]:
        """Ask as `maas_app`, page after page; return what was found and the count."""
        return self.runner.run(self._search(tenant, (q, status, role)))

    async def _search(
        self, tenant: UUID, filters: tuple[str | None, ...]
    ) -> tuple[list[UUID], int]:
        found: list[UUID] = []
        position: Sequence[object] = (None, None)
        async with self.app.transaction():
            await self.app.execute("SELECT set_config('maas.tenant_id', $1, true)", str(tenant))
            while True:
                page = await self.app.fetch(
                    "SELECT id, created_at FROM member_search($1, $2, $3, $4, $5, $6)",
                    *filters, *position, PAGE,
                )  # fmt: skip
                found += [row["id"] for row in page]
                if len(page) < PAGE:
                    break
                position = (page[-1]["created_at"], page[-1]["id"])
            count = await self.app.fetchval("SELECT member_search_count($1, $2, $3)", *filters)
        return found, count


@pytest.fixture(scope="module")
def searched(servers: Servers) -> Iterator[Searched]:
    with asyncio.Runner() as runner:
        app, rows = runner.run(_open(servers))
        yield Searched(runner, app, rows)
        runner.run(app.close())
        runner.run(_execute(servers, f"DROP DATABASE {DATABASE} WITH (FORCE)"))


async def _open(
    servers: Servers,
) -> tuple[Connection, dict[UUID, list[asyncpg.Record]]]:
    await _execute(servers, f"CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE} OWNER maas_owner")
    superuser = await servers.connect(DATABASE)
    await superuser.execute(FILL)
    rows = {tenant: await superuser.fetch(MEMBERS, tenant) for tenant in (HOME, ELSEWHERE)}
    await superuser.close()
    return await servers.connect(DATABASE, "maas_app"), rows


async def _execute(servers: Servers, statement: str) -> None:
    connection = await servers.connect("postgres")
    await connection.execute(statement)
    await connection.close()


TEXTS = (
    "Zoe13999", "Ada12", "p13860@x-example.com", "王伟\\鱼:*😀", "É_a 'b'\\鱼", "Ж 100%", "example",
)  # fmt: skip


@st.composite
def parts(draw: st.DrawFn) -> str:
    """Take a part of what is there, in any case."""
    text = draw(st.sampled_from(TEXTS))
    start = draw(st.integers(0, len(text) - 1))
    part = text[start : start + draw(st.integers(1, 5))]
    return part.swapcase() if draw(st.booleans()) and "ß" not in part else part


SEARCHES = st.one_of(parts(), st.text(LETTERS, min_size=1, max_size=5))
thoroughly = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class TestSameAsNaive:
    @thoroughly
    @given(
        q=st.none() | SEARCHES,
        status=st.sampled_from([None, None, "active", "suspended"]),
        role=st.sampled_from([None, None, "user", "auditor", "nobody"]),
    )
    @example(q="z", status=None, role=None)  # too many for the first look through the index
    @example(q="鱼", status=None, role=None)  # among the oldest only
    @example(q="a", status=None, role="auditor")
    @example(q=None, status="suspended", role=None)
    @example(q=" & ", status=None, role=None)
    def test_for_members(
        self, searched: Searched, q: str | None, status: str | None, role: str | None
    ) -> None:
        found, count = searched.search(HOME, q, status, role)

        assert found == searched.naive(HOME, q, status, role)
        assert count == len(found)


class TestTenants:
    @settings(thoroughly, max_examples=20)
    @given(q=SEARCHES)
    @example(q="e")
    def test_another_tenants_rows_are_never_found(self, searched: Searched, q: str) -> None:
        own, count = searched.search(ELSEWHERE, q, None, None)

        assert own == searched.naive(ELSEWHERE, q, None, None)
        assert count == len(own)

    @pytest.mark.parametrize(
        "call",
        [
            "member_search('a', NULL, NULL, NULL, NULL, 9)",
            "member_search_count('a', NULL, NULL)",
        ],
    )
    def test_without_a_tenant_there_is_an_error(self, searched: Searched, call: str) -> None:
        with pytest.raises(asyncpg.PostgresError, match=r"maas\.tenant_id|uuid"):
            searched.runner.run(searched.app.fetch(f"SELECT * FROM {call}"))

    def test_what_sees_all_tenants_is_not_for_the_application(self, searched: Searched) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            searched.runner.run(searched.app.fetch("SELECT member_candidates('a', NULL, 9)"))
