"""Files in far more parts than need be, and uploads that end while they are completed."""

from collections.abc import Sequence
from dataclasses import replace

import asyncpg
import pytest

from maas.model.application import chunks as chunks_module
from maas.model.application.ports import CorruptBlobError
from maas.model.domain.blob import Digest, Part
from maas.model.domain.resumable import UploadId, UploadInPiecesError, UploadNotFoundError
from maas.shared.domain.principal import Principal
from tests.integration.model.conftest import PART_BYTES, Registry, acting_as, make_principal
from tests.integration.model.test_digesting import leave_verifying
from tests.integration.model.test_files import CONTENT, NAME, PATH, incoming, make_draft
from tests.integration.model.test_uploads import Sending
from tests.integration.user.charging import make_tenant

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
async def sending(registry: Registry, principal: Principal) -> Sending:
    return Sending(registry, await make_draft(registry, principal), principal)


async def test_fewer_parts_are_kept_instead_while_others_read_on(
    registry: Registry, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    ada = make_principal(await make_tenant(superuser))
    bo = make_principal(await make_tenant(superuser))
    scattering = await make_draft(replace(registry, part_bytes=PART_BYTES // 32), ada)
    await scattering.take(incoming())
    async with acting_as(ada):
        files = registry.files
        stored = await files.find_stored(ada, scattering.model_id, NAME, PATH)
        reading = files.read(ada, stored, start=0, stop=len(CONTENT))
        read = await anext(reading)
        draft = await make_draft(registry, bo)

        await draft.take(incoming())

        read += b"".join([chunk async for chunk in reading])
    kept = await superuser.fetchval("SELECT count(*) FROM blob_parts")
    assert kept == -(-len(CONTENT) // PART_BYTES)
    assert read == CONTENT
    assert await scattering.read() == CONTENT


async def test_what_came_in_too_many_pieces_is_not_put_together(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks_module, "SPARE_PARTS", 2)
    partials = [await sending.begin(2, partial=True) for _ in range(3)]
    for partial in partials:
        for offset in range(2):
            await sending.send(partial, b"x", offset=offset)

    with pytest.raises(UploadInPiecesError):
        await sending.concatenate(*partials)

    assert (await sending.concatenate(*partials[:2])).state == "done"


async def test_an_upload_that_was_ended_is_not_completed(
    sending: Sending, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    upload_id = await leave_verifying(sending, superuser)
    upload = await sending.look(upload_id)
    await sending.end(upload_id)

    with pytest.raises(UploadNotFoundError):
        await sending.registry.completion.complete(upload, None)


class EndsMeanwhile:
    """Finds the parts gone, for somebody ends the upload while it reads them."""

    def __init__(self, sending: Sending, upload_id: UploadId) -> None:
        self._sending, self._upload_id = sending, upload_id

    async def digest(self, parts: Sequence[Part]) -> Digest:  # noqa: ARG002  the port's
        await self._sending.end(self._upload_id)
        raise CorruptBlobError


async def test_parts_of_an_upload_that_was_ended_are_not_called_damaged(
    sending: Sending, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    upload_id = await leave_verifying(sending, superuser)
    upload = await sending.look(upload_id)
    ending = replace(sending.registry.completion, digester=EndsMeanwhile(sending, upload_id))

    with pytest.raises(UploadNotFoundError):
        await ending.complete(upload, None)
