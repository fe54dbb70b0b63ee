"""A model, a version, a file up and down: what a person does, through HTTP."""

import asyncio
import base64
import hashlib
import json
import shutil
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from maas.shared.infrastructure.settings import Settings
from tests.e2e.conftest import Flush, MakePerson
from tests.e2e.model.conftest import MODEL, make_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

CONTENT = b"GGUF" + bytes(range(256)) * 1024
SHA256 = hashlib.sha256(CONTENT)


def told(answer: httpx.Response) -> dict[str, str]:
    """Give the headers that are about the file."""
    return {name: value for name, value in answer.headers.items() if name != "x-request-id"}


class TestJourney:
    async def test_a_file_goes_up_and_comes_down_the_same(self, api: httpx.AsyncClient) -> None:
        version = await make_version(api)
        digest = base64.b64encode(SHA256.digest()).decode()

        up = await api.put(
            f"{version}/files/weights/model.bin",
            content=CONTENT,
            headers={"Content-Digest": f"sha-256=:{digest}:"},
        )
        moved = await api.post(f"{version}/transition", json={"status": "ready"})
        down = await api.get(f"{version}/files/weights/model.bin")

        assert up.status_code == 201, up.text
        assert up.json() | {"created_at": None} == {
            "path": "weights/model.bin",
            "size": len(CONTENT),
            "sha256": SHA256.hexdigest(),
            "media_type": "application/octet-stream",
            "created_at": None,
            "facts": None,
        }
        assert moved.json()["status"] == "ready"
        assert (moved.json()["file_count"], moved.json()["size"]) == (1, len(CONTENT))
        assert down.status_code == 200
        assert down.content == CONTENT
        assert down.headers["etag"] == f'"{SHA256.hexdigest()}"'
        assert down.headers["repr-digest"] == f"sha-256=:{digest}:"
        assert down.headers.get_list("x-content-type-options") == ["nosniff"]
        assert down.headers["content-disposition"] == 'attachment; filename="model.bin"'

    async def test_created_things_can_be_read_listed_and_searched(
        self, api: httpx.AsyncClient
    ) -> None:
        made = await api.post("models", json=MODEL)

        read = await api.get(made.headers["location"].removeprefix("/api/v1/"))
        found = await api.get("models", params={"q": "客户", "include_total": "true"})
        missed = await api.get("models", params={"q": "%"})
        filtered = await api.get("models", params={"framework": "onnx"})

        assert read.json() == made.json()
        assert read.headers["etag"] == made.headers["etag"]
        listed = {name: value for name, value in made.json().items() if name != "card"}
        assert found.json() == {"items": [listed], "next_cursor": None, "total": 1}
        assert missed.json()["items"] == filtered.json()["items"] == []

    async def test_every_act_is_in_the_trail_once(
        self,
        api: httpx.AsyncClient,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        version = await make_version(api)
        await api.put(f"{version}/files/a", content=b"a")
        await api.put(f"{version}/files/b", content=b"b")
        await api.delete(f"{version}/files/b")
        await api.get(f"{version}/files/a")
        await api.put(version, json={"description": "First."})
        await api.post(f"{version}/transition", json={"status": "failed"})
        await api.delete(version)
        await api.delete(version.partition("/versions")[0])
        await flush()

        rows = await superuser.fetch(
            "SELECT action, outcome, resource_kind FROM audit_log WHERE action LIKE 'model%'"
            " ORDER BY seq"
        )
        assert sorted(tuple(row) for row in rows) == sorted(
            [
                ("model.created", "success", "model"),
                ("model_version.created", "success", "model_version"),
                ("model_file.uploaded", "success", "model_file"),
                ("model_file.uploaded", "success", "model_file"),
                ("model_file.deleted", "success", "model_file"),
                ("model_file.downloaded", "success", "model_file"),
                ("model_version.updated", "success", "model_version"),
                ("model_version.transitioned", "success", "model_version"),
                ("model_version.deleted", "success", "model_version"),
                ("model.deleted", "success", "model"),
            ]
        )

    async def test_a_repeat_under_one_key_gives_the_same_answer(
        self, api: httpx.AsyncClient
    ) -> None:
        key = {"Idempotency-Key": "one"}

        first = await api.post("models", json=MODEL, headers=key)
        again = await api.post("models", json=MODEL, headers=key)
        other = await api.post("models", json=MODEL | {"task": "other"}, headers=key)

        assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
        assert again.content == first.content
        assert again.headers["location"] == first.headers["location"]
        assert again.headers["etag"] == first.headers["etag"]


class TestModels:
    async def test_put_sets_what_is_present(self, api: httpx.AsyncClient) -> None:
        made = await api.post("models", json=MODEL)
        path = f"models/{made.json()['id']}"

        changed = await api.put(path, json={"description": None, "licence": "MIT"})
        unnamed = await api.put(path, json={"name": None})
        stale = await api.put(path, json={"task": "x"}, headers={"If-Match": made.headers["etag"]})

        assert changed.json()["description"] is None
        assert changed.json()["licence"] == "MIT"
        assert changed.json()["task"] == "chat"
        assert unnamed.status_code == 422
        assert stale.status_code == 412

    async def test_a_put_that_changes_nothing_keeps_the_etag_and_leaves_one_event(
        self,
        api: httpx.AsyncClient,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        version = await make_version(api)
        model = version.partition("/versions")[0]
        for path, body in ((model, {}), (model, MODEL), (version, {"description": None})):
            before = await api.get(path)
            after = await api.put(path, json=body)
            assert (after.status_code, after.json()) == (200, before.json())
            assert after.headers["etag"] == before.headers["etag"]
        await flush()

        rows = await superuser.fetch(
            "SELECT action, outcome, resource_kind, payload FROM audit_log"
            " WHERE action LIKE '%.updated' ORDER BY seq"
        )
        assert sorted(tuple(row)[:3] for row in rows) == [
            ("model.updated", "success", "model"),
            ("model.updated", "success", "model"),
            ("model_version.updated", "success", "model_version"),
        ]
        for row in rows:
            assert json.loads(row["payload"])["changes"] == {"before": {}, "after": {}}

    async def test_a_name_is_free_again_after_deletion(self, api: httpx.AsyncClient) -> None:
        made = await api.post("models", json=MODEL)
        path = f"models/{made.json()['id']}"

        taken = await api.post("models", json=MODEL)
        deleted = await api.delete(path)
        gone = await api.get(path)
        again = await api.post("models", json=MODEL)

        assert (taken.status_code, taken.json()["code"]) == (409, "model-name-taken")
        assert (deleted.status_code, gone.status_code, again.status_code) == (204, 404, 201)

    async def test_pages_do_not_shift(self, api: httpx.AsyncClient) -> None:
        for number in range(5):
            await api.post("models", json=MODEL | {"name": f"m{number}"})

        first = (await api.get("models", params={"limit": 2})).json()
        await api.post("models", json=MODEL | {"name": "newer"})
        second = (
            await api.get("models", params={"limit": 9, "cursor": first["next_cursor"]})
        ).json()

        names = [item["name"] for item in first["items"] + second["items"]]
        assert names == ["m4", "m3", "m2", "m1", "m0"]
        assert second["next_cursor"] is None

    @pytest.mark.parametrize(
        "body",
        [
            {},
            MODEL | {"name": "a b"},
            MODEL | {"framework": "exe"},
            MODEL | {"unknown": 1},
            MODEL | {"task": ""},
            MODEL | {"name": 7},
            MODEL | {"name": {"value": "x"}},
            MODEL | {"task": {"value": "x"}},
        ],
    )
    async def test_bad_bodies_are_refused(
        self, api: httpx.AsyncClient, body: dict[str, object]
    ) -> None:
        answer = await api.post("models", json=body)

        assert answer.status_code == 422
        assert answer.json()["errors"]

    async def test_permissions_are_asked_for(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        reader = await make_person("eve", roles=("user",))

        listed = await client.get("/api/v1/models", headers=reader.headers)
        refused = await client.post("/api/v1/models", json=MODEL, headers=reader.headers)
        unknown = await client.get("/api/v1/models")

        assert (listed.status_code, refused.status_code, unknown.status_code) == (200, 403, 401)


class TestUploads:
    async def test_a_wrong_digest_leaves_nothing(self, api: httpx.AsyncClient) -> None:
        version = await make_version(api)

        answer = await api.put(
            f"{version}/files/a", content=CONTENT, headers={"X-Checksum-SHA256": "00" * 32}
        )

        assert (answer.status_code, answer.json()["code"]) == (422, "digest-mismatch")
        assert (await api.get(f"{version}/files")).json()["items"] == []
        assert (await api.get(version)).json()["status"] == "pending"

    async def test_an_open_version_takes_another_file_in_its_place(
        self, api: httpx.AsyncClient
    ) -> None:
        version = await make_version(api)

        first = await api.put(f"{version}/files/a", content=b"one")
        second = await api.put(f"{version}/files/a", content=b"two")
        down = await api.get(f"{version}/files/a")

        assert (first.status_code, second.status_code) == (201, 200)
        assert down.content == b"two"

    async def test_a_ready_version_never_changes(self, api: httpx.AsyncClient) -> None:
        version = await make_version(api)
        await api.put(f"{version}/files/a", content=b"one")
        await api.post(f"{version}/transition", json={"status": "ready"})
        was_read = False

        async def body() -> AsyncIterator[bytes]:
            nonlocal was_read
            was_read = True
            yield b"two"

        put = await api.put(f"{version}/files/a", content=body())
        deleted = await api.delete(f"{version}/files/a")
        dropped = await api.delete(version)

        assert (put.status_code, put.json()["code"]) == (409, "version-frozen")
        assert not was_read
        assert (deleted.status_code, dropped.status_code) == (409, 409)
        assert dropped.json()["code"] == "version-in-use"

    async def test_a_file_is_no_folder(self, api: httpx.AsyncClient) -> None:
        version = await make_version(api)
        await api.put(f"{version}/files/a.txt", content=b"one")

        answer = await api.put(f"{version}/files/a.txt/b", content=b"two")

        assert (answer.status_code, answer.json()["code"]) == (409, "file-path-conflict")

    async def test_an_empty_version_is_not_ready(self, api: httpx.AsyncClient) -> None:
        version = await make_version(api)

        early = await api.post(f"{version}/transition", json={"status": "ready"})
        await api.post(f"{version}/transition", json={"status": "uploading"})
        empty = await api.post(f"{version}/transition", json={"status": "ready"})

        assert (early.status_code, early.json()["code"]) == (409, "transition-refused")
        assert (empty.status_code, empty.json()["code"]) == (409, "version-empty")

    @pytest.mark.parametrize(
        ("headers", "content", "status", "code"),
        [
            ({"Content-Encoding": "gzip"}, b"x", 415, "unsupported-media-type"),
            ({"Content-Range": "bytes 0-0/9"}, b"x", 415, "unsupported-media-type"),
            ({"Content-Digest": "nonsense"}, b"x", 422, "invalid-digest"),
            ({"Content-Length": "99999999999999"}, b"", 413, "file-too-large"),
            ({}, b"\x80\x04\x95rest", 415, "pickle-refused"),
        ],
    )
    async def test_what_will_not_do_is_refused(
        self,
        api: httpx.AsyncClient,
        headers: dict[str, str],
        content: bytes,
        status: int,
        code: str,
    ) -> None:
        version = await make_version(api)

        answer = await api.put(f"{version}/files/a", content=content, headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert (await api.get(f"{version}/files")).json()["items"] == []

    @pytest.mark.parametrize(
        "path", ["a//b", "..%2Fb", "a%5Cb", "a%09b", "/etc", "%20a", "a/%2E/b", "a" * 513]
    )
    async def test_unsafe_paths_are_refused(self, api: httpx.AsyncClient, path: str) -> None:
        version = await make_version(api)

        answer = await api.put(f"{version}/files/x", content=b"x")
        url = answer.request.url.copy_with(
            raw_path=answer.request.url.raw_path.removesuffix(b"x") + path.encode()
        )
        refused = await api.put(url, content=b"x")

        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-file-path")

    async def test_uploads_of_one_path_at_once_leave_one_file(
        self, api: httpx.AsyncClient, superuser: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        version = await make_version(api)
        contents = [f"content {number}".encode() for number in range(8)]

        answers = await asyncio.gather(
            *(api.put(f"{version}/files/a", content=content) for content in contents)
        )
        down = await api.get(f"{version}/files/a")

        assert {answer.status_code for answer in answers} == {200, 201}
        assert [answer.status_code for answer in answers].count(201) == 1
        assert down.content in contents
        assert await superuser.fetchval("SELECT count(*) FROM version_files") == 1


class TestDownloads:
    @pytest.fixture
    async def file(self, api: httpx.AsyncClient) -> str:
        version = await make_version(api)
        path = f"{version}/files/数据 1.bin"
        await api.put(path, content=CONTENT)
        return path

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ("bytes=0-9", slice(0, 10)),
            ("bytes=100-", slice(100, None)),
            ("bytes=-5", slice(-5, None)),
            (f"bytes=9-{10**12}", slice(9, None)),
        ],
    )
    async def test_a_range_is_a_part(
        self, api: httpx.AsyncClient, file: str, wanted: str, expected: slice
    ) -> None:
        answer = await api.get(file, headers={"Range": wanted})

        assert answer.status_code == 206
        assert answer.content == CONTENT[expected]
        start, stop, _ = expected.indices(len(CONTENT))
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"

    async def test_a_range_past_the_end_is_416(self, api: httpx.AsyncClient, file: str) -> None:
        answer = await api.get(file, headers={"Range": f"bytes={len(CONTENT)}-"})

        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"
        assert answer.json()["code"] == "range-not-satisfiable"

    async def test_a_known_file_is_not_sent_again(self, api: httpx.AsyncClient, file: str) -> None:
        answer = await api.get(file, headers={"If-None-Match": f'"{SHA256.hexdigest()}"'})

        assert answer.status_code == 304
        assert answer.content == b""

    async def test_its_head_tells_all_and_opens_nothing(
        self, api: httpx.AsyncClient, file: str, settings: Settings
    ) -> None:
        whole = await api.get(file)
        assert settings.data_dir is not None
        shutil.rmtree(settings.data_dir / "artifacts")

        head = await api.head(file, headers={"Range": "bytes=0-1"})
        known = await api.head(file, headers={"If-None-Match": whole.headers["etag"]})
        missing = await api.head(f"{file}x")

        assert (head.status_code, head.content) == (200, b"")
        assert told(head) == told(whole)
        assert head.headers["content-length"] == str(len(CONTENT))
        assert (known.status_code, missing.status_code) == (304, 404)

    async def test_a_name_in_any_script_is_safe_in_the_header(
        self, api: httpx.AsyncClient, file: str
    ) -> None:
        answer = await api.get(file)

        assert answer.headers["content-disposition"] == (
            "attachment; filename=\"__ 1.bin\"; filename*=UTF-8''%E6%95%B0%E6%8D%AE%201.bin"
        )

    async def test_nobody_else_sees_it(
        self,
        api: httpx.AsyncClient,
        file: str,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        await superuser.execute("SET session_replication_role = replica")
        for table in ("models", "model_versions", "version_files"):
            await superuser.execute(f"UPDATE {table} SET tenant_id = gen_random_uuid()")

        answers = [
            await api.get(file),
            await api.put(file, content=b"x"),
            await api.delete(file),
            await api.get(file.partition("/versions")[0]),
            await api.delete(file.partition("/versions")[0]),
        ]

        assert {answer.status_code for answer in answers} == {404}
        assert (await api.get("models")).json()["items"] == []
        assert (await api.get("models", params={"q": "bot"})).json()["items"] == []
