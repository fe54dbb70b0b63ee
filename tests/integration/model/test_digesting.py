"""Uploads put together of parts: digested beside the worker, by one at a time, or failed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import asyncpg
import pytest
from typing_extensions import override

from maas.bootstrap import open_digests
from maas.model.application import digesting
from maas.model.application.digesting import DigestService
from maas.model.application.ports import ArtifactStoreUnavailableError
from maas.model.application.upload_completion import Completion
from maas.model.domain.blob import Digest, Part
from maas.model.domain.resumable import UploadId
from maas.model.infrastructure.verifying import PostgresVerifyingUploads
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.fakes.clock import FakeClock
from tests.fakes.recorder import make_call
from tests.integration.model.conftest import PART_BYTES, Registry, acting_as, make_principal
from tests.integration.model.test_files import CONTENT, make_draft
from tests.integration.model.test_uploads import Sending
from tests.integration.user.charging import make_tenant

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Away:
    """Digests nothing, as a store that does not answer at the moment."""

    async def digest(self, parts: Sequence[Part]) -> Digest:  # noqa: ARG002  the port's
        raise ArtifactStoreUnavailableError


@pytest.fixture
async def sending(registry: Registry, principal: Principal) -> Sending:
    return Sending(registry, await make_draft(registry, principal), principal)


@pytest.fixture
def digests(registry: Registry, settings: Settings) -> DigestService:
    return DigestService(
        verifying=PostgresVerifyingUploads(settings.database),
        journal=registry.journal,
        digester=registry.store,
        completion=registry.completion,
        recorder=make_call().recorder,
        clock=SystemClock(),
    )


async def leave_verifying(sending: Sending, superuser: Connection) -> UploadId:
    """Put an upload together while its digest cannot be computed."""
    halves = CONTENT[:PART_BYTES], CONTENT[PART_BYTES:]
    partials = []
    for half in halves:
        partials.append(await sending.begin(len(half), partial=True))
        await sending.send(partials[-1], half)
    registry = sending.registry
    sending.registry = WithoutDigests(**vars(registry))
    with pytest.raises(ArtifactStoreUnavailableError):
        await sending.concatenate(*partials)
    sending.registry = registry
    await superuser.execute("UPDATE uploads SET updated_at = updated_at - interval '1 minute'")
    return UploadId(
        await superuser.fetchval(
            "SELECT id FROM uploads WHERE kind = 'final' ORDER BY created_at DESC"
        )
    )


class WithoutDigests(Registry):
    @property
    @override
    def completion(self) -> Completion:
        return replace(super().completion, digester=Away())


async def state_of(superuser: Connection, upload_id: UploadId) -> tuple[str, str | None]:
    row = await superuser.fetchrow(
        "SELECT state, problem_code FROM uploads WHERE id = $1", upload_id
    )
    assert row is not None
    return row["state"], row["problem_code"]


async def test_an_upload_that_was_put_together_becomes_a_file(
    sending: Sending, digests: DigestService, superuser: Connection
) -> None:
    upload_id = await leave_verifying(sending, superuser)

    first, second = await digests.run_once(), await digests.run_once()

    assert (first, second) == (True, False)
    assert await state_of(superuser, upload_id) == ("done", None)
    assert await sending.draft.read() == CONTENT


async def test_the_worker_asks_the_members_themselves(
    sending: Sending, superuser: Connection, make_settings: MakeSettings
) -> None:
    upload_id = await leave_verifying(sending, superuser)
    settings = make_settings(storage={"url": sending.registry.folder.as_uri()})

    async with open_digests(settings) as digests:
        assert await digests.run_once()
        assert not await digests.run_once()

    # The sender of these tests is nobody's account.
    assert await state_of(superuser, upload_id) == ("failed", "upload-sender-refused")


async def test_bytes_that_were_damaged_meanwhile_fail_it_for_good(
    sending: Sending, digests: DigestService, superuser: Connection
) -> None:
    upload_id = await leave_verifying(sending, superuser)
    next(path for path in sending.registry.stored() if path.is_file()).write_bytes(b"damage")

    await digests.run_once()

    assert await state_of(superuser, upload_id) == ("failed", "blob-corrupt")
    assert not await digests.run_once()
    assert await superuser.fetchval("SELECT count(*) FROM upload_parts") == 0


async def test_what_cannot_be_done_now_is_left_for_later(
    sending: Sending, digests: DigestService, superuser: Connection
) -> None:
    upload_id = await leave_verifying(sending, superuser)

    tried = await replace(digests, digester=Away()).run_once()

    assert tried
    assert await state_of(superuser, upload_id) == ("verifying", None)
    assert await digests.run_once()


async def make_private(sending: Sending) -> None:
    async with acting_as(sending.principal):
        await sending.registry.models.revise(
            sending.principal, sending.draft.model_id, check=lambda _: None, visibility="private"
        )


async def test_who_may_not_see_the_model_any_more_gives_it_no_file(
    sending: Sending, digests: DigestService, superuser: Connection
) -> None:
    theirs = replace(sending, principal=make_principal(sending.principal.tenant_id))
    upload_id = await leave_verifying(theirs, superuser)
    await make_private(sending)

    await digests.run_once()

    assert await state_of(superuser, upload_id) == ("failed", "model-not-found")
    assert await sending.draft.status() == ("pending", 0)
    assert sending.files() == 0
    assert await superuser.fetchval("SELECT count(*) FROM upload_holds") == 0


async def test_the_owner_and_who_manages_models_give_a_private_model_files(
    sending: Sending, digests: DigestService, superuser: Connection
) -> None:
    manager = replace(sending, principal=make_principal(sending.principal.tenant_id))
    await make_private(sending)
    sending.registry.members.rights |= {"model:manage"}
    upload_id = await leave_verifying(manager, superuser)

    await digests.run_once()

    assert await state_of(superuser, upload_id) == ("done", None)
    assert await sending.draft.read() == CONTENT


@pytest.mark.parametrize("lost", ["the account", "the right"])
async def test_who_may_write_nothing_any_more_gives_no_file(
    sending: Sending, digests: DigestService, superuser: Connection, lost: str
) -> None:
    upload_id = await leave_verifying(sending, superuser)
    if lost == "the account":
        sending.registry.members.left.add(sending.principal.account_id)
    else:
        sending.registry.members.rights = frozenset({"model:read"})

    await digests.run_once()

    assert await state_of(superuser, upload_id) == ("failed", "upload-sender-refused")
    assert not await digests.run_once()
    assert sending.files() == 0
    assert await superuser.fetchval("SELECT count(*) FROM upload_holds") == 0


class Breaking:
    """Digests, but not what begins with this part: an error nobody foresaw."""

    def __init__(self, registry: Registry, key: str) -> None:
        self._registry, self._key = registry, key

    async def digest(self, parts: Sequence[Part]) -> Digest:
        if parts[0].key == self._key:
            raise TimeoutError
        return await self._registry.store.digest(parts)


async def test_an_upload_that_breaks_keeps_no_other_waiting_and_fails_in_the_end(
    sending: Sending,
    digests: DigestService,
    superuser: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(digesting, "MAX_TRIES", 2)
    bad = await leave_verifying(sending, superuser)
    stranger = make_principal(await make_tenant(superuser))
    other = Sending(sending.registry, await make_draft(sending.registry, stranger), stranger)
    await superuser.execute("UPDATE uploads SET updated_at = updated_at - interval '1 hour'")
    good = await leave_verifying(other, superuser)
    parts = await sending.registry.journal.list_parts(sending.principal.tenant_id, bad)
    clock = FakeClock(SystemClock().now())
    breaking = replace(digests, digester=Breaking(sending.registry, parts[0].key), clock=clock)

    both = await breaking.run_once(), await breaking.run_once(), await breaking.run_once()

    assert both == (True, True, False)
    assert await state_of(superuser, good) == ("done", None)
    assert await state_of(superuser, bad) == ("verifying", None)
    clock.move(digesting.AGAIN_AT_MOST)
    assert await breaking.run_once()
    assert await state_of(superuser, bad) == ("failed", "upload-not-completed")
    clock.move(digesting.AGAIN_AT_MOST)
    assert not await breaking.run_once()


async def test_nobody_else_takes_an_upload_that_is_being_digested(
    sending: Sending, digests: DigestService, superuser: Connection
) -> None:
    await leave_verifying(sending, superuser)

    async with digests.verifying.claim(but=()) as found:
        is_busy = await digests.run_once()

    assert found is not None
    assert not is_busy
    assert await digests.run_once()
