"""From one sealing key to the next over real rows: handed over, checked, retired, told of."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from maas.audit.domain.webhooks import WebhookId
from maas.audit.infrastructure.webhooks_sender import PREVIOUS_SECRET, SECRET, WebhookSecrets
from maas.audit.wiring import build_event_writer, watch_trail
from maas.doctor import examine
from maas.model.infrastructure.provider_credentials import SEALED as SUPPLIERS_KEY
from maas.sealed import (
    FaultEvents,
    add_key,
    check_sealed,
    list_keys,
    open_upkeep,
    retire_key,
    rewrap_sealed,
    rotate_key,
)
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import app_arguments
from maas.shared.infrastructure.sealing import SecretUnreadableError, key_id_of
from maas.shared.infrastructure.sealing_faults import find_key_faults
from maas.shared.infrastructure.sealing_key_file import KeyChangeRefusedError, read_key_file
from maas.shared.infrastructure.sealing_keys import build_sealer, key_file_path
from maas.shared.infrastructure.sealing_ring import RingKey
from maas.shared.infrastructure.sealing_upkeep import SealingUpkeep
from maas.shared.infrastructure.settings import Settings
from maas.shared.interface.outages import problem_of_outage
from tests.integration.audit.conftest import trail as trail  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.helpers import Superuser, Trail

OpenUpkeep: TypeAlias = Callable[[], AbstractAsyncContextManager[SealingUpkeep]]

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60), pytest.mark.usefixtures("clean")]

OTHER = TenantId(new_id())
PLAIN = b"canary-a-secret-of-32-bytes-here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """Webhooks with secrets, and the keys these are sealed under."""

    settings: Settings
    superuser: Superuser

    async def put(self, count: int = 1, *, tenant_id: TenantId = DEFAULT_TENANT_ID) -> list[UUID]:
        """Put webhooks there, whose secrets are all the same."""
        sealer = build_sealer(self.settings)
        ids = [new_id() for _ in range(count)]
        await self.superuser.executemany(
            "INSERT INTO audit_webhooks VALUES ($1, $2, 'w', 'https://example.com', '{}',"
            " 'active', NULL, $3, $4, now(), now(), now(), 1)",
            [
                (
                    row_id,
                    tenant_id,
                    sealer.seal(PLAIN, SECRET.place(row_id, tenant_id)),
                    sealer.seal(PLAIN, PREVIOUS_SECRET.place(row_id, tenant_id)),
                )
                for row_id in ids
            ],
        )
        return ids

    async def rows(self) -> Sequence[Any]:
        return await self.superuser.fetch("SELECT * FROM audit_webhooks ORDER BY id")

    async def key_ids(self) -> set[str]:
        rows = await self.rows()
        return {
            key_id_of(row[name]).hex() for row in rows for name in ("secret", "previous_secret")
        }

    async def opened(self) -> set[bytes]:
        sealer = build_sealer(self.settings)
        return {
            sealer.open(row[column.column], column.place(row["id"], row["tenant_id"]))
            for row in await self.rows()
            for column in (SECRET, PREVIOUS_SECRET)
        }

    async def new_key(self) -> str:
        await add_key(self.settings)
        return await rotate_key(self.settings)

    async def swap(self, one: UUID, other: UUID) -> None:
        """Give each of two rows the other's secret."""
        await self.superuser.execute(
            "UPDATE audit_webhooks AS t SET secret = f.secret FROM audit_webhooks AS f"
            " WHERE (t.id, f.id) IN (($1, $2), ($2, $1))",
            *(one, other),
        )

    async def events(self) -> list[dict[str, Any]]:
        rows = await self.superuser.fetch("SELECT payload FROM audit_outbox ORDER BY created_at")
        return [json.loads(row["payload"]) for row in rows]

    async def actions(self) -> list[str]:
        return [event["action"] for event in await self.events()]

    @property
    def derived(self) -> str:
        return RingKey.derived(self.settings.secret_key.get_secret_value()).id.hex()


@pytest.fixture
def vault(settings: Settings, superuser: Superuser, tmp_path: Path) -> Vault:
    return Vault(settings=settings.model_copy(update={"data_dir": tmp_path}), superuser=superuser)


@pytest.fixture
async def late_writer(vault: Vault) -> AsyncIterator[Superuser]:
    """A writer of the application whose transaction is open."""
    connection = await asyncpg.connect(**app_arguments(vault.settings.database))
    await connection.execute("BEGIN")
    await connection.execute(f"SET LOCAL maas.tenant_id = '{DEFAULT_TENANT_ID}'")
    yield connection
    await connection.close()


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


