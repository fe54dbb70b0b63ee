"""Uploads that must not stay: who may end them, how many there may be, what renews them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from maas.model.application.uploads import NewUpload
from maas.model.application.wanted_file import WantedFile
from maas.model.domain.file import FilePath
from maas.model.domain.resumable import (
    ResumableUpload,
    TooManyUploadsError,
    UploadId,
    UploadNotFoundError,
    UploadsUnderWayError,
)
from maas.shared.domain.principal import Principal
from tests.integration.model.conftest import Registry, acting_as, make_principal
from tests.integration.model.test_files import CONTENT, NAME, incoming, make_draft
from tests.integration.model.test_uploads import Sending

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

WRITER = frozenset({"model:read", "model:write", "model:delete"})


@pytest.fixture
def principal() -> Principal:
    """Who owns the model, and manages none."""
    return replace(make_principal(), permissions=WRITER)


@pytest.fixture
async def sending(registry: Registry, principal: Principal) -> Sending:
    return Sending(registry, await make_draft(registry, principal), principal)


def colleague(sending: Sending, permissions: frozenset[str] = WRITER) -> Principal:
    return replace(make_principal(sending.principal.tenant_id), permissions=permissions)


async def nothing() -> AsyncIterator[bytes]:
    for none in list[bytes]():
        yield none


class TestEnd:
    async def test_who_owns_the_model_is_told_of_all_and_ends_them(self, sending: Sending) -> None:
        await sending.draft.take(incoming(b"small", path=FilePath("small")))
        theirs = replace(sending, principal=colleague(sending))
        upload = await theirs.begin()
        await theirs.send(upload, CONTENT[:100])

        with pytest.raises(UploadsUnderWayError) as refused:
            await sending.draft.move("ready")
        assert refused.value.extensions == {"uploads": [str(upload)]}
        await sending.end(upload)

        await sending.draft.move("ready")
        with pytest.raises(UploadNotFoundError):
            await theirs.look(upload)
        assert sending.files() == 1

    @pytest.mark.parametrize(
        ("permissions", "may"), [(WRITER, False), (WRITER | {"model:manage"}, True)]
    )
    async def test_of_all_others_only_managers_end_it(
        self, sending: Sending, permissions: frozenset[str], *, may: bool
    ) -> None:
        upload = await sending.begin()
        other = replace(sending, principal=colleague(sending, permissions))
        stranger = replace(sending, principal=make_principal())

        with pytest.raises(UploadNotFoundError):
            await stranger.end(upload)
        if may:
            await other.end(upload)
        else:
            with pytest.raises(UploadNotFoundError):
                await other.end(upload)
            await sending.look(upload)

    async def test_a_part_of_a_file_is_for_who_began_it_alone(self, sending: Sending) -> None:
        theirs = replace(sending, principal=colleague(sending, WRITER | {"model:manage"}))
        upload = await theirs.begin(5, partial=True)

        with pytest.raises(UploadNotFoundError):
            await sending.end(upload)

        await theirs.end(upload)


class TestExpiry:
    async def test_only_bytes_put_it_off(self, sending: Sending) -> None:
        begun = await sending.look(await sending.begin())

        for size in (0, None):
            await sending.send(begun.id, b"", size=size, body=nothing())
            assert (await sending.look(begun.id)).expires_at == begun.expires_at

        await sending.send(begun.id, b"x")
        assert (await sending.look(begun.id)).expires_at > begun.expires_at


class TestHowMany:
    async def test_of_many_at_once_no_more_than_allowed_are_begun(
        self, sending: Sending, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("maas.model.application.uploads.MAX_UPLOADS_EACH", 3)

        done = await asyncio.gather(
            *(sending.begin(5, partial=True) for _ in range(8)), return_exceptions=True
        )

        assert sum(isinstance(error, TooManyUploadsError) for error in done) == 5
        assert sum(not isinstance(error, BaseException) for error in done) == 3


class TestPutTogether:
    async def test_the_same_parts_are_no_other_file(self, sending: Sending) -> None:
        part = await sending.begin(len(CONTENT), partial=True)
        await sending.send(part, CONTENT)

        async def put_together(path: str) -> ResumableUpload:
            wanted = WantedFile(
                model_id=sending.draft.model_id, version=NAME, path=FilePath(path),
                media_type="application/octet-stream", sha256=None,
            )  # fmt: skip
            parts: list[UploadId] = [part]
            new = NewUpload(length=0, wanted=wanted, metadata=f"path {path}", concat="final;x")
            async with acting_as(sending.principal):
                return await sending.registry.uploads.concatenate(sending.principal, new, parts)

        one = await put_together("one")
        again = await put_together("one")
        with pytest.raises(UploadNotFoundError):
            await put_together("two")

        assert (one.state, again.id) == ("done", one.id)
