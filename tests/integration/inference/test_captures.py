"""Kept prompts and answers: sealed, one tenant's own, gone when their time is, or the person."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from maas.inference.application.captures import (
    MAX_CAPTURE_BYTES,
    Capture,
    CaptureNotFoundError,
)
from maas.inference.infrastructure import captures as captures_module
from maas.inference.infrastructure.captures import (
    MOST_ON_A_PAGE,
    CapturesUnavailableError,
    PostgresCaptures,
)
from maas.inference.infrastructure.captures_upkeep import erase_captures, prune_captures
from maas.sealed import add_key, check_sealed, list_keys, rewrap_sealed, rotate_key
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, TenantId, new_id
from maas.shared.domain.page import PageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database, app_arguments
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.sealing import SecretUnreadableError, key_id_of
from maas.shared.infrastructure.sealing_keys import build_sealer
from maas.shared.infrastructure.settings import Settings
from maas.worker_services import erase_people
from tests.factories.calls import DEPLOYMENT
from tests.fakes.clock import FakeClock

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

NOW: Final = SystemClock().now()
WEEK: Final = timedelta(days=7)
OTHER: Final = TenantId(UUID(int=7))
ADA, GRACE = AccountId(UUID(int=1)), AccountId(UUID(int=2))
FIRST: Final = PageRequest()
REQUEST: Final = '{"messages": [{"content": "canary-of-a-prompt é"}]}'
REST: Final = (
    "account_id, request_id, deployment_id, kind, is_stream, is_whole, captured_at, keep_until,"
    " sealed, content"
)
COLUMNS: Final = f"id, tenant_id, {REST}"
FOR_ANOTHER: Final = (
    f"INSERT INTO inference_captures ({COLUMNS})"
    f" SELECT gen_random_uuid(), '{OTHER}', {REST} FROM inference_captures"
)
ANSWER: Final = 'data: {"choices": []}\n\ndata: [DONE]\n\n'


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"data_dir": tmp_path})


@pytest.fixture
async def captures(database: Database, settings: Settings) -> PostgresCaptures:
    return PostgresCaptures(database, build_sealer(settings))


def make_capture(
    request_id: str = "r-1",
    *,
    tenant_id: TenantId = DEFAULT_TENANT_ID,
    account_id: AccountId = ADA,
    keep_for: timedelta = WEEK,
) -> Capture:
    return Capture(
        tenant_id=tenant_id,
        account_id=account_id,
        request_id=request_id,
        deployment_id=DEPLOYMENT,
        kind="chat",
        is_stream=True,
        is_whole=False,
        captured_at=NOW,
        keep_until=NOW + keep_for,
        request=REQUEST.encode(),
        answer=ANSWER.encode(),
    )


def reader(tenant_id: TenantId = DEFAULT_TENANT_ID) -> Principal:
    return Principal(
        kind="account",
        account_id=GRACE,
        tenant_id=tenant_id,
        username="grace",
        permissions=frozenset({"capture:read"}),
        version=1,
    )


class TestKeeping:
    async def test_every_field_comes_back(self, captures: PostgresCaptures) -> None:
        capture = make_capture()
        await captures.keep([capture])

        [found] = (await captures.list_captures(reader(), "r-1", FIRST)).items

        assert (found.request, found.answer) == (REQUEST, ANSWER)
        told = ("id", "account_id", "request_id", "deployment_id", "kind", "is_stream", "is_whole")
        for name in (*told, "captured_at", "keep_until"):
            assert getattr(found, name) == getattr(capture, name), name

    async def test_the_table_shows_none_of_it(
        self, captures: PostgresCaptures, superuser: Superuser
    ) -> None:
        await captures.keep([make_capture()])

        row = await superuser.fetchrow("SELECT * FROM inference_captures")

        assert row is not None
        assert b"canary" not in row["content"] + row["sealed"]
        assert len(row["sealed"]) < 200

    async def test_written_twice_it_is_there_once(
        self, captures: PostgresCaptures, superuser: Superuser
    ) -> None:
        capture = make_capture()

        await captures.keep([capture])
        await captures.keep([capture])

        assert await superuser.fetchval("SELECT count(*) FROM inference_captures") == 1

    async def test_the_largest_comes_back(self, captures: PostgresCaptures) -> None:
        large = b"x" * (MAX_CAPTURE_BYTES - 2)
        await captures.keep([replace(make_capture(), request=b"{}", answer=large)])

        [found] = (await captures.list_captures(reader(), "r-1", FIRST)).items

        assert (found.request, found.answer) == ("{}", large.decode())

    async def test_a_stream_cut_within_a_character_is_shown(
        self, captures: PostgresCaptures
    ) -> None:
        await captures.keep([replace(make_capture(), answer="é".encode()[:1])])

        [found] = (await captures.list_captures(reader(), "r-1", FIRST)).items

        assert found.answer == "\N{REPLACEMENT CHARACTER}"

    async def test_while_the_database_is_away_it_says_so(self, settings: Settings) -> None:
        gone = settings.database.model_copy(
            update={"url": type(settings.database.url)("postgresql://a:b@127.0.0.1:1/c")}
        )
        away = Database(gone)
        await away.open()

        with pytest.raises(CapturesUnavailableError):
            await PostgresCaptures(away, build_sealer(settings)).keep([make_capture()])
        await away.close()

    async def test_what_the_database_never_takes_leaves_the_connection_sound(
        self, captures: PostgresCaptures
    ) -> None:
        bad = make_capture("r-\0")

        with pytest.raises(asyncpg.PostgresError):
            await captures.keep([make_capture("r-2"), bad])

        await captures.keep([make_capture()])
        assert (await captures.list_captures(reader(), "r-1", FIRST)).items
        with pytest.raises(CaptureNotFoundError):
            await captures.list_captures(reader(), "r-2", FIRST)


class TestReading:
    async def test_no_id_of_a_call_hides_an_earlier_one(self, captures: PostgresCaptures) -> None:
        made = [
            replace(make_capture(), captured_at=NOW + timedelta(seconds=number))
            for number in range(MOST_ON_A_PAGE + 2)
        ]
        await captures.keep(made)

        first = await captures.list_captures(reader(), "r-1", PageRequest(include_total=True))
        second = await captures.list_captures(reader(), "r-1", PageRequest(after=first.next))

        assert [each.id for each in (*first.items, *second.items)] == [
            each.id for each in reversed(made)
        ]
        assert (len(first.items), first.total, second.next) == (MOST_ON_A_PAGE, len(made), None)

    async def test_what_nobody_kept_is_not_found(self, captures: PostgresCaptures) -> None:
        with pytest.raises(CaptureNotFoundError):
            await captures.list_captures(reader(), "r-1", FIRST)

    async def test_another_tenants_is_not_found(self, captures: PostgresCaptures) -> None:
        await captures.keep([make_capture(tenant_id=OTHER)])

        with pytest.raises(CaptureNotFoundError):
            await captures.list_captures(reader(), "r-1", FIRST)
        assert (await captures.list_captures(reader(OTHER), "r-1", FIRST)).items

    async def test_nor_with_the_filter_taken_out(
        self, captures: PostgresCaptures, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await captures.keep([make_capture(tenant_id=OTHER)])
        monkeypatch.setattr(
            captures_module,
            "LIST",
            captures_module.LIST.replace("tenant_id = $1", "$1::uuid IS NOT NULL"),
        )

        with pytest.raises(CaptureNotFoundError):
            await captures.list_captures(reader(), "r-1", FIRST)
        assert (await captures.list_captures(reader(OTHER), "r-1", FIRST)).items

    async def test_moved_to_another_row_it_does_not_open(
        self, captures: PostgresCaptures, superuser: Superuser
    ) -> None:
        await captures.keep([make_capture()])
        await superuser.execute("UPDATE inference_captures SET id = $1", new_id())

        with pytest.raises(SecretUnreadableError):
            await captures.list_captures(reader(), "r-1", FIRST)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE inference_captures SET keep_until = now()",
        "DELETE FROM inference_captures",
        FOR_ANOTHER,
        f"INSERT INTO inference_erasures VALUES ('{ADA}', now())",
    ],
)
async def test_the_application_changes_none_and_writes_for_no_other_tenant(
    captures: PostgresCaptures, settings: Settings, statement: str
) -> None:
    await captures.keep([make_capture()])
    connection = await asyncpg.connect(**app_arguments(settings.database))
    await connection.execute(f"BEGIN; SET LOCAL maas.tenant_id = '{DEFAULT_TENANT_ID}'")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)

    await connection.close()


class TestRetention:
    async def test_what_is_over_goes_of_every_tenant(
        self, captures: PostgresCaptures, settings: Settings, superuser: Superuser
    ) -> None:
        await captures.keep([make_capture("over"), make_capture("stays", keep_for=2 * WEEK)])
        await captures.keep([make_capture("over", tenant_id=OTHER)])
        clock = FakeClock(NOW + WEEK)

        assert await prune_captures(settings.database, clock=clock) == 2
        assert await prune_captures(settings.database, clock=clock) == 0
        left = await superuser.fetch("SELECT request_id FROM inference_captures")
        assert [row["request_id"] for row in left] == ["stays"]

    async def test_what_is_over_is_not_shown_before_that(self, captures: PostgresCaptures) -> None:
        await captures.keep([make_capture(keep_for=-timedelta(seconds=1))])

        with pytest.raises(CaptureNotFoundError):
            await captures.list_captures(reader(), "r-1", FIRST)


class TestErasure:
    async def test_a_persons_go_in_every_tenant_and_no_others(
        self, captures: PostgresCaptures, settings: Settings, superuser: Superuser
    ) -> None:
        await captures.keep([make_capture("gone"), make_capture("stays", account_id=GRACE)])
        await captures.keep([make_capture("gone", tenant_id=OTHER)])

        await erase_captures(settings.database, ADA, clock=SystemClock())

        left = await superuser.fetch("SELECT request_id FROM inference_captures")
        assert [row["request_id"] for row in left] == ["stays"]

    async def test_the_task_that_erases_people_takes_them_too(
        self,
        captures: PostgresCaptures,
        settings: Settings,
        superuser: Superuser,
        redis_gate: RedisGate,
    ) -> None:
        await captures.keep([make_capture("gone"), make_capture("stays", account_id=GRACE)])
        await superuser.execute("INSERT INTO audit_erasures (actor_id) VALUES ($1)", ADA)

        await erase_people(settings, redis_gate)

        left = await superuser.fetch("SELECT request_id FROM inference_captures")
        assert [row["request_id"] for row in left] == ["stays"]

    async def test_what_comes_late_is_not_kept(
        self, captures: PostgresCaptures, settings: Settings, superuser: Superuser
    ) -> None:
        await erase_captures(settings.database, ADA, clock=SystemClock())

        await captures.keep([make_capture(), make_capture("stays", account_id=GRACE)])

        left = await superuser.fetch("SELECT request_id FROM inference_captures")
        assert [row["request_id"] for row in left] == ["stays"]

    async def test_it_waits_for_who_is_writing(
        self, captures: PostgresCaptures, settings: Settings, superuser: Superuser
    ) -> None:
        await captures.keep([make_capture("before")])
        writer = await asyncpg.connect(**app_arguments(settings.database))
        await writer.execute(f"BEGIN; SET LOCAL maas.tenant_id = '{DEFAULT_TENANT_ID}'")
        await writer.execute(captures_module._JOIN)
        await writer.execute(
            f"INSERT INTO inference_captures ({COLUMNS})"
            f" SELECT gen_random_uuid(), tenant_id, {REST} FROM inference_captures"
        )
        erasing = asyncio.create_task(erase_captures(settings.database, ADA, clock=SystemClock()))
        await until_blocked(superuser)

        await writer.execute("COMMIT")
        await erasing

        assert await superuser.fetchval("SELECT count(*) FROM inference_captures") == 0
        await writer.close()

    async def test_with_too_many_it_says_so_and_is_repeated(
        self,
        captures: PostgresCaptures,
        settings: Settings,
        superuser: Superuser,
    ) -> None:
        await captures.keep([make_capture()])

        with pytest.raises(TimeoutError):
            await erase_captures(settings.database, ADA, clock=SystemClock(), run_seconds=0)
        await erase_captures(settings.database, ADA, clock=SystemClock())

        assert await superuser.fetchval("SELECT count(*) FROM inference_captures") == 0


async def until_blocked(superuser: Superuser) -> None:
    """Wait until somebody waits for a lock."""
    blocked = 0
    while not blocked:
        # Within a transaction the view would go on showing what it showed first.
        await superuser.execute("SELECT pg_stat_clear_snapshot()")
        blocked = await superuser.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        )


class TestKeys:
    async def test_a_new_key_takes_over_and_the_content_stays_as_it_is(
        self, captures: PostgresCaptures, settings: Settings, superuser: Superuser
    ) -> None:
        await captures.keep([make_capture()])
        before = await superuser.fetchrow("SELECT sealed, content FROM inference_captures")
        await add_key(settings)
        newest = await rotate_key(settings)

        has_more = await rewrap_sealed(settings)

        after = await superuser.fetchrow("SELECT sealed, content FROM inference_captures")
        assert before is not None
        assert after is not None
        assert not has_more
        assert key_id_of(before["sealed"]).hex() != newest == key_id_of(after["sealed"]).hex()
        assert before["content"] == after["content"]
        database = Database(settings.database)
        await database.open()
        again = PostgresCaptures(database, build_sealer(settings))
        [found] = (await again.list_captures(reader(), "r-1", FIRST)).items
        assert found.request == REQUEST
        await database.close()

    async def test_the_keys_count_them_and_the_trail_is_told_of_what_does_not_open(
        self, captures: PostgresCaptures, settings: Settings, superuser: Superuser
    ) -> None:
        await captures.keep([make_capture()])
        await superuser.execute("UPDATE inference_captures SET id = $1", new_id())

        [line] = await list_keys(settings)
        await check_sealed(settings, None, None)

        assert line.values == 1
        told = await superuser.fetchval("SELECT place FROM sealing_faults")
        assert told == "inference_captures.sealed"

    async def test_nothing_is_sealed_under_a_retired_key(
        self, captures: PostgresCaptures, settings: Settings, superuser: Superuser
    ) -> None:
        [line] = await list_keys(settings)
        await superuser.execute(
            "INSERT INTO sealing_retired_keys VALUES ($1, now())", bytes.fromhex(line.id)
        )

        with pytest.raises(CapturesUnavailableError):
            await captures.keep([make_capture()])
