"""Files that are read on their way in, over the real database and a store of small parts."""

import json
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from typing_extensions import override

from maas.model.application.facts import FactsReader
from maas.model.application.ports import TooManyTransfersError
from maas.model.application.settings import ModelSettingsService
from maas.model.domain.blob import Blob
from maas.model.domain.facts import ArchiveRefusedError, Facts, LyingHeaderError
from maas.model.domain.file import FilePath
from maas.model.domain.formats import PickleRefusedError
from maas.model.domain.settings import ModelSettings
from maas.model.infrastructure.artifacts import PartedArtifactStore
from maas.model.infrastructure.object_store import DurableObjects
from maas.shared.domain.page import TextPageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from tests.factories.weights import make_gguf, make_safetensors, make_zip
from tests.integration.model.conftest import (
    MAX_FILE_BYTES,
    PART_BYTES,
    Registry,
    acting_as,
    make_principal,
)
from tests.integration.model.test_files import NAME, Draft, incoming, make_draft

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

PICKLE = b"\x80\x04\x95" + bytes(100)
CONFIG = json.dumps({"model_type": "llama", "max_position_embeddings": 4096}).encode()


@pytest.fixture
async def draft(registry: Registry, principal: Principal) -> Draft:
    return await make_draft(registry, principal)


async def put(draft: Draft, path: str, content: bytes) -> Facts | None:
    return (await draft.take(incoming(content, path=FilePath(path)))).file.facts


async def version_facts(draft: Draft, reader: Principal | None = None) -> Facts | None:
    found = await draft.registry.queries.get_version(
        reader or draft.principal, draft.model_id, NAME
    )
    return found.facts


async def file_facts(draft: Draft) -> dict[str, Facts | None]:
    page = TextPageRequest(after=None, limit=10, include_total=False)
    found = await draft.registry.queries.list_files(draft.principal, draft.model_id, NAME, page)
    return {file.path: file.facts for file in found.items}


async def allow_pickle(registry: Registry, principal: Principal) -> None:
    service = ModelSettingsService(unit_of_work=registry.make_unit_of_work, clock=SystemClock())
    async with acting_as(principal):
        await service.change(principal, ModelSettings(allows_pickle=True))


class TestKept:
    async def test_a_version_says_what_its_files_say(self, draft: Draft) -> None:
        shard = make_safetensors()

        await put(draft, "m-00001-of-00002.safetensors", shard)
        await put(draft, "m-00002-of-00002.safetensors", shard)
        await put(draft, "README.md", b"# Hello")
        config = await put(draft, "config.json", CONFIG)

        read = Facts(format="safetensors", parameters=132, dtype="F16", tensor_count=2)
        assert await file_facts(draft) == {
            "README.md": None,
            "config.json": config,
            "m-00001-of-00002.safetensors": read,
            "m-00002-of-00002.safetensors": read,
        }
        assert await version_facts(draft) == Facts(
            format="safetensors",
            architecture="llama",
            parameters=264,
            dtype="F16",
            context_length=4096,
            tensor_count=4,
        )

    async def test_replaced_and_removed_files_say_nothing_any_more(self, draft: Draft) -> None:
        await put(draft, "model.bin", make_gguf())
        await put(draft, "other.bin", make_safetensors())
        before = await version_facts(draft)
        await put(draft, "model.bin", b"something else")
        replaced = await version_facts(draft)
        async with acting_as(draft.principal):
            await draft.registry.files.remove(
                draft.model_id, NAME, FilePath("other.bin"), check=lambda _: None
            )

        assert before is not None
        assert replaced is not None
        assert (before.format, replaced.format) == ("gguf", "safetensors")
        assert await version_facts(draft) is None
        assert await file_facts(draft) == {"model.bin": None}

    async def test_a_head_in_many_parts_is_read(self, draft: Draft) -> None:
        words = [f"word {number}" for number in range(20_000)]
        content = make_gguf(keys={"tokens": words, "general.architecture": "gemma3"})
        assert len(content) > 4 * PART_BYTES

        facts = await put(draft, "model.gguf", content)

        assert facts is not None
        assert (facts.architecture, facts.parameters) == ("gemma3", 132)

    async def test_of_another_tenant_nothing_is_seen_without_leave(
        self, draft: Draft, database: Database
    ) -> None:
        await put(draft, "model.gguf", make_gguf())
        stranger = make_principal()

        async def seen() -> int:
            async with database.tenant(stranger.tenant_id) as connection:
                return int(
                    await connection.fetchval(
                        "SELECT (SELECT count(*) FROM version_facts)"
                        " + (SELECT count(*) FROM version_file_facts)"
                    )
                )

        hidden = await seen()
        async with acting_as(draft.principal):
            await draft.registry.models.revise(
                draft.principal, draft.model_id, check=lambda _: None, visibility="public"
            )

        assert hidden == 0
        assert await seen() == 2
        assert await version_facts(draft, stranger) == await version_facts(draft)


