"""Uploads in pieces, over the real database and a folder: what was acknowledged is never lost."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest

from maas.audit.public import current_scope
from maas.model.application.chunks import Chunk
from maas.model.application.known_digests import KnownDigests
from maas.model.application.ports import BodyCutOffError, FileTooLargeError
from maas.model.application.uploads import NewUpload
from maas.model.application.wanted_file import WantedFile
from maas.model.domain.blob import Digest, DigestMismatchError
from maas.model.domain.file import FilePath
from maas.model.domain.formats import PickleRefusedError
from maas.model.domain.resumable import (
    ChunkChecksumError,
    FinalUploadError,
    ResumableUpload,
    UploadEndedError,
    UploadId,
    UploadNotFoundError,
    UploadOffsetError,
    UploadsUnderWayError,
    UploadTakenOverError,
    UploadUnfinishedError,
)
from maas.shared.domain.ids import AccountId, new_id
from maas.shared.domain.principal import Principal
from tests.integration.model.conftest import MAX_FILE_BYTES, PART_BYTES, Registry, acting_as
from tests.integration.model.test_files import (
    CONTENT,
    NAME,
    PATH,
    Draft,
    chunks_of,
    incoming,
    make_draft,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@dataclass
class Sending:
    """A version, and uploads into it as its principal begins and goes on with them."""

    registry: Registry
    draft: Draft
    principal: Principal

    async def begin(
        self,
        length: int = len(CONTENT),
        *,
        sha256: Digest | None = None,
        partial: bool = False,
        path: FilePath = PATH,
    ) -> UploadId:
        wanted = WantedFile(
            model_id=self.draft.model_id,
            version=NAME,
            path=path,
            media_type="application/octet-stream",
            sha256=sha256,
        )
        new = NewUpload(length=length, wanted=None if partial else wanted, metadata=None)
        async with acting_as(self.principal):
            return (await self.registry.uploads.create(self.principal, new)).id

    async def concatenate(self, *partials: UploadId) -> ResumableUpload:
        wanted = WantedFile(
            model_id=self.draft.model_id,
            version=NAME,
            path=PATH,
            media_type="application/octet-stream",
            sha256=None,
        )
        concat = "final;" + " ".join(map(str, partials))
        new = NewUpload(length=0, wanted=wanted, metadata=None, concat=concat)
        async with acting_as(self.principal):
            return await self.registry.uploads.concatenate(self.principal, new, partials)

    async def send(
        self, upload_id: UploadId, content: bytes, *, offset: int = 0, **parts: Any
    ) -> ResumableUpload:
        chunk: dict[str, Any] = {
            "offset": offset,
            "size": len(content),
            "checksum": None,
            "body": chunks_of(content),
        }
        async with acting_as(self.principal):
            return await self.registry.chunks.append(
                self.principal, upload_id, Chunk(**{**chunk, **parts})
            )

    async def look(self, upload_id: UploadId) -> ResumableUpload:
        return await self.registry.uploads.get(self.principal, upload_id)

    async def end(self, upload_id: UploadId) -> None:
        async with acting_as(self.principal):
            await self.registry.uploads.end(self.principal, upload_id)

    def files(self) -> int:
        return sum(path.is_file() for path in self.registry.stored())


@pytest.fixture
async def sending(registry: Registry, principal: Principal) -> Sending:
    return Sending(registry, await make_draft(registry, principal), principal)


async def cut_off(content: bytes) -> AsyncIterator[bytes]:
    async for chunk in chunks_of(content):
        yield chunk
    raise BodyCutOffError


class TestAppend:
    async def test_the_last_byte_makes_the_file(self, sending: Sending) -> None:
        upload = await sending.begin()

        half = await sending.send(upload, CONTENT[:1000])
        whole = await sending.send(upload, CONTENT[1000:], offset=1000)

        assert (half.state, half.offset) == ("uploading", 1000)
        assert (whole.state, whole.offset) == ("done", len(CONTENT))
        assert await sending.draft.read() == CONTENT
        assert await sending.draft.status() == ("uploading", 1)

    async def test_an_empty_file_is_done_when_it_is_begun(self, sending: Sending) -> None:
        upload = await sending.begin(0)

        assert (await sending.look(upload)).state == "done"
        assert await sending.draft.read() == b""

    async def test_what_came_before_the_line_broke_counts(self, sending: Sending) -> None:
        upload, sent = await sending.begin(), PART_BYTES + 7

        with pytest.raises(BodyCutOffError):
            await sending.send(upload, b"", body=cut_off(CONTENT[:sent]), size=None)

        # The first 64 KiB are held back to be looked at, which does not lose what follows them.
        assert (await sending.look(upload)).offset == sent
        await sending.send(upload, CONTENT[sent:], offset=sent)
        assert await sending.draft.read() == CONTENT

    async def test_another_process_goes_on_with_it(self, sending: Sending) -> None:
        upload = await sending.begin()
        await sending.send(upload, CONTENT[:1000])
        sending.registry.known = KnownDigests()

        whole = await sending.send(upload, CONTENT[1000:], offset=1000)

        assert whole.state == "done"
        assert await sending.draft.read() == CONTENT

    async def test_a_cancelled_request_leaves_its_whole_parts(self, sending: Sending) -> None:
        upload = await sending.begin()
        stuck = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield CONTENT[: 2 * PART_BYTES]
            await stuck.wait()

        request = asyncio.create_task(sending.send(upload, b"", body=body(), size=None))
        async with asyncio.timeout(10):
            while (await sending.look(upload)).offset < PART_BYTES:  # noqa: ASYNC110  a row tells nobody
                await asyncio.sleep(0.01)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

        known = (await sending.look(upload)).offset
        await sending.send(upload, CONTENT[known:], offset=known)
        assert await sending.draft.read() == CONTENT
        assert sending.files() == len(CONTENT) // PART_BYTES + 1

    async def test_the_wrong_offset_adds_nothing(self, sending: Sending) -> None:
        upload = await sending.begin()
        await sending.send(upload, CONTENT[:10])

        with pytest.raises(UploadOffsetError) as caught:
            await sending.send(upload, CONTENT[:10])

        assert caught.value.offset == 10
        assert (await sending.look(upload)).offset == 10

    async def test_more_than_was_announced_is_refused(self, sending: Sending) -> None:
        upload = await sending.begin(10)

        with pytest.raises(FileTooLargeError):
            await sending.send(upload, bytes(11))
        with pytest.raises(FileTooLargeError):
            await sending.send(upload, bytes(11), size=None)

        assert (await sending.look(upload)).offset == 0
        assert sending.files() == 0

    async def test_a_later_request_takes_over_from_an_earlier_one(self, sending: Sending) -> None:
        upload = await sending.begin()
        stuck, has_begun = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield bytes(PART_BYTES)
            has_begun.set()
            await stuck.wait()
            yield bytes(1)

        earlier = asyncio.create_task(sending.send(upload, b"", body=body(), size=None))
        await has_begun.wait()
        later = await sending.send(upload, CONTENT)
        stuck.set()

        with pytest.raises(UploadTakenOverError):
            await earlier
        assert later.state == "done"
        assert await sending.draft.read() == CONTENT

    @pytest.mark.parametrize("name", ["sha1", "sha256"])
    async def test_a_chunk_counts_with_its_checksum_alone(
        self, sending: Sending, name: str
    ) -> None:
        upload, chunk = await sending.begin(), CONTENT[: PART_BYTES + 9]
        right, wrong = hashlib.new(name, chunk).digest(), hashlib.new(name, b"").digest()

        with pytest.raises(ChunkChecksumError):
            await sending.send(upload, chunk, checksum=(name, wrong))
        refused = await sending.look(upload)
        left = sending.files()
        taken = await sending.send(upload, chunk, checksum=(name, right))

        assert (refused.offset, left) == (0, 0)
        assert taken.offset == len(chunk)
        await sending.send(upload, CONTENT[len(chunk) :], offset=len(chunk))
        assert await sending.draft.read() == CONTENT


class TestRefusal:
    async def test_other_bytes_than_announced_fail_and_leave_nothing(
        self, sending: Sending
    ) -> None:
        upload = await sending.begin(sha256=Digest(bytes(32)))

        with pytest.raises(DigestMismatchError):
            await sending.send(upload, CONTENT)

        failed = await sending.look(upload)
        assert (failed.state, failed.problem_code) == ("failed", "digest-mismatch")
        assert sending.files() == 0
        with pytest.raises(UploadEndedError):
            await sending.send(upload, CONTENT)

    @pytest.mark.parametrize("first", [1, 100_000])
    async def test_a_pickle_is_refused_however_it_is_cut(
        self, sending: Sending, first: int
    ) -> None:
        content = b"\x80\x04\x95" + CONTENT
        upload = await sending.begin(len(content))

        with pytest.raises(PickleRefusedError):  # noqa: PT012  by one of the two
            await sending.send(upload, content[:first])
            await sending.send(upload, content[first:], offset=first)

        assert (await sending.look(upload)).problem_code == "pickle-refused"
        assert sending.files() == 0

    async def test_a_version_waits_for_its_uploads(self, sending: Sending) -> None:
        await sending.draft.take(incoming(b"small", path=FilePath("small")))
        upload = await sending.begin()

        with pytest.raises(UploadsUnderWayError):
            await sending.draft.move("ready")
        await sending.end(upload)

        await sending.draft.move("ready")
        with pytest.raises(UploadNotFoundError):
            await sending.look(upload)

    async def test_what_is_longer_than_a_file_may_be_is_not_begun(self, sending: Sending) -> None:
        with pytest.raises(FileTooLargeError):
            await sending.begin(MAX_FILE_BYTES + 1)

    async def test_nobody_else_finds_it(self, sending: Sending) -> None:
        upload = await sending.begin()
        other = Principal(
            kind="account",
            account_id=sending.draft.model_id,  # type: ignore[arg-type]  # any other id
            tenant_id=sending.principal.tenant_id,
            username="bo",
            permissions=sending.principal.permissions,
            version=1,
        )

        with pytest.raises(UploadNotFoundError):
            await sending.registry.uploads.get(other, upload)


class TestConcatenation:
    async def test_parts_sent_beside_one_another_make_one_file(self, sending: Sending) -> None:
        cut = PART_BYTES + 11
        first = await sending.begin(cut, partial=True)
        second = await sending.begin(len(CONTENT) - cut, partial=True)
        await asyncio.gather(
            sending.send(second, CONTENT[cut:]), sending.send(first, CONTENT[:cut])
        )

        final = await sending.concatenate(first, second)
        again = await sending.concatenate(first, second)

        assert (final.state, final.length) == ("done", len(CONTENT))
        assert again.id == final.id
        assert await sending.draft.read() == CONTENT
        with pytest.raises(UploadNotFoundError):
            await sending.look(first)
        with pytest.raises(FinalUploadError):
            await sending.send(final.id, b"x", offset=len(CONTENT))

    async def test_what_is_not_complete_is_not_put_together(self, sending: Sending) -> None:
        first = await sending.begin(5, partial=True)

        with pytest.raises(UploadUnfinishedError):
            await sending.concatenate(first)

        assert (await sending.look(first)).kind == "partial"

    async def test_the_same_bytes_again_take_no_more_room(self, sending: Sending) -> None:
        await sending.send(await sending.begin(), CONTENT)
        before = sending.files()
        first = await sending.begin(10, partial=True)
        second = await sending.begin(len(CONTENT) - 10, partial=True)
        await sending.send(first, CONTENT[:10])
        await sending.send(second, CONTENT[10:])

        await sending.concatenate(first, second)

        assert sending.files() == before
        assert await sending.draft.read(FilePath(str(PATH))) == CONTENT


class TestBegunAgain:
    async def test_the_first_upload_is_ended(self, sending: Sending) -> None:
        lost = await sending.begin()
        await sending.send(lost, CONTENT[: PART_BYTES * 2])

        again = await sending.begin()

        assert sending.files() == 0
        with pytest.raises(UploadNotFoundError):
            await sending.look(lost)
        await sending.send(again, CONTENT)
        await sending.draft.move("ready")
        assert await sending.draft.read() == CONTENT

    async def test_whoever_is_still_sending_to_the_first_is_told(self, sending: Sending) -> None:
        first = await sending.begin()
        stuck, has_begun = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield bytes(PART_BYTES)
            has_begun.set()
            await stuck.wait()
            yield bytes(PART_BYTES)

        sender = asyncio.create_task(sending.send(first, b"", body=body(), size=None))
        await has_begun.wait()
        await sending.begin()
        stuck.set()

        with pytest.raises((UploadTakenOverError, UploadNotFoundError)):
            await sender
        assert sending.files() == 0

    async def test_of_many_at_once_one_stays(
        self, sending: Sending, superuser: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        await asyncio.gather(*(sending.begin() for _ in range(5)))

        assert await superuser.fetchval("SELECT count(*) FROM uploads") == 1

    async def test_putting_together_ends_it_too(self, sending: Sending) -> None:
        lost = await sending.begin()
        part = await sending.begin(len(CONTENT), partial=True)
        await sending.send(part, CONTENT)

        final = await sending.concatenate(part)

        assert final.state == "done"
        with pytest.raises(UploadNotFoundError):
            await sending.look(lost)

    async def test_other_paths_parts_and_people_go_on(self, sending: Sending) -> None:
        other_path = await sending.begin(path=FilePath("other"))
        part = await sending.begin(partial=True)
        colleague = replace(sending.principal, account_id=AccountId(new_id()))
        theirs = Sending(sending.registry, sending.draft, colleague)
        by_them = await theirs.begin()

        await sending.begin()

        assert (await sending.look(other_path)).state == "uploading"
        assert (await sending.look(part)).state == "uploading"
        assert (await theirs.look(by_them)).state == "uploading"

    async def test_what_is_refused_ends_nothing(self, sending: Sending) -> None:
        first = await sending.begin()

        with pytest.raises(UploadNotFoundError):
            await sending.concatenate(UploadId(new_id()))
        with pytest.raises(FileTooLargeError):
            await sending.begin(MAX_FILE_BYTES + 1)

        assert (await sending.look(first)).state == "uploading"

    async def test_it_is_in_the_trail(
        self, sending: Sending, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[tuple[str, str | None]] = []

        async def write(session: object, call: object) -> Callable[[], None]:
            del session, call
            told.extend((row.action, row.resource_id) for row in current_scope().rows)
            return lambda: None

        first = await sending.begin()
        monkeypatch.setattr(sending.registry.audit, "write", write)

        again = await sending.begin()

        assert told == [("model_upload.ended", str(first)), ("test.acted", str(again))]


class TestEnd:
    async def test_it_frees_what_was_stored(self, sending: Sending) -> None:
        upload = await sending.begin()
        await sending.send(upload, CONTENT[: PART_BYTES * 2])
        stored = sending.files()

        await sending.end(upload)

        assert (stored, sending.files()) == (2, 0)
        with pytest.raises(UploadNotFoundError):
            await sending.end(upload)

    async def test_a_file_it_has_become_stays(self, sending: Sending) -> None:
        upload = await sending.begin()
        await sending.send(upload, CONTENT)

        await sending.end(upload)

        assert await sending.draft.read() == CONTENT
