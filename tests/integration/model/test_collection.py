"""Freeing what nobody needs: killed anywhere, beside uploads of the same bytes, never too soon."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from maas.audit.public import AuditScope
from maas.model.application.collection import Collected, CollectionService, Progress
from maas.model.application.ports import StoredFolder
from maas.model.domain.blob import Upload
from maas.model.domain.file import FilePath
from maas.model.domain.model import ModelNotFoundError
from maas.model.infrastructure.artifacts import CollectableParts
from maas.model.infrastructure.collection import PostgresCollectionLedger, open_ledger
from maas.model.infrastructure.object_store import DurableObjects
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from tests.integration.model.conftest import PART_BYTES, Registry, acting_as, make_principal
from tests.integration.model.test_files import (
    CONTENT,
    PATH,
    Draft,
    chunks_of,
    expect_nothing,
    incoming,
    make_draft,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

OTHER = FilePath("other.bin")
DAYS_AGO = time.time() - 3 * 86_400
STEPS = 10
OLD_ID = "01900000-0000-7000-8000-00000000000{}"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@dataclass
class Told:
    """Takes the collection's events."""

    scopes: list[AuditScope] = field(default_factory=list)

    async def write(self, connection: Connection, scopes: Sequence[AuditScope]) -> None:  # noqa: ARG002  the port's
        self.scopes += scopes


@dataclass
class Life:
    """Ends at its `left`-th step; endless by default."""

    left: int = -1

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


class MortalParts(CollectableParts):
    """Deletes an object at a time, and may die before each, and before it can say so."""

    def __init__(self, objects: DurableObjects, life: Life) -> None:
        super().__init__(objects)
        self._life = life

    @override
    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._life.step()
            await super().delete([key])
        self._life.step()


class MortalLedger(PostgresCollectionLedger):
    """May die before each transaction, and after it."""

    def __init__(self, ledger: PostgresCollectionLedger, life: Life) -> None:
        vars(self).update(vars(ledger))
        self._life = life

    @override
    async def mark_unused(self, *, freed_before: datetime, after: int) -> tuple[int, int | None]:
        self._life.step()
        done = await super().mark_unused(freed_before=freed_before, after=after)
        self._life.step()
        return done

    @override
    async def mark_orphans(self, folders: Sequence[StoredFolder], *, progress: Progress) -> int:
        self._life.step()
        done = await super().mark_orphans(folders, progress=progress)
        self._life.step()
        return done

    @override
    async def forget_deleted(self, keys: Sequence[str]) -> None:
        self._life.step()
        await super().forget_deleted(keys)
        self._life.step()


@dataclass
class Collector:
    settings: Settings
    folder: Path
    told: Told = field(default_factory=Told)

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[PostgresCollectionLedger]:
        async with open_ledger(self.settings.database, events=self.told) as ledger:
            assert ledger is not None
            yield ledger

    async def run(
        self, *, grace: timedelta = timedelta(0), lives: int = -1, folders: int = 200
    ) -> Collected:
        objects, life = DurableObjects(self.folder.as_uri()), Life(lives)
        async with self.ledger() as ledger:
            service = CollectionService(
                ledger=MortalLedger(ledger, life),
                parts=MortalParts(objects, life),
                clock=SystemClock(),
                unused_grace=grace,
                keep_deleted=timedelta(days=30),
                folders_at_once=folders,
            )
            return await service.run(seconds=20)


@pytest.fixture
def collector(settings: Settings, folder: Path, database: Database) -> Collector:
    return Collector(settings, folder)


@pytest.fixture
async def draft(registry: Registry, principal: Principal) -> Draft:
    return await make_draft(registry, principal)


async def remove(draft: Draft, path: FilePath = PATH) -> None:
    async with acting_as(draft.principal):
        await draft.registry.files.remove(draft.model_id, draft.name, path, check=expect_nothing)


def objects_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


async def count(superuser: Connection, table: str) -> int:
    found: int = await superuser.fetchval(f"SELECT count(*) FROM {table}")
    return found


