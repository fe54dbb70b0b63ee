"""Objects by key, in a local folder or at a cloud: put, got, deleted, and errors told apart."""

import asyncio
import errno
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from itertools import groupby
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from maas.model.application.ports import (
    ArtifactStoreFullError,
    ArtifactStoreUnavailableError,
    StoredFolder,
)
from maas.model.infrastructure.local_folder import LocalFolder

CHUNK_BYTES = 256 * 1024
"""What each download keeps in memory for as long as its reader likes."""

DELETED_AT_ONCE = 1_000
LISTED_AT_ONCE = 1_000
THREADS = 8

CONNECT_SECONDS = 5
REQUEST_SECONDS = 120
"""For one part, up or down: at 64 MiB, half a megabyte a second is still fast enough."""

RETRIES = 3
RETRY_SECONDS = 20

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class MissingObjectError(Exception):
    """No object has this key and this size."""


class DurableObjects:
    """An object store whose `put` returns only once the object is durable.

    Opened when first used, so that building the application touches no disk and no network.
    """

    def __init__(self, url: str, *, options: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._options = dict(options or {})
        parts = urlsplit(url)
        is_local = parts.scheme == "file"
        self._folder = LocalFolder(Path(unquote(parts.path))) if is_local else None
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")

    @cached_property
    def _store(self) -> ObjectStore:
        if self._folder is None:
            return _open_cloud(self._url, self._options)
        self._folder.make()
        return LocalStore(unquote(urlsplit(self._url).path), automatic_cleanup=True)

    async def put(self, key: str, data: memoryview, *, is_first: bool) -> None:
        """Store an object; `is_first` says that its folder is new.

        Raises:
            ArtifactStoreFullError, ArtifactStoreUnavailableError: it is not, or perhaps partly,
                there.
        """
        folder = self._folder
        with _explaining():
            if folder is None:
                # A copy: whoever sends it may look at it again, and `data` is soon another part.
                await obstore.put_async(self._store, key, bytes(data), use_multipart=False)
                return
            await obstore.put_async(self._store, key, data, use_multipart=False)
            await asyncio.get_running_loop().run_in_executor(
                self.threads, lambda: folder.sync(key, is_first=is_first)
            )

    async def read(self, key: str, room: memoryview) -> None:
        """Read a whole object that fills `room` exactly.

        Raises:
            MissingObjectError: it is not there, or has another size.
            ArtifactStoreUnavailableError: the store does not answer.
        """
        try:
            with _explaining():
                if self._folder is not None:
                    loop, folder = asyncio.get_running_loop(), self._folder
                    await loop.run_in_executor(self.threads, folder.read, key, room)
                else:
                    await self._download(key, room)
        except FileNotFoundError as exc:
            raise MissingObjectError(key) from exc

    async def _download(self, key: str, room: memoryview) -> None:
        found = await obstore.get_async(self._store, key)
        if found.meta["size"] != len(room):
            raise FileNotFoundError(key)
        filled = 0
        async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
            room[filled : filled + len(chunk)] = chunk
            filled += len(chunk)

    async def list_sizes(self, folder: str) -> dict[str, int]:
        """Tell the sizes of all objects in a folder, by key, in bytes.

        Raises:
            ArtifactStoreUnavailableError: the store does not answer.
        """
        with _explaining():
            found = await obstore.list_with_delimiter_async(self._store, folder)
        return {each["path"]: each["size"] for each in found["objects"]}

    async def list_folders(
        self, prefix: str, *, after: str, before: str, limit: int
    ) -> list[StoredFolder]:
        """List the folders below a prefix by name, those between two names alone.

        Raises:
            ArtifactStoreUnavailableError: the store does not answer.
        """
        with _explaining():
            if self._folder is not None:
                loop, folder = asyncio.get_running_loop(), self._folder
                return await loop.run_in_executor(
                    self.threads,
                    lambda: folder.list_folders(prefix, after=after, before=before, limit=limit),
                )
            return await self._group_by_folder(prefix, after=after, before=before, limit=limit)

    async def _group_by_folder(
        self, prefix: str, *, after: str, before: str, limit: int
    ) -> list[StoredFolder]:
        # `0` is what comes after `/`: everything in the folder `after` lies before that.
        offset = f"{prefix}/{after}0" if after else None
        listing = obstore.list(self._store, prefix, offset=offset, chunk_size=LISTED_AT_ONCE)
        found: dict[str, list[obstore.ObjectMeta]] = {}
        async for objects in listing:
            for folder, inside in groupby(objects, key=lambda each: _folder_of(each["path"])):
                is_new = folder not in found
                if is_new and (len(found) == limit or folder >= f"{prefix}/{before}"):
                    return [_stored_folder(key, objects) for key, objects in found.items()]
                found.setdefault(folder, []).extend(inside)
        return [_stored_folder(key, objects) for key, objects in found.items()]

    async def delete(self, keys: Sequence[str], *, folder: str) -> None:
        """Delete objects, those included that are not there, and their folder if it is empty then.

        Raises:
            ArtifactStoreUnavailableError: some may be left.
        """
        if self._folder is not None:
            local, loop = self._folder, asyncio.get_running_loop()
            with _explaining():
                await loop.run_in_executor(self.threads, local.delete, keys)
            await loop.run_in_executor(self.threads, local.remove_empty, folder)
            return
        for start in range(0, len(keys), DELETED_AT_ONCE):
            batch = keys[start : start + DELETED_AT_ONCE]
            try:
                with _explaining():
                    await obstore.delete_async(self._store, batch)
            except FileNotFoundError:
                await self._delete_singly(batch)

    async def _delete_singly(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                with _explaining():
                    await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                continue


def _open_cloud(url: str, options: Mapping[str, str]) -> ObjectStore:
    """Open a store of another machine, which is given up on in seconds, not in minutes."""
    is_plain = options.get("endpoint", "").startswith("http://")
    return from_url(  # type: ignore[no-any-return, call-overload]  # one overload for each cloud
        url,
        config=dict(options) or None,
        client_options={
            "allow_http": is_plain,
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
        },
        retry_config={
            "max_retries": RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        },
    )


def _folder_of(key: str) -> str:
    return key.rpartition("/")[0]


def _stored_folder(key: str, objects: "Sequence[obstore.ObjectMeta]") -> StoredFolder:
    return StoredFolder(
        name=key.rpartition("/")[2],
        keys=tuple(each["path"] for each in objects),
        changed_at=max(each["last_modified"] for each in objects),
    )


@contextmanager
def _explaining() -> Iterator[None]:
    """Tell a full store from one that is down; a missing object stays `FileNotFoundError`."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as exc:
        code = exc.errno if isinstance(exc, OSError) else _os_error_in(str(exc))
        if code in _FULL:
            raise ArtifactStoreFullError from exc
        raise ArtifactStoreUnavailableError from exc


def _os_error_in(message: str) -> int | None:
    # obstore has no class of its own for a full disk, but quotes the operating system.
    found = _OS_ERROR.search(message)
    return None if found is None else int(found[1])