class TestHandingOver:
    async def test_the_new_key_alone_opens_everything(self, vault: Vault) -> None:
        await vault.put(3)
        await vault.put(2, tenant_id=OTHER)
        current = await vault.new_key()

        has_more = await rewrap_sealed(vault.settings)

        assert (has_more, await vault.key_ids()) == (False, {current})
        assert await vault.opened() == {PLAIN}

    async def test_in_slices_it_is_all_the_same(self, vault: Vault) -> None:
        await vault.put(5)
        current = await vault.new_key()

        async with open_upkeep(vault.settings) as upkeep:
            await replace(upkeep, slice_rows=2).rewrap()

        assert await vault.key_ids() == {current}

    async def test_who_stops_in_the_middle_leaves_the_rest_to_the_next(self, vault: Vault) -> None:
        await vault.put(5)
        current = await vault.new_key()

        async with open_upkeep(vault.settings) as upkeep:
            has_more = await replace(upkeep, slice_rows=2, run_seconds=-1).rewrap()
        between, opened = await vault.key_ids(), await vault.opened()
        await rewrap_sealed(vault.settings)

        assert (has_more, between, opened) == (True, {vault.derived, current}, {PLAIN})
        assert await vault.key_ids() == {current}

    async def test_suppliers_keys_are_handed_over_as_well(self, vault: Vault) -> None:
        place = SUPPLIERS_KEY.place(new_id(), OTHER)
        await vault.superuser.execute(
            "INSERT INTO providers (id, tenant_id, name, type, base_url, reach, status,"
            " created_by, created_at, updated_at, revision) VALUES ($1, $2, 'p', 'openai',"
            " 'https://example.com', 'public', 'active', $1, now(), now(),"
            " 1)",
            *(place.row, OTHER),
        )
        await vault.superuser.execute(
            "INSERT INTO provider_credentials (provider_id, tenant_id, sealed, set_at, set_by)"
            " VALUES ($1, $2, $3, now(), $1)",
            *(place.row, OTHER, build_sealer(vault.settings).seal(PLAIN, place)),
        )
        current = await vault.new_key()

        await rewrap_sealed(vault.settings)

        sealed = await vault.superuser.fetchval("SELECT sealed FROM provider_credentials")
        assert key_id_of(sealed).hex() == current
        assert build_sealer(vault.settings).open(sealed, place) == PLAIN

    async def test_a_row_in_use_is_not_waited_for(
        self, vault: Vault, late_writer: Superuser
    ) -> None:
        busy, *_ = await vault.put(2)
        await vault.new_key()
        await late_writer.execute("SELECT FROM audit_webhooks WHERE id = $1 FOR UPDATE", busy)

        async with asyncio.timeout(2):
            await rewrap_sealed(vault.settings)
        left = [
            row["id"]
            for row in await vault.rows()
            if key_id_of(row["secret"]).hex() == vault.derived
        ]
        await late_writer.execute("ROLLBACK")
        await rewrap_sealed(vault.settings)

        assert left == [busy]
        assert vault.derived not in await vault.key_ids()

    async def test_what_was_written_meanwhile_is_not_written_over(self, vault: Vault) -> None:
        [row_id] = await vault.put()
        [before] = await vault.rows()
        await vault.new_key()
        sealed = build_sealer(vault.settings).seal(
            b"newer", SECRET.place(row_id, DEFAULT_TENANT_ID)
        )
        await vault.superuser.execute("UPDATE audit_webhooks SET secret = $1", sealed)

        read = {"row": row_id, "tenant_id": DEFAULT_TENANT_ID, "sealed": before["secret"]}
        async with open_upkeep(vault.settings) as upkeep:
            await upkeep._hand_over(SECRET, [read])  # type: ignore[list-item]  # as a row reads

        [after] = await vault.rows()
        assert after["secret"] == sealed

    async def test_a_process_with_an_older_ring_hands_nothing_back(
        self, vault: Vault, tmp_path: Path
    ) -> None:
        await vault.put()
        await add_key(vault.settings)
        behind = tmp_path / "behind.json"
        behind.write_bytes(key_file_path(vault.settings).read_bytes())
        current = await rotate_key(vault.settings)
        await rewrap_sealed(vault.settings)
        sealing = vault.settings.sealing.model_copy(update={"keys_file": behind})

        await rewrap_sealed(vault.settings.model_copy(update={"sealing": sealing}))

        assert await vault.key_ids() == {current}

    async def test_what_the_release_before_replaced_opens_and_moves_to_its_place(
        self, vault: Vault
    ) -> None:
        [row_id] = await vault.put()
        # It moved what was sealed from one column to the other as it was.
        await vault.superuser.execute("UPDATE audit_webhooks SET previous_secret = secret")
        secrets = WebhookSecrets(build_sealer(vault.settings))
        [before] = await vault.rows()
        read = secrets.open_previous(
            before["previous_secret"], WebhookId(row_id), DEFAULT_TENANT_ID
        )
        await check_sealed(vault.settings, None, None)
        told = await vault.actions()
        current = await vault.new_key()

        await rewrap_sealed(vault.settings)

        assert (read, told) == (PLAIN, [])
        assert (await vault.key_ids(), await vault.opened()) == ({current}, {PLAIN})

    async def test_two_at_once_are_one(self, vault: Vault) -> None:
        await vault.put()
        async with open_upkeep(vault.settings) as other:
            await other.rewrap()
            await vault.new_key()
            has_more = await rewrap_sealed(vault.settings)
            left = await vault.key_ids()

        assert (has_more, left) == (False, {vault.derived})

    async def test_sm4_takes_the_place_of_aes(self, vault: Vault) -> None:
        await vault.put(2)
        await vault.new_key()
        sealing = vault.settings.sealing.model_copy(update={"algorithm": "sm4-gcm"})

        await rewrap_sealed(vault.settings.model_copy(update={"sealing": sealing}))

        assert {row["secret"][1] for row in await vault.rows()} == {2}
        assert await vault.opened() == {PLAIN}


