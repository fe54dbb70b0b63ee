"""Taking files in, over the real database: whatever fails, the version is as before."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import asyncpg
import pytest
from typing_extensions import override

from maas.model.application.files import IncomingFile
from maas.model.application.ingestion import TakenFile
from maas.model.application.models import NewModel
from maas.model.application.ports import BodyCutOffError, FileTooLargeError
from maas.model.application.versions import NewVersion
from maas.model.domain import version as version_module
from maas.model.domain.blob import Digest, DigestMismatchError
from maas.model.domain.file import FilePath
from maas.model.domain.formats import PickleRefusedError
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.text import ModelName, VersionName
from maas.model.domain.version import (
    FilePathConflictError,
    TooManyFilesError,
    VersionFrozenError,
    VersionNotFoundError,
)
from maas.model.infrastructure.repositories import SqlModelUnitOfWork
from maas.model.public import ModelId
from maas.shared.domain.principal import Principal
from tests.integration.model.conftest import (
    MAX_FILE_BYTES,
    PART_BYTES,
    Registry,
    acting_as,
    make_principal,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

CONTENT = os.urandom(2 * PART_BYTES + 1)
NAME = VersionName("1.0.0")
PATH = FilePath("weights/model.bin")


async def chunks_of(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 50_000):
        yield content[start : start + 50_000]


def expect_nothing(_there: Digest | None) -> None:
    """Let the file go, whatever is there."""


def incoming(content: bytes = CONTENT, **overrides: object) -> IncomingFile:
    values: dict[str, object] = {
        "path": PATH,
        "media_type": "application/octet-stream",
        "size": len(content),
        "digests": frozenset(),
        "body": chunks_of(content),
        "check": expect_nothing,
    }
    return IncomingFile(**{**values, **overrides})  # type: ignore[arg-type]  # stated by the test


@dataclass(frozen=True)
class Draft:
    """A pending version to put files into."""

    registry: Registry
    principal: Principal
    model_id: ModelId
    name: VersionName = NAME

    async def take(self, file: IncomingFile) -> TakenFile:
        async with acting_as(self.principal):
            return await self.registry.files.take(self.principal, self.model_id, self.name, file)

    async def read(self, path: FilePath = PATH) -> bytes:
        async with acting_as(self.principal):
            files = self.registry.files
            stored = await files.find_stored(self.principal, self.model_id, self.name, path)
            chunks = files.read(self.principal, stored, start=0, stop=stored.blob.size)
            return b"".join([chunk async for chunk in chunks])

    async def move(self, status: object) -> None:
        async with acting_as(self.principal):
            await self.registry.versions.move(
                self.principal,
                self.model_id,
                self.name,
                status,  # type: ignore[arg-type]  # stated by the test
                reason=None,
                check=lambda _: None,
            )

    async def status(self) -> tuple[str, int]:
        found = await self.registry.queries.get_version(self.principal, self.model_id, self.name)
        return found.status, found.file_count


async def make_draft(registry: Registry, principal: Principal) -> Draft:
    new = NewModel(
        name=ModelName("org/name"), framework="gguf", description=None, task=None, licence=None
    )
    async with acting_as(principal):
        model = await registry.models.register(principal, new)
        draft = Draft(registry, principal, model.id)
        await registry.versions.create(
            principal, model.id, NewVersion(name=draft.name, description=None)
        )
    return draft


@pytest.fixture
async def draft(registry: Registry, principal: Principal) -> Draft:
    return await make_draft(registry, principal)


class LosesTheAnswer(SqlModelUnitOfWork):
    """Commits, then fails as if the connection had broken before the answer came."""

    @override
    async def commit(self, result: object = None) -> None:
        await super().commit(result)
        raise ConnectionResetError


class TestTake:
    async def test_the_file_is_there_and_the_version_uploading(self, draft: Draft) -> None:
        taken = await draft.take(incoming())

        assert taken.is_new
        assert taken.file.size == len(CONTENT)
        assert await draft.read() == CONTENT
        assert await draft.status() == ("uploading", 1)

    async def test_an_empty_file_is_a_file(self, draft: Draft) -> None:
        await draft.take(incoming(b""))

        assert await draft.read() == b""

    async def test_only_the_files_that_it_can_meet_are_loaded(
        self, draft: Draft, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = ["a/b/c", "a/b/d", "a/bc", "a%", "a", "e"]
        monkeypatch.setattr(version_module, "MAX_FILES", len(there) - 1)
        for path in there[:4]:
            await draft.take(incoming(b"x", path=FilePath(path)))
        with pytest.raises(FilePathConflictError):
            await draft.take(incoming(b"x", path=FilePath(there[4])))
        await draft.take(incoming(b"x", path=FilePath(there[5])))

        loaded = {}
        for path in ("a/b", "a/b/c", "a/b/c/d/e", "a_", "f"):
            async with acting_as(draft.principal), draft.registry.make_unit_of_work() as uow:
                found = await uow.versions.get(draft.model_id, NAME, near=FilePath(path))
                loaded[path] = {str(file) for file in found.files}

        assert loaded == {
            "a/b": {"a/b/c", "a/b/d"},
            "a/b/c": {"a/b/c"},
            "a/b/c/d/e": {"a/b/c"},
            "a_": set(),
            "f": set(),
        }
        for path in ("a/b", "a/b/c/d/e"):
            with pytest.raises(TooManyFilesError):
                await draft.take(incoming(b"x", path=FilePath(path)))
        await draft.take(incoming(b"y", path=FilePath("a/b/c")))
        assert await draft.status() == ("uploading", 5)
        await draft.move("ready")

    async def test_no_connection_is_held_while_bytes_stream(self, draft: Draft) -> None:
        held: list[int] = []

        async def watching() -> AsyncIterator[bytes]:
            async for chunk in chunks_of(CONTENT):
                held.append(draft.registry.database.engine.pool.checkedout())  # type: ignore[attr-defined]  # a QueuePool
                yield chunk

        await draft.take(incoming(body=watching()))

        assert set(held) == {0}

    @pytest.mark.parametrize(
        ("make", "error"),
        [
            (lambda: incoming(digests=frozenset({Digest(bytes(32))})), DigestMismatchError),
            (lambda: incoming(size=len(CONTENT) + 1), BodyCutOffError),
            (lambda: incoming(b"\x80\x04\x95" + CONTENT), PickleRefusedError),
            (lambda: incoming(size=MAX_FILE_BYTES + 1), FileTooLargeError),
            (lambda: incoming(os.urandom(MAX_FILE_BYTES + 1), size=None), FileTooLargeError),
        ],
    )
    async def test_what_will_not_do_leaves_everything_as_before(
        self, draft: Draft, make: Callable[[], IncomingFile], error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            await draft.take(make())

        assert draft.registry.stored() in ([], [draft.registry.folder / "parts"])
        assert await draft.status() == ("pending", 0)

    async def test_a_database_that_fails_leaves_everything_as_before(self, draft: Draft) -> None:
        await draft.take(incoming(b"before"))
        draft.registry.audit.error = asyncpg.InternalServerError("out of luck")
        before = draft.registry.stored()

        with pytest.raises(asyncpg.InternalServerError):
            await draft.take(incoming())

        assert draft.registry.stored() == before
        assert await draft.read() == b"before"

    async def test_a_task_cancelled_in_its_commit_leaves_everything_as_before(
        self, draft: Draft
    ) -> None:
        draft.registry.audit.error = asyncio.CancelledError()

        with pytest.raises(asyncio.CancelledError):
            await draft.take(incoming())

        assert not [path for path in draft.registry.stored() if path.is_file()]
        assert await draft.status() == ("pending", 0)

    async def test_a_commit_whose_answer_is_lost_keeps_its_parts(self, draft: Draft) -> None:
        draft.registry.unit_of_work = LosesTheAnswer

        with pytest.raises(ConnectionResetError):
            await draft.take(incoming())

        assert await draft.read() == CONTENT

    async def test_a_version_that_froze_meanwhile_is_not_changed(self, draft: Draft) -> None:
        await draft.take(incoming(b"before"))

        async def freezing() -> AsyncIterator[bytes]:
            yield CONTENT
            await draft.move("ready")

        with pytest.raises(VersionFrozenError):
            await draft.take(incoming(size=None, body=freezing()))

        assert await draft.read() == b"before"
        assert len([path for path in draft.registry.stored() if path.is_file()]) == 1

    async def test_a_frozen_version_is_refused_before_the_body_is_read(self, draft: Draft) -> None:
        await draft.take(incoming())
        await draft.move("ready")

        was_read = False

        async def watched() -> AsyncIterator[bytes]:
            nonlocal was_read
            was_read = True
            yield CONTENT

        with pytest.raises(VersionFrozenError):
            await draft.take(incoming(body=watched()))

        assert not was_read

    async def test_another_tenant_finds_no_version(self, draft: Draft) -> None:
        stranger = Draft(draft.registry, make_principal(), draft.model_id)

        with pytest.raises(ModelNotFoundError):
            await stranger.take(incoming())

    async def test_an_unknown_version_is_told_from_an_unknown_model(self, draft: Draft) -> None:
        other = Draft(draft.registry, draft.principal, draft.model_id, VersionName("2"))

        with pytest.raises(VersionNotFoundError):
            await other.take(incoming())


class TestSharing:
    async def test_the_same_bytes_are_kept_once(self, draft: Draft) -> None:
        await draft.take(incoming())
        before = draft.registry.stored()

        again = await draft.take(incoming(path=FilePath("copy")))

        assert again.is_new
        assert draft.registry.stored() == before
        assert await draft.read(FilePath("copy")) == CONTENT

    async def test_two_tenants_share_bytes_and_see_only_their_own(
        self, registry: Registry, draft: Draft
    ) -> None:
        other = await make_draft(registry, make_principal())

        await asyncio.gather(draft.take(incoming()), other.take(incoming()))

        assert len([path for path in registry.stored() if path.is_file()]) == 3
        assert await draft.read() == await other.read() == CONTENT

    async def test_uploads_of_one_path_at_once_leave_no_orphans(
        self, draft: Draft, superuser: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        contents = [os.urandom(PART_BYTES + number) for number in range(6)]

        taken = await asyncio.gather(*(draft.take(incoming(content)) for content in contents))

        kept = {row["key"] for row in await superuser.fetch("SELECT key FROM blob_parts")}
        on_disk = {
            str(path.relative_to(draft.registry.folder))
            for path in draft.registry.stored()
            if path.is_file()
        }
        assert [one.is_new for one in taken].count(True) == 1
        assert await draft.read() in contents
        assert kept == on_disk
        assert await draft.status() == ("uploading", 1)


class TestRemove:
    async def test_a_removed_file_is_gone(self, draft: Draft) -> None:
        await draft.take(incoming())

        async with acting_as(draft.principal):
            await draft.registry.files.remove(
                draft.model_id, draft.name, PATH, check=expect_nothing
            )

        assert await draft.status() == ("uploading", 0)
