"""Files of versions, as the system role: the runtime host serves every tenant's versions."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import asyncpg

from maas.model.application.ports import ArtifactStore, CorruptBlobError
from maas.model.domain.blob import Blob, Digest, Part
from maas.model.public import VersionId, WeightFile, Weights
from maas.shared.domain.errors import UnavailableError
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

_VERSION: Final = """
    SELECT m.name AS model, v.name AS version FROM model_versions v
    JOIN models m ON m.id = v.model_id
    WHERE v.id = $1 AND v.status IN ('ready', 'deprecated') AND m.deleted_at IS NULL
"""
_FILES: Final = """
    SELECT path, size, sha256 FROM version_files WHERE version_id = $1 ORDER BY path COLLATE "C"
"""
_PARTS: Final = """
    SELECT key, size, part_sha256 FROM blob_parts WHERE sha256 = $1 ORDER BY index
"""


class RegistryUnavailableError(UnavailableError):
    code = "registry-unavailable"
    title = "The registry cannot be read"

    def __init__(self) -> None:
        super().__init__("The database of the registry does not answer. Retry shortly.")


class PostgresVersionWeights:
    """Connects for each look-up: there is one when a model is loaded, and none while it answers."""

    def __init__(self, settings: DatabaseSettings, artifacts: ArtifactStore) -> None:
        self._settings = settings
        self._artifacts = artifacts

    async def find(self, version_id: VersionId) -> Weights | None:
        async with self._connected() as connection:
            version = await connection.fetchrow(_VERSION, version_id)
            if version is None:
                return None
            files = await connection.fetch(_FILES, version_id)
        return Weights(
            version_id=version_id,
            model_name=version["model"],
            version=version["version"],
            files=[
                WeightFile(path=row["path"], size=row["size"], sha256=row["sha256"].hex())
                for row in files
            ],
        )

    async def read(self, file: WeightFile) -> AsyncGenerator[bytes, None]:
        digest = Digest.from_hex(file.sha256)
        async with self._connected() as connection:
            rows = await connection.fetch(_PARTS, digest.value)
        parts = tuple(
            Part(key=row["key"], size=row["size"], sha256=Digest(row["part_sha256"]))
            for row in rows
        )
        if sum(part.size for part in parts) != file.size:
            # Its model was deleted and its bytes were freed since the version was looked up.
            raise CorruptBlobError
        blob = Blob(sha256=digest, size=file.size, parts=parts)
        async with aclosing(self._artifacts.read(blob, start=0, stop=file.size)) as chunks:
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def _connected(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        try:
            connection = await asyncpg.connect(**system_arguments(self._settings))
        except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
            raise RegistryUnavailableError from exc
        try:
            yield connection
        except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as exc:
            raise RegistryUnavailableError from exc
        finally:
            connection.terminate()