class TestFaults:
    async def test_a_secret_of_another_row_is_told_once_to_its_tenant(self, vault: Vault) -> None:
        [ours], [theirs] = await vault.put(), await vault.put(tenant_id=OTHER)
        await vault.swap(ours, theirs)

        await check_sealed(vault.settings, None, None)
        await check_sealed(vault.settings, None, None)

        told = {
            (event["tenant_id"], event["resource"]["id"], event["outcome"])
            for event in await vault.events()
        }
        assert await vault.actions() == ["secret.unreadable"] * 2
        assert told == {
            (str(DEFAULT_TENANT_ID), str(ours), "failure"),
            (str(OTHER), str(theirs), "failure"),
        }

    async def test_it_is_an_alert_of_that_tenant(self, vault: Vault, trail: Trail) -> None:
        [ours], [theirs] = await vault.put(), await vault.put(tenant_id=OTHER)
        await watch_trail(vault.settings, clock=SystemClock())
        await vault.swap(ours, theirs)
        await check_sealed(vault.settings, None, None)
        await trail.age()

        await trail.flush().run()
        raised = await watch_trail(vault.settings, clock=SystemClock())

        alerts = await vault.superuser.fetch("SELECT * FROM audit_alerts")
        told = {(row["tenant_id"], row["rule"], row["subject_id"]) for row in alerts}
        assert raised == 2
        assert told == {
            (DEFAULT_TENANT_ID, "unreadable-secret", str(ours)),
            (OTHER, "unreadable-secret", str(theirs)),
        }

    async def test_a_secret_of_another_column_is_told(self, vault: Vault) -> None:
        await vault.put()
        await vault.superuser.execute("UPDATE audit_webhooks SET secret = previous_secret")

        await check_sealed(vault.settings, None, None)

        [event] = await vault.events()
        assert event["changes"]["after"] == {"kept_in": "audit_webhooks.secret"}

    async def test_one_that_was_mended_is_told_of_again(self, vault: Vault) -> None:
        ids = await vault.put(2)
        for _ in range(3):
            await vault.swap(ids[0], ids[1])
            await check_sealed(vault.settings, None, None)

        assert await vault.actions() == ["secret.unreadable"] * 4

    async def test_what_is_gone_is_forgotten(self, vault: Vault) -> None:
        ids = await vault.put(2)
        await vault.swap(ids[0], ids[1])
        await check_sealed(vault.settings, None, None)
        await vault.superuser.execute("DELETE FROM audit_webhooks")

        await check_sealed(vault.settings, None, None)

        assert await vault.superuser.fetchval("SELECT count(*) FROM sealing_faults") == 0

    async def test_a_check_goes_on_from_where_it_stopped(self, vault: Vault) -> None:
        ids = await vault.put(5)
        await vault.swap(ids[0], ids[4])
        told: list[UUID] = []
        stopped: tuple[str, UUID] | None = ("audit_webhooks.secret", UUID(int=0))
        runs = 0

        async def tell(connection: object, faults: Sequence[Any]) -> None:
            told.extend(fault.row_id for fault in faults)

        while stopped is not None:
            async with open_upkeep(vault.settings) as upkeep:
                short = replace(upkeep, slice_rows=2, run_seconds=-1)
                stopped = await short.check(tell, column=stopped[0], after=stopped[1])
            runs += 1

        assert (sorted(told), runs) == (sorted([ids[0], ids[4]]), 5)

    async def test_two_checks_at_once_are_one(self, vault: Vault) -> None:
        ids = await vault.put(2)
        tell = FaultEvents(build_event_writer(SystemClock()))
        async with open_upkeep(vault.settings) as other:
            await other.check(tell)
            await vault.swap(*ids)
            await check_sealed(vault.settings, None, None)

        assert await vault.actions() == []

    async def test_a_column_that_is_not_known_begins_anew(self, vault: Vault) -> None:
        ids = await vault.put(2)
        await vault.swap(*ids)

        await check_sealed(vault.settings, "gone.secret", str(max(ids)))

        assert await vault.actions() == ["secret.unreadable"] * 2

    async def test_swapped_ones_are_not_handed_over(self, vault: Vault) -> None:
        ids = await vault.put(3)
        await vault.swap(ids[0], ids[1])
        await vault.new_key()

        await rewrap_sealed(vault.settings)

        sealer = build_sealer(vault.settings)
        for row in (await vault.rows())[:2]:
            assert key_id_of(row["secret"]).hex() == vault.derived
            with pytest.raises(SecretUnreadableError):
                sealer.open(row["secret"], SECRET.place(row["id"], row["tenant_id"]))


