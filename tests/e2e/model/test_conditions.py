"""Writes that expect something of the file that is there: `If-Match`, `If-None-Match`."""

import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.e2e.model.conftest import make_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

STALE = '"' + hashlib.sha256(b"older").hexdigest() + '"'


@pytest.fixture
async def file(api: httpx.AsyncClient) -> str:
    path = f"{await make_version(api)}/files/a"
    assert (await api.put(path, content=b"one")).status_code == 201
    return path


async def content(api: httpx.AsyncClient, file: str) -> bytes:
    return (await api.get(file)).content


class TestPut:
    @pytest.mark.parametrize("tag", [STALE, f"W/{STALE}"])
    async def test_a_stale_tag_leaves_the_file(
        self, api: httpx.AsyncClient, file: str, tag: str
    ) -> None:
        was_read = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal was_read
            was_read = True
            yield b"two"

        answer = await api.put(file, content=body(), headers={"If-Match": tag})

        assert (answer.status_code, answer.json()["code"]) == (412, "precondition-failed")
        assert not was_read
        assert await content(api, file) == b"one"

    async def test_the_tag_last_read_replaces(self, api: httpx.AsyncClient, file: str) -> None:
        tag = (await api.get(file)).headers["etag"]

        answer = await api.put(file, content=b"two", headers={"If-Match": tag})
        late = await api.put(file, content=b"three", headers={"If-Match": tag})

        assert (answer.status_code, late.status_code) == (200, 412)
        assert await content(api, file) == b"two"

    async def test_create_only_never_replaces(self, api: httpx.AsyncClient, file: str) -> None:
        only_new = {"If-None-Match": "*"}

        kept = await api.put(file, content=b"two", headers=only_new)
        created = await api.put(f"{file}b", content=b"two", headers=only_new)

        assert (kept.status_code, created.status_code) == (412, 201)
        assert await content(api, file) == b"one"

    async def test_replace_only_never_creates(self, api: httpx.AsyncClient, file: str) -> None:
        only_there = {"If-Match": "*"}

        replaced = await api.put(file, content=b"two", headers=only_there)
        missing = await api.put(f"{file}b", content=b"two", headers=only_there)

        assert (replaced.status_code, missing.status_code) == (200, 412)

    async def test_a_file_that_changes_during_the_upload_is_not_overwritten(
        self, api: httpx.AsyncClient, file: str
    ) -> None:
        tag = (await api.get(file)).headers["etag"]

        async def body() -> AsyncIterator[bytes]:
            await api.put(file, content=b"meanwhile")
            yield b"two"

        answer = await api.put(file, content=body(), headers={"If-Match": tag})

        assert answer.status_code == 412
        assert await content(api, file) == b"meanwhile"

    async def test_a_tag_that_cannot_be_read_is_refused(
        self, api: httpx.AsyncClient, file: str
    ) -> None:
        for name in ("If-Match", "If-None-Match"):
            answer = await api.put(file, content=b"two", headers={name: "unquoted"})

            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-etag")


class TestDelete:
    async def test_a_stale_tag_leaves_the_file(self, api: httpx.AsyncClient, file: str) -> None:
        answer = await api.delete(file, headers={"If-Match": STALE})

        assert answer.status_code == 412
        assert await content(api, file) == b"one"

    async def test_the_tag_last_read_deletes(self, api: httpx.AsyncClient, file: str) -> None:
        tag = (await api.get(file)).headers["etag"]

        answer = await api.delete(file, headers={"If-Match": tag})
        again = await api.delete(file, headers={"If-Match": tag})

        assert (answer.status_code, again.status_code) == (204, 404)