class TestUnused:
    async def test_what_no_file_has_is_freed(
        self, draft: Draft, collector: Collector, superuser: Connection
    ) -> None:
        await draft.take(incoming())
        await remove(draft)

        done = await collector.run()

        assert (done.blobs, done.parts) == (1, 3)
        assert objects_in(collector.folder) == []
        assert not list(collector.folder.glob("parts/*"))
        for table in ("blobs", "blob_parts", "freed_blobs", "doomed_parts"):
            assert await count(superuser, table) == 0

    async def test_the_last_file_of_any_tenant_keeps_its_bytes(
        self, registry: Registry, draft: Draft, collector: Collector
    ) -> None:
        other = await make_draft(registry, make_principal())
        await draft.take(incoming())
        await other.take(incoming())
        await remove(draft)

        kept = await collector.run()
        await remove(other)
        freed = await collector.run()

        assert (kept.blobs, freed.blobs) == (0, 1)
        assert objects_in(collector.folder) == []

    async def test_replaced_bytes_are_freed_and_the_new_ones_stay(
        self, draft: Draft, collector: Collector
    ) -> None:
        await draft.take(incoming())
        await draft.take(incoming(b"another"))

        await collector.run()

        assert len(objects_in(collector.folder)) == 1
        assert await draft.read() == b"another"

    async def test_a_deleted_version_frees_its_files(
        self, draft: Draft, collector: Collector
    ) -> None:
        await draft.take(incoming())
        async with acting_as(draft.principal):
            await draft.registry.versions.delete(draft.model_id, draft.name, check=lambda _: None)

        assert (await collector.run()).blobs == 1

    async def test_bytes_stay_for_their_grace_which_begins_anew(
        self, draft: Draft, collector: Collector, superuser: Connection
    ) -> None:
        hour = timedelta(hours=1)
        await draft.take(incoming())
        await remove(draft)
        early = await collector.run(grace=hour)
        await superuser.execute("UPDATE freed_blobs SET freed_at = freed_at - interval '2 hours'")
        await draft.take(incoming())
        await remove(draft)

        again = await collector.run(grace=hour)
        await superuser.execute("UPDATE freed_blobs SET freed_at = freed_at - interval '2 hours'")
        late = await collector.run(grace=hour)

        assert (early.blobs, again.blobs, late.blobs) == (0, 0, 1)

    async def test_only_one_collects_at_a_time(self, collector: Collector) -> None:
        async with (
            collector.ledger(),
            open_ledger(collector.settings.database, events=collector.told) as second,
        ):
            assert second is None


class TestKilled:
    async def test_wherever_it_dies_nothing_is_lost_and_the_next_run_does_the_rest(
        self, draft: Draft, collector: Collector, superuser: Connection
    ) -> None:
        await draft.take(incoming(b"stays", path=OTHER))
        for lives in range(1, STEPS + 1):
            await superuser.execute("DELETE FROM collection_progress")
            await draft.take(incoming())
            await remove(draft)

            with pytest.raises(Killed):
                await collector.run(lives=lives)
            between = await draft.read(OTHER)
            await draft.take(incoming())
            again = await draft.read()
            await remove(draft)
            await collector.run()

            assert (between, again) == (b"stays", CONTENT), lives
            assert len(objects_in(collector.folder)) == 1, lives
            assert await count(superuser, "doomed_parts") == 0, lives

    async def test_these_are_all_of_its_steps(self, draft: Draft, collector: Collector) -> None:
        await draft.take(incoming())
        await remove(draft)

        await collector.run(lives=STEPS + 1)

        assert objects_in(collector.folder) == []


class TestRaces:
    async def test_uploads_of_the_same_bytes_never_lose_them(
        self, draft: Draft, collector: Collector, superuser: Connection
    ) -> None:
        content = os.urandom(PART_BYTES + 1)
        is_done = False

        async def collect() -> None:
            while not is_done:
                await collector.run()

        collecting = asyncio.create_task(collect())
        for _ in range(6):
            await asyncio.gather(
                draft.take(incoming(content)), draft.take(incoming(content, path=OTHER))
            )
            assert await draft.read() == await draft.read(OTHER) == content
            await asyncio.gather(remove(draft), remove(draft, OTHER))
        await draft.take(incoming(content))
        is_done = True
        await collecting
        await collector.run()

        assert await draft.read() == content
        keys = {row["key"] for row in await superuser.fetch("SELECT key FROM blob_parts")}
        assert keys == set(objects_in(collector.folder))

    async def test_a_file_that_is_just_being_referred_to_keeps_its_bytes(
        self, draft: Draft, collector: Collector
    ) -> None:
        await draft.take(incoming())
        await remove(draft)
        store = draft.registry.store
        upload = await store.receive(chunks_of(CONTENT), limit_bytes=len(CONTENT))
        async with acting_as(draft.principal), draft.registry.make_unit_of_work() as uow:
            await uow.blobs.keep(upload.blob, at=SystemClock().now())

            during = await collector.run()

        after = await collector.run()
        assert (during.blobs, after.blobs) == (0, 1), "who rolls back leaves it to the next run"


