"""Objects by key, in a local folder or at a cloud: put, got, deleted, and errors told apart."""

import asyncio
import errno
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from maas.model.application.ports import ArtifactStoreFullError, ArtifactStoreUnavailableError
from maas.model.infrastructure.local_folder import LocalFolder

CHUNK_BYTES = 1024 * 1024
DELETED_AT_ONCE = 1_000
THREADS = 8

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class MissingObjectError(Exception):
    """No object has this key and this size."""


class DurableObjects:
    """An object store whose `put` returns only once the object is durable.

    Opened when first used, so that building the application touches no disk and no network.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        parts = urlsplit(url)
        is_local = parts.scheme == "file"
        self._folder = LocalFolder(Path(unquote(parts.path))) if is_local else None
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="artifacts")

    @cached_property
    def _store(self) -> ObjectStore:
        if self._folder is None:
            return from_url(self._url)
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

    async def delete(self, keys: Sequence[str], *, folder: str) -> None:
        """Delete objects, those included that are not there, and their folder.

        Raises:
            ArtifactStoreUnavailableError: some may be left.
        """
        for start in range(0, len(keys), DELETED_AT_ONCE):
            batch = keys[start : start + DELETED_AT_ONCE]
            try:
                with _explaining():
                    await obstore.delete_async(self._store, batch)
            except FileNotFoundError:
                await self._delete_singly(batch)
        if self._folder is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self.threads, self._folder.remove_empty, folder)

    async def _delete_singly(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                with _explaining():
                    await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                continue


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
