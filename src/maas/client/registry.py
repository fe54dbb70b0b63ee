"""The registry as the API shows it: models by name, versions, files and aliases.

A name means a model of one's own tenant and no other: any tenant may make a public model of any
name, and a name that is gone or misspelt would lead to its bytes. Those of others go by their ids.
"""

import unicodedata
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import quote
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from maas.client.api import API, Api, segment
from maas.client.board import name_some
from maas.client.errors import ClientError, RefusedError, StrangeAnswerError
from maas.client.references import Reading, read_reference
from maas.shared.domain.text import has_invisible

MAX_FILES = 1_000
MAX_LISTED = 10_000
MAX_FILE_BYTES = 1 << 50
MAX_NAME_CHARS = 200
NOT_FOUND = 404

_Hex = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Version = Annotated[str, Field(pattern="^[A-Za-z0-9._+-]{1,64}$")]


class _Remote(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    @property
    def raw(self) -> dict[str, Any]:
        """All that was kept of it, as the API has it."""
        return self.model_dump(mode="json") | (self.model_extra or {})


class RemoteModel(_Remote):
    id: UUID
    tenant_id: UUID | None = None
    name: str
    framework: str
    task: str | None = None
    licence: str | None = None
    visibility: str | None = None
    updated_at: AwareDatetime | None = None


class RemoteVersion(_Remote):
    version: _Version
    status: str
    size: int = 0
    file_count: int = 0
    created_at: AwareDatetime | None = None
    facts: dict[str, Any] | None = None


class RemoteFile(_Remote):
    path: str
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
    sha256: _Hex


class RemoteAlias(_Remote):
    alias: str
    version: str


class RemoteMove(_Remote):
    """`version` is `None` where the alias was taken away."""

    version: str | None = None
    previous_version: str | None = None
    at: AwareDatetime
    reason: str | None = None


R = TypeVar("R", bound=_Remote)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """`keeps_all` keeps of what is listed also what is not named above, for `--json`."""

    api: Api
    keeps_all: bool = False

    async def list_models(self, *, limit: int, **filters: str) -> list[RemoteModel]:
        return await self._list(f"{API}/models", RemoteModel, limit=limit, **filters)

    async def find_model(self, name: str) -> RemoteModel | None:
        """Find a model of one's own tenant by its exact name, or any that one reads by its id."""
        if (model_id := _as_id(name)) is not None:
            return await self._find(f"{API}/models/{model_id}")
        if (exact := _as_name(name)) is None:
            return None
        found = await self.api.list(f"{API}/models", RemoteModel, limit=2, name=exact)
        return next((model for model in found if model.name == exact), None)

    async def get_model(self, name: str) -> RemoteModel:
        model = await self.find_model(name)
        if model is None:
            raise ClientError(await self._spell_unknown([name]))
        return model

    async def _spell_unknown(self, names: list[str]) -> str:
        """Say that there is no such model, and which of other tenants' could be meant."""
        if all(_as_id(name) is not None for name in names):
            return f"There is no model {names[0]} that you may read."
        shared = [
            model
            for name in names
            if (exact := _as_name(name)) is not None
            for model in await self.api.first_page(
                f"{API}/models", RemoteModel, name=exact, shared="true"
            )
            if model.name == exact
        ]
        text = f"There is no model {' nor '.join(names)} in your tenant that you may read."
        if not shared:
            return text
        ids = name_some([f"{model.id} of tenant {model.tenant_id}" for model in shared])
        return (
            f"{text} Other tenants share some of this name: if you trust one, give its id, {ids}."
        )

    async def create_model(self, name: str, *, framework: str) -> RemoteModel:
        body = {"name": name, "framework": framework}
        return await self.api.send("POST", f"{API}/models", RemoteModel, body)

    async def list_versions(
        self, model: RemoteModel, *, limit: int = MAX_LISTED
    ) -> list[RemoteVersion]:
        """List a model's versions, newest first."""
        return await self._list(f"{_path(model)}/versions", RemoteVersion, limit=limit)

    async def find_version(self, model: RemoteModel, version: str) -> RemoteVersion | None:
        path = version_path(model, version)
        try:
            return await self.api.get(path, RemoteVersion)
        except RefusedError as exc:
            if exc.status == NOT_FOUND:
                return None
            raise

    async def create_version(self, model: RemoteModel, version: str) -> RemoteVersion:
        path = f"{_path(model)}/versions"
        return await self.api.send("POST", path, RemoteVersion, {"version": version})

    async def make_ready(self, model: RemoteModel, version: str) -> RemoteVersion:
        path = f"{version_path(model, version)}/transition"
        try:
            return await self.api.send("POST", path, RemoteVersion, {"status": "ready"})
        except RefusedError:
            # The answer to an earlier try may have been lost on its way.
            found = await self.find_version(model, version)
            if found is None or found.status != "ready":
                raise
            return found

    async def list_files(self, model: RemoteModel, version: str) -> list[RemoteFile]:
        """List the files of a version.

        Raises:
            StrangeAnswerError: there are more than a version can have.
        """
        path = f"{version_path(model, version)}/files"
        files = await self.api.list(path, RemoteFile, limit=MAX_FILES + 1)
        if len(files) > MAX_FILES:
            raise StrangeAnswerError(f"a version has at most {MAX_FILES} files")
        if len({file.path for file in files}) != len(files):
            raise StrangeAnswerError("a file is there twice")
        return files

    async def list_aliases(self, model: RemoteModel) -> list[RemoteAlias]:
        return await self._list(f"{_path(model)}/aliases", RemoteAlias, limit=MAX_LISTED)

    async def get_alias(self, model: RemoteModel, alias: str) -> RemoteAlias:
        path = _alias_path(model, alias)
        return await self.api.get(path, RemoteAlias, keeps_all=self.keeps_all)

    async def find_alias(self, model: RemoteModel, alias: str) -> RemoteAlias | None:
        try:
            return await self.get_alias(model, alias)
        except RefusedError as exc:
            if exc.status == NOT_FOUND:
                return None
            raise

    async def set_alias(
        self, model: RemoteModel, alias: str, version: str, *, reason: str | None = None
    ) -> RemoteAlias:
        body = {"version": version, "reason": reason}
        return await self.api.send("PUT", _alias_path(model, alias), RemoteAlias, body)

    async def delete_alias(self, model: RemoteModel, alias: str) -> None:
        await self.api.delete(_alias_path(model, alias))

    async def list_moves(self, model: RemoteModel, alias: str, **at: str) -> list[RemoteMove]:
        """List where an alias pointed, newest first; with `at`, where it did then."""
        path = f"{_alias_path(model, alias)}/history"
        return await self._list(path, RemoteMove, limit=MAX_LISTED, **at)

    async def resolve(
        self, reference: str, *, version: str | None = None
    ) -> tuple[RemoteModel, RemoteVersion]:
        """Find the version a reference means; without one, the newest that is ready.

        Raises:
            ClientError: there is none, or two readings of it are both there.
        """
        readings = read_reference(reference)
        if version is not None:
            readings = [Reading(model=reference, version=version)]
        found = []
        for reading in readings:
            model = await self.find_model(reading.model)
            if model is not None:
                at = await self._find_meant(model, reading)
                found += [] if at is None else [(model, at)]
        if len(found) > 1:
            (_, newest), (other, named) = found
            message = (
                f"{reference} can mean version {newest.version} of {reference}, or version "
                f"{named.version} of {other.name}. Say which: {reference}:{newest.version}, or "
                f"{other.name} with --version {named.version}."
            )
            raise ClientError(message)
        if not found:
            raise ClientError(await self._spell_missing(readings))
        return found[0]

    async def _find_meant(self, model: RemoteModel, reading: Reading) -> RemoteVersion | None:
        if reading.alias is not None:
            target = (await self.get_alias(model, reading.alias)).version
            return await self.find_version(model, target)
        if reading.version is not None:
            return await self.find_version(model, reading.version)
        versions = self.api.each(f"{_path(model)}/versions", RemoteVersion, limit=MAX_LISTED)
        async with aclosing(versions):
            async for version in versions:
                if version.status == "ready":
                    return version
        return None

    async def _spell_missing(self, readings: list[Reading]) -> str:
        for reading in readings:
            model = await self.find_model(reading.model)
            if model is None:
                continue
            versions = [each.version for each in await self.list_versions(model, limit=10)]
            there = f"it has {', '.join(versions)}" if versions else "it has none yet"
            wanted = reading.version or "that is ready"
            return f"{model.name} has no version {wanted}; {there}."
        return await self._spell_unknown([reading.model for reading in readings])

    async def _list(self, path: str, kind: type[R], *, limit: int, **params: str) -> list[R]:
        return await self.api.list(path, kind, limit=limit, keeps_all=self.keeps_all, **params)

    async def _find(self, path: str) -> RemoteModel | None:
        try:
            return await self.api.get(path, RemoteModel)
        except RefusedError as exc:
            if exc.status == NOT_FOUND:
                return None
            raise


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text) if len(text) == 36 else None  # noqa: PLR2004  a UUID with its dashes
    except ValueError:
        return None


def _as_name(text: str) -> str | None:
    """Spell a name as the registry keeps it; disks may have it in another form of Unicode."""
    name = unicodedata.normalize("NFC", text)
    return None if not 1 <= len(name) <= MAX_NAME_CHARS or has_invisible(name) else name


def _path(model: RemoteModel) -> str:
    return f"{API}/models/{model.id}"


def version_path(model: RemoteModel, version: str) -> str:
    return f"{_path(model)}/versions/{segment(version)}"


def file_path(model: RemoteModel, version: str, path: str) -> str:
    return f"{version_path(model, version)}/files/{quote(path, safe='/')}"


def _alias_path(model: RemoteModel, alias: str) -> str:
    return f"{_path(model)}/aliases/{segment(alias)}"