class TestRetiring:
    async def test_from_the_first_key_to_the_third(self, vault: Vault) -> None:
        await vault.put(2)
        first = await vault.new_key()
        await rewrap_sealed(vault.settings)
        second = await vault.new_key()
        await rewrap_sealed(vault.settings)

        where = [
            await retire_key(vault.settings, key_id, may_lose=False)
            for key_id in (first, vault.derived)
        ]

        assert where == ["file", "MAAS_SECRET_KEY"]
        kept = read_key_file(key_file_path(vault.settings))
        assert ([key.id for key in kept.keys], kept.current) == ([second], second)
        assert [(line.id, line.state, line.values) for line in await list_keys(vault.settings)] == [
            (second, "current", 4),
            (vault.derived, "retired", 0),
        ]
        assert sorted(await vault.actions()) == [
            "sealing_key.added",
            "sealing_key.added",
            "sealing_key.retired",
            "sealing_key.retired",
            "sealing_key.rotated",
            "sealing_key.rotated",
        ]
        assert await vault.opened() == {PLAIN}

    async def test_a_key_that_is_needed_stays(self, vault: Vault) -> None:
        await vault.put(2)
        current = await vault.new_key()

        with pytest.raises(KeyChangeRefusedError, match="4 values"):
            await retire_key(vault.settings, vault.derived, may_lose=True)
        with pytest.raises(KeyChangeRefusedError, match="before the current"):
            await retire_key(vault.settings, current, may_lose=True)

        assert await vault.superuser.fetchval("SELECT count(*) FROM sealing_retired_keys") == 0
        assert "sealing_key.retired" not in await vault.actions()

    async def test_what_it_does_not_open_has_to_be_given_up(self, vault: Vault) -> None:
        ids = await vault.put(2)
        await vault.swap(ids[0], ids[1])
        await vault.new_key()
        await rewrap_sealed(vault.settings)

        with pytest.raises(KeyChangeRefusedError, match="--lose-unreadable"):
            await retire_key(vault.settings, vault.derived, may_lose=False)
        await retire_key(vault.settings, vault.derived, may_lose=True)

        [event] = [e for e in await vault.events() if e["action"] == "sealing_key.retired"]
        assert event["changes"]["after"] == {"lost_secrets": 2}

    async def test_a_row_that_holds_a_lost_one_can_still_be_given_a_new_one(
        self, vault: Vault
    ) -> None:
        [row_id] = await vault.put()
        [other] = await vault.put()
        await vault.superuser.execute(
            "UPDATE audit_webhooks AS t SET previous_secret = f.previous_secret"
            " FROM audit_webhooks AS f WHERE t.id = $1 AND f.id = $2",
            *(row_id, other),
        )
        await vault.new_key()
        await rewrap_sealed(vault.settings)
        await retire_key(vault.settings, vault.derived, may_lose=True)
        sealed = build_sealer(vault.settings).seal(PLAIN, SECRET.place(row_id, DEFAULT_TENANT_ID))

        done = await vault.superuser.execute(
            "UPDATE audit_webhooks SET secret = $1 WHERE id = $2", sealed, row_id
        )

        assert done == "UPDATE 1"

    async def test_a_writer_who_began_before_is_waited_for_and_counted(
        self, vault: Vault, late_writer: Superuser
    ) -> None:
        [row_id] = await vault.put()
        [before] = await vault.rows()
        await vault.new_key()
        await rewrap_sealed(vault.settings)
        # It sealed a moment before the rotation, and writes now.
        await late_writer.execute(
            "UPDATE audit_webhooks SET secret = $2 WHERE id = $1", row_id, before["secret"]
        )

        retiring = asyncio.create_task(retire_key(vault.settings, vault.derived, may_lose=False))
        await until_blocked(vault.superuser)
        await late_writer.execute("COMMIT")

        with pytest.raises(KeyChangeRefusedError, match="1 values"):
            await retiring
        await rewrap_sealed(vault.settings)
        await retire_key(vault.settings, vault.derived, may_lose=False)
        assert await vault.opened() == {PLAIN}

    async def test_a_writer_who_comes_later_is_refused(
        self, vault: Vault, late_writer: Superuser
    ) -> None:
        [row_id] = await vault.put()
        [before] = await vault.rows()
        await vault.new_key()
        await rewrap_sealed(vault.settings)
        await retire_key(vault.settings, vault.derived, may_lose=False)

        with pytest.raises(asyncpg.PostgresError, match="retired") as caught:
            await late_writer.execute(
                "UPDATE audit_webhooks SET secret = $2 WHERE id = $1", row_id, before["secret"]
            )
        problem = problem_of_outage(caught.value)
        assert problem is not None
        assert (problem.status, problem.code) == (503, "sealing-key-retired")
        assert problem.headers == {"Retry-After": "1"}


