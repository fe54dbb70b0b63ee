"""Whoever loses their key while a file is on its way leaves none."""

import base64
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.e2e.conftest import Person
from tests.e2e.model.conftest import make_version
from tests.e2e.user.keys import make_key, with_key

KEYS = "users/api-keys"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


@pytest.mark.parametrize("way", ["put", "tus"])
async def test_a_key_revoked_before_the_last_byte_writes_no_file(
    api: httpx.AsyncClient, ada: Person, way: str
) -> None:
    version = await make_version(api)
    made = await make_key(api, ada, "model:read", "model:write", at=KEYS)
    theirs = with_key(made["key"])

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        assert (await api.delete(f"{KEYS}/{made['id']}")).status_code == 204
        yield b"b"

    if way == "put":
        sent = await api.put(f"{version}/files/a.bin", content=body(), headers=theirs)
    else:
        tus = {**theirs, "Tus-Resumable": "1.0.0"}
        model = version.split("/")[1]
        said = {"model_id": model, "version": "1.0.0", "path": "a.bin"}
        metadata = ",".join(
            f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in said.items()
        )
        begun = await api.post(
            "uploads", headers={**tus, "Upload-Length": "2", "Upload-Metadata": metadata}
        )
        assert begun.status_code == 201, begun.text
        sent = await api.patch(
            f"uploads/{begun.headers['location'].rpartition('/')[2]}",
            content=body(),
            headers={
                **tus,
                "Upload-Offset": "0",
                "Content-Type": "application/offset+octet-stream",
            },
        )

    assert (sent.status_code, sent.json()["code"]) == (403, "upload-sender-refused")
    assert (await api.get(f"{version}/files/a.bin")).status_code == 404
