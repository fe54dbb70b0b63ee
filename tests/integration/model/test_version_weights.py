"""What a runtime reads of versions, as the system: of every tenant, if they may answer."""

import hashlib

import pytest

from maas.model.application.ports import CorruptBlobError
from maas.model.domain.file import FilePath
from maas.model.infrastructure.weights import PostgresVersionWeights, RegistryUnavailableError
from maas.model.public import VersionId, WeightFile
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal
from tests.conftest import MakeSettings
from tests.integration.model.conftest import Registry, acting_as
from tests.integration.model.test_files import CONTENT, PATH, Draft, incoming, make_draft

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def weights(registry: Registry, make_settings: MakeSettings) -> PostgresVersionWeights:
    return PostgresVersionWeights(make_settings().database, registry.store)


async def make_ready(
    registry: Registry, principal: Principal, *, path: str = str(PATH), content: bytes = CONTENT
) -> tuple[Draft, VersionId]:
    draft = await make_draft(registry, principal)
    await draft.take(incoming(content, path=FilePath(path)))
    await draft.move("ready")
    return draft, await id_of(draft)


async def id_of(draft: Draft) -> VersionId:
    queries = draft.registry.queries
    return (await queries.get_version(draft.principal, draft.model_id, draft.name)).id


async def test_a_ready_version_is_read_as_it_was_uploaded(
    registry: Registry, principal: Principal, weights: PostgresVersionWeights
) -> None:
    _, version_id = await make_ready(registry, principal)

    found = await weights.find(version_id)

    assert found is not None
    assert (found.model_name, found.version) == ("org/name", "1.0.0")
    (file,) = found.files
    assert (file.path, file.size) == (str(PATH), len(CONTENT))
    assert file.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert b"".join([chunk async for chunk in weights.read(file)]) == CONTENT


async def test_a_deprecated_version_is_still_read(
    registry: Registry, principal: Principal, weights: PostgresVersionWeights
) -> None:
    draft, version_id = await make_ready(registry, principal)
    await draft.move("deprecated")

    assert await weights.find(version_id) is not None


async def test_others_are_not_there(
    registry: Registry, principal: Principal, weights: PostgresVersionWeights
) -> None:
    draft = await make_draft(registry, principal)
    await draft.take(incoming())

    assert await weights.find(await id_of(draft)) is None
    assert await weights.find(VersionId(new_id())) is None


async def test_an_archived_version_is_not_there(
    registry: Registry, principal: Principal, weights: PostgresVersionWeights
) -> None:
    draft, version_id = await make_ready(registry, principal)
    await draft.move("deprecated")
    await draft.move("archived")

    assert await weights.find(version_id) is None


async def test_versions_of_a_deleted_model_are_not_there(
    registry: Registry, principal: Principal, weights: PostgresVersionWeights
) -> None:
    draft, version_id = await make_ready(registry, principal)
    async with acting_as(principal):
        await registry.models.delete(draft.model_id, check=lambda _: None)

    assert await weights.find(version_id) is None


async def test_bytes_that_are_gone_are_not_made_up(weights: PostgresVersionWeights) -> None:
    file = WeightFile(path="model.gguf", size=3, sha256=hashlib.sha256(b"abc").hexdigest())

    with pytest.raises(CorruptBlobError):
        assert [chunk async for chunk in weights.read(file)] == []


async def test_a_database_that_is_away_is_told(
    registry: Registry, make_settings: MakeSettings
) -> None:
    away = "postgresql+asyncpg://maas_system:x@127.0.0.1:1/maas"
    settings = make_settings(database={"url": away, "system_url": away})
    weights = PostgresVersionWeights(settings.database, registry.store)

    with pytest.raises(RegistryUnavailableError):
        await weights.find(VersionId(new_id()))