class TestOrphans:
    def plant(self, folder: Path, name: str, *objects: str, changed_at: float = DAYS_AGO) -> Path:
        inside = folder / "parts" / name
        inside.mkdir(parents=True, exist_ok=True)
        for each in objects:
            (inside / each).write_bytes(b"left over")
            os.utime(inside / each, (changed_at, changed_at))
        os.utime(inside, (changed_at, changed_at))
        return inside

    async def test_old_parts_that_no_row_names_go_and_others_stay(
        self, draft: Draft, collector: Collector
    ) -> None:
        await draft.take(incoming())
        for path in collector.folder.rglob("*"):
            os.utime(path, (DAYS_AGO, DAYS_AGO))
        gone = self.plant(collector.folder, OLD_ID.format(1), "0", "1", "1.corrupt")
        halves = self.plant(collector.folder, OLD_ID.format(2), "0#1")
        young = self.plant(collector.folder, OLD_ID.format(3), "0", changed_at=time.time())
        foreign = self.plant(collector.folder, "01-not-ours", "0")

        await collector.run()

        assert not gone.exists()
        assert not halves.exists()
        assert young.exists()
        assert foreign.exists()
        assert await draft.read() == CONTENT

    async def test_a_pass_goes_on_where_the_one_before_stopped(self, collector: Collector) -> None:
        for number in range(5):
            self.plant(collector.folder, OLD_ID.format(number), "0")

        # The second slice's transaction is where it dies.
        with pytest.raises(Killed):
            await collector.run(lives=5, folders=2)
        await collector.run(folders=2)

        assert objects_in(collector.folder) == []

    async def test_another_pass_waits_for_a_day(
        self, collector: Collector, superuser: Connection
    ) -> None:
        await collector.run()
        self.plant(collector.folder, OLD_ID.format(1), "0")
        same_day = await collector.run()
        await superuser.execute(
            "UPDATE collection_progress SET began_at = began_at - interval '25 hours'"
        )

        next_day = await collector.run()

        assert (same_day.orphans, next_day.orphans) == (0, 1)

    async def test_an_upload_that_is_about_to_commit_is_left_alone(
        self, draft: Draft, collector: Collector
    ) -> None:
        upload, folder = await self.make_old_upload(draft)
        async with acting_as(draft.principal), draft.registry.make_unit_of_work() as uow:
            await uow.blobs.claim(upload.id)

            await collector.run()

        assert folder.exists()

    async def test_parts_that_were_given_up_are_refused(
        self, draft: Draft, collector: Collector
    ) -> None:
        upload, _ = await self.make_old_upload(draft)
        # It dies once they are marked, before they are deleted.
        with pytest.raises(Killed):
            await collector.run(lives=5)

        async with acting_as(draft.principal), draft.registry.make_unit_of_work() as uow:
            await uow.blobs.claim(upload.id)
            with pytest.raises(DBAPIError, match="given up"):
                await uow.blobs.keep(upload.blob, at=SystemClock().now())

    async def make_old_upload(self, draft: Draft) -> tuple[Upload, Path]:
        """Store parts under an id of long ago, as somebody who was stopped since would have."""
        store = draft.registry.store
        made = await store.receive(chunks_of(CONTENT), limit_bytes=len(CONTENT))
        new = draft.registry.folder / "parts" / str(made.id)
        old = new.rename(new.with_name(OLD_ID.format(9)))
        for path in (*old.iterdir(), old):
            os.utime(path, (DAYS_AGO, DAYS_AGO))
        parts = [
            replace(part, key=f"parts/{old.name}/{n}") for n, part in enumerate(made.blob.parts)
        ]
        return Upload(id=UUID(old.name), blob=replace(made.blob, parts=tuple(parts))), old


class TestDeletedModels:
    async def test_files_go_when_the_time_to_restore_is_over(
        self, registry: Registry, draft: Draft, collector: Collector, superuser: Connection
    ) -> None:
        recent = await make_draft(registry, make_principal())
        for each in (draft, recent):
            await each.take(incoming())
            async with acting_as(each.principal):
                await registry.models.delete(each.model_id, check=lambda _: None)
        await superuser.execute(
            "UPDATE models SET deleted_at = deleted_at - interval '31 days' WHERE id = $1",
            draft.model_id,
        )

        first, second = await collector.run(), await collector.run()

        assert (first.models, second.models) == (1, 0)
        assert [scope.action for scope in collector.told.scopes] == ["model.purged"]
        left = await superuser.fetch("SELECT tenant_id FROM version_files")
        assert [row["tenant_id"] for row in left] == [recent.principal.tenant_id]
        assert await superuser.fetchval("SELECT has_files FROM purged_models") is False
        async with acting_as(draft.principal):
            with pytest.raises(ModelNotFoundError):
                await registry.models.restore(draft.model_id, check=lambda _: None)
        async with acting_as(recent.principal):
            await registry.models.restore(recent.model_id, check=lambda _: None)
        assert await recent.read() == CONTENT