class TestRefused:
    @pytest.mark.parametrize(
        ("path", "content", "error"),
        [
            ("model.safetensors", make_safetensors(data=bytes(3)), LyingHeaderError),
            ("model.gguf", make_gguf()[:-1], LyingHeaderError),
            ("model.onnx", b"\xff" * 100, LyingHeaderError),
            ("any", make_zip({"../up": b"x"}), ArchiveRefusedError),
            ("bomb", make_zip({"zeros": bytes(20_000_000)}), ArchiveRefusedError),
            ("old.pkl", b"cos\nsystem\n(S'true'\ntR.", PickleRefusedError),
            ("model.pt", make_zip({"a": bytes(900_000), "m/data.pkl": b"x"}), PickleRefusedError),
            ("model.pt", PICKLE, PickleRefusedError),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    async def test_nothing_is_left(
        self, draft: Draft, path: str, content: bytes, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            await put(draft, path, content)

        assert not any(path.is_file() for path in draft.registry.stored())
        assert await file_facts(draft) == {}
        assert await version_facts(draft) is None

    async def test_what_was_there_stays(self, draft: Draft) -> None:
        facts = await put(draft, "model.gguf", make_gguf())

        with pytest.raises(LyingHeaderError):
            await put(draft, "model.gguf", make_gguf()[:-1])

        assert await draft.read(FilePath("model.gguf")) == make_gguf()
        assert await version_facts(draft) == facts


class TestPickle:
    async def test_is_let_in_by_the_tenants_leave_and_by_no_others(
        self, draft: Draft, registry: Registry
    ) -> None:
        await allow_pickle(registry, make_principal())
        with pytest.raises(PickleRefusedError):
            await put(draft, "model.pt", PICKLE)
        await allow_pickle(registry, draft.principal)

        assert await put(draft, "model.pt", PICKLE) == Facts(format="pickle")


class BusyStore(PartedArtifactStore):
    """Has no memory for the first reads."""

    refusals = 2

    @override
    async def read(self, blob: Blob, *, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        if self.refusals:
            self.refusals -= 1
            raise TooManyTransfersError
        async for chunk in super().read(blob, start=start, stop=stop):
            yield chunk


class TestMemory:
    async def test_an_upload_that_is_in_waits_for_memory_to_be_read(
        self, registry: Registry, principal: Principal
    ) -> None:
        store = BusyStore(DurableObjects(registry.folder.as_uri()), part_bytes=PART_BYTES)
        upload = await store.receive(_once(make_gguf()), limit_bytes=MAX_FILE_BYTES)
        reader = FactsReader(
            unit_of_work=registry.make_unit_of_work,
            artifacts=store,
            max_unpacked_bytes=MAX_FILE_BYTES,
        )

        async with acting_as(principal):
            facts = await reader.read(FilePath("model.gguf"), upload.blob)

        assert facts is not None
        assert store.refusals == 0


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