class TestLostKeys:
    async def test_a_process_that_would_seal_under_a_retired_key_is_told_of(
        self, vault: Vault, tmp_path: Path
    ) -> None:
        await vault.put()
        await vault.new_key()
        await rewrap_sealed(vault.settings)
        before = await find_key_faults(vault.settings)
        await retire_key(vault.settings, vault.derived, may_lose=False)
        astray = vault.settings.model_copy(update={"data_dir": tmp_path / "empty"})

        [fault] = await find_key_faults(astray)
        states = [(line.id, line.state) for line in await list_keys(astray)]
        errors = [each.text for each in await examine(astray) if each.level == "error"]

        assert (before, await find_key_faults(vault.settings)) == ([], [])
        assert f"{vault.derived} is retired" in fault
        assert str(key_file_path(astray)) in fault
        assert (vault.derived, "refused") in states
        assert fault in errors

    async def test_values_under_keys_that_are_not_here_are_counted_by_the_doctor(
        self, vault: Vault, tmp_path: Path
    ) -> None:
        await vault.put(2)
        await vault.new_key()
        await rewrap_sealed(vault.settings)
        astray = vault.settings.model_copy(update={"data_dir": tmp_path / "empty"})

        here, there = await examine(vault.settings), await examine(astray)

        assert not any("sealed under keys" in each.text for each in here if each.level == "error")
        [error] = [each.text for each in there if each.level == "error"]
        assert "4 kept secrets are sealed under keys that are not here" in error

    async def test_keys_that_cannot_be_used_are_told(self, vault: Vault, tmp_path: Path) -> None:
        sealing = vault.settings.sealing.model_copy(update={"keys_file": tmp_path / "gone.json"})
        settings = vault.settings.model_copy(update={"sealing": sealing})

        [fault] = await find_key_faults(settings)

        assert fault.startswith("MAAS_SEALING__KEYS_FILE: ")
        assert fault in [each.text for each in await examine(settings) if each.level == "error"]

    async def test_a_file_that_others_may_read_is_warned_of(self, vault: Vault) -> None:
        await vault.new_key()
        key_file_path(vault.settings).chmod(0o644)

        findings = await examine(vault.settings)

        assert "0600" in next(each.text for each in findings if "may be read" in each.text)
